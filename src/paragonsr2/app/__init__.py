"""The web page: drop pictures and clips, compare before and after, download the results."""
