"""Image files, resizing, and the border between arrays and network input."""
