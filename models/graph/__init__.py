"""The graph of a Keras model: its calls, its places for dropout, and the activation that it ends in."""
