"""Checkpoints, the catalogue, and the bundled files."""
