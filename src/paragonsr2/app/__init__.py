"""The web page: drop a picture, see it larger, take it home."""
