"""Arrays of pixels: kinds, kernels, resizing, and network input and back; NumPy alone."""
