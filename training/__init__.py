"""How it is trained: data, losses, metrics, rate schedules and a trainer, on TensorFlow."""

from dropzoo.training.augment import Augment
from dropzoo.training.data import Data, DataInfo, list_data, load_data
from dropzoo.training.losses import Dice, DiceCrossEntropy, default_loss
from dropzoo.training.metrics import ExpectedCalibrationError, MeanIoU, default_metrics
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
from dropzoo.training.trainer import Trainer
from dropzoo.training.workers import multi_worker_strategy

__all__ = [
    "Augment",
    "Data",
    "DataInfo",
    "Dice",
    "DiceCrossEntropy",
    "ExpectedCalibrationError",
    "MeanIoU",
    "RateSchedule",
    "Trainer",
    "constant",
    "cosine",
    "curriculum",
    "default_loss",
    "default_metrics",
    "early",
    "get_schedule",
    "late",
    "linear",
    "list_data",
    "load_data",
    "multi_worker_strategy",
    "step",
]
