"""Predictions with their uncertainty, by Monte-Carlo dropout and its alternatives, and SavedModel export."""

from dropzoo.serving.export.saved_model import export_model
from dropzoo.serving.montecarlo.ensembles import Ensemble, TestTimeAugmentation
from dropzoo.serving.montecarlo.sampler import MonteCarlo
from dropzoo.serving.montecarlo.tiles import predict_tiled

__all__ = ["Ensemble", "MonteCarlo", "TestTimeAugmentation", "export_model", "predict_tiled"]
