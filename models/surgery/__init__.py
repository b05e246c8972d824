"""Dropout on models that exist: put in, taken out, measured."""
