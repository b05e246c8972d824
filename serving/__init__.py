"""Predictions with their uncertainty, by Monte-Carlo dropout and its alternatives, calibration, and export."""

from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.calibration.fitting.calibrate import calibrate
from dropzoo.serving.calibration.fitting.cheapest import cheapest_sites
from dropzoo.serving.export.export import export_model
from dropzoo.serving.montecarlo.augmentation import TestTimeAugmentation
from dropzoo.serving.montecarlo.ensembles import Ensemble
from dropzoo.serving.montecarlo.sampler import MonteCarlo
from dropzoo.serving.montecarlo.tiles import predict_tiled

__all__ = [
    "Calibration",
    "Ensemble",
    "MonteCarlo",
    "TestTimeAugmentation",
    "calibrate",
    "cheapest_sites",
    "export_model",
    "predict_tiled",
]
