"""What leaves: Monte-Carlo inference and SavedModel export, on TensorFlow."""

from dropzoo.serving.export import export_model
from dropzoo.serving.monte_carlo import MonteCarlo
from dropzoo.serving.tiles import predict_tiled

__all__ = ["MonteCarlo", "export_model", "predict_tiled"]
