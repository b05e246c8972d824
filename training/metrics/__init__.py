"""Metrics on integer labels, and figures of uncertainty."""

from dropzoo.training.metrics.calibration import (
    AdaptiveCalibrationError,
    ClasswiseCalibrationError,
    ExpectedCalibrationError,
)
from dropzoo.training.metrics.default import default_metrics
from dropzoo.training.metrics.iou import MeanIoU
from dropzoo.training.metrics.proper import BrierScore, NegativeLogLikelihood
from dropzoo.training.metrics.selective import aurc, error_auroc, ood_auroc, risk_coverage
from dropzoo.training.metrics.temperature import fit_temperature

__all__ = [
    "AdaptiveCalibrationError",
    "BrierScore",
    "ClasswiseCalibrationError",
    "ExpectedCalibrationError",
    "MeanIoU",
    "NegativeLogLikelihood",
    "aurc",
    "default_metrics",
    "error_auroc",
    "fit_temperature",
    "ood_auroc",
    "risk_coverage",
]
