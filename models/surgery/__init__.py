"""Dropout on existing models: putting it in, taking it out, and measuring it."""
