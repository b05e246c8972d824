"""Data sets by name or by folder, as seeded batches."""
