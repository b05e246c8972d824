"""How it is trained: data, losses, metrics, rate schedules and a trainer, on TensorFlow."""

from dropzoo.training.augment import Augment
from dropzoo.training.calibration import (
    AdaptiveCalibrationError,
    ClasswiseCalibrationError,
    ExpectedCalibrationError,
)
from dropzoo.training.corruptions import corrupt, list_corruptions
from dropzoo.training.data import Data, DataInfo, list_data, load_data
from dropzoo.training.imbalance import FocalCrossEntropy, Tversky
from dropzoo.training.losses import Dice, DiceCrossEntropy, SmoothedCrossEntropy, default_loss
from dropzoo.training.metrics import MeanIoU, default_metrics
from dropzoo.training.proper_scores import BrierScore, NegativeLogLikelihood
from dropzoo.training.schedules import (
    RateSchedule,
    constant,
    cosine,
    curriculum,
    early,
    get_schedule,
    late,
    linear,
    step,
)
from dropzoo.training.selective import aurc, error_auroc, fit_temperature, ood_auroc, risk_coverage
from dropzoo.training.trainer import Trainer
from dropzoo.training.workers import multi_worker_strategy

__all__ = [
    "AdaptiveCalibrationError",
    "Augment",
    "BrierScore",
    "ClasswiseCalibrationError",
    "Data",
    "DataInfo",
    "Dice",
    "DiceCrossEntropy",
    "ExpectedCalibrationError",
    "FocalCrossEntropy",
    "MeanIoU",
    "NegativeLogLikelihood",
    "RateSchedule",
    "SmoothedCrossEntropy",
    "Trainer",
    "Tversky",
    "aurc",
    "constant",
    "corrupt",
    "cosine",
    "curriculum",
    "default_loss",
    "default_metrics",
    "early",
    "error_auroc",
    "fit_temperature",
    "get_schedule",
    "late",
    "linear",
    "list_corruptions",
    "list_data",
    "load_data",
    "multi_worker_strategy",
    "ood_auroc",
    "risk_coverage",
    "step",
]
