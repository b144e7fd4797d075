"""Video files: decoding, encoding, remuxing, and segments that survive a kill."""
