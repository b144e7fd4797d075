"""Shaders: a collapsed network as a list of passes, and the languages it is written in."""
