"""Predictions with their uncertainty: Monte-Carlo dropout, ensembles, test-time augmentation, tiles."""
