"""Image files: formats, reading and writing with all that they carry."""
