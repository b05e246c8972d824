"""A data set on disk: the table of its samples, how each layout becomes one, and how its files are read."""
