"""The web page: drop an image or a clip, compare before and after, download the result."""
