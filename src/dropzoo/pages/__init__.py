"""HTML pages and pictures."""
