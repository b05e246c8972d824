"""The graph of a Keras model: reading it, walking it, and what its outputs mean."""
