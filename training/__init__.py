"""Training on TensorFlow: data, losses, metrics, rate schedules and a trainer."""

from dropzoo.training.data.augment import Augment
from dropzoo.training.data.corruptions import corrupt, list_corruptions
from dropzoo.training.data.dataset import Data, DataInfo
from dropzoo.training.data.load import list_data, load_data
from dropzoo.training.loggers import CSVLogger, MLflowLogger, TensorBoardLogger
from dropzoo.training.loop.workers import multi_worker_strategy
from dropzoo.training.losses import (
    Dice,
    DiceCrossEntropy,
    FocalCrossEntropy,
    SmoothedCrossEntropy,
    Tversky,
    default_loss,
)
from dropzoo.training.metrics import (
    AdaptiveCalibrationError,
    BrierScore,
    ClasswiseCalibrationError,
    ExpectedCalibrationError,
    MeanIoU,
    NegativeLogLikelihood,
    aurc,
    default_metrics,
    error_auroc,
    fit_temperature,
    ood_auroc,
    risk_coverage,
)
from dropzoo.training.rate_schedule import RateSchedule
from dropzoo.training.schedules import (
    constant,
    cosine,
    curriculum,
    early,
    get_schedule,
    late,
    linear,
    step,
)
from dropzoo.training.supervision import DeepSupervision
from dropzoo.training.trainer import Trainer

__all__ = [
    "AdaptiveCalibrationError",
    "Augment",
    "BrierScore",
    "CSVLogger",
    "ClasswiseCalibrationError",
    "Data",
    "DataInfo",
    "DeepSupervision",
    "Dice",
    "DiceCrossEntropy",
    "ExpectedCalibrationError",
    "FocalCrossEntropy",
    "MLflowLogger",
    "MeanIoU",
    "NegativeLogLikelihood",
    "RateSchedule",
    "SmoothedCrossEntropy",
    "TensorBoardLogger",
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
