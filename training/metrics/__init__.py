"""Metrics on logits and integer labels."""
