"""What leaves: Monte-Carlo inference with its rivals, and SavedModel export, on TensorFlow."""

from dropzoo.serving.export import export_model
from dropzoo.serving.monte_carlo import MonteCarlo
from dropzoo.serving.rivals import Ensemble, TestTimeAugmentation
from dropzoo.serving.tiles import predict_tiled

__all__ = ["Ensemble", "MonteCarlo", "TestTimeAugmentation", "export_model", "predict_tiled"]
