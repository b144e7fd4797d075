"""The static page that enlarges pictures and clips in the browser, without a server."""
