"""Quality, cost and speed."""
