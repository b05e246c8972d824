"""Exports: SavedModels with their preprocessing, signatures and model card, and files for other runtimes."""
