"""The config of a run, and the objects that it defines: data, model and trainer."""

import dataclasses
import json
import math
from typing import Any

import keras
import numpy as np

from dropzoo import models, training
from dropzoo.common.checks import check_count
from dropzoo.models.graph.order import shape_of_images
from dropzoo.runs.recipe import learning_rate
from dropzoo.runs.recipe import optimizer as make_optimizer
from dropzoo.runs.settings import FILE_NAMES, READING, Settings, renamed, with_settings
from dropzoo.training.loop.replicas import scope
from dropzoo.training.losses.cross_entropy import check_smoothing

#: The fields of a run's config that say which images it sees, and in which order.
DATA_ARGUMENTS = (
    *("batch_size", "augment", "image_size", "num_channels", "validation_split", "limit", "seed"),
    *("fold", "data_dir", "manual_dir", "cache", "test_split", "split_file", "group_by", "broken", *READING),
)


@with_settings
@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """The model and the data of a run, and how the model is trained. The defaults are those of `dropzoo train`.

    Args:
        model: Str, the name of a model, as for `build_model`.
        dropout: A rate, the name of a plan, a dict from patterns to specs, or None, as for `build_model`.
        options: Dict of further arguments of `build_model`.
        rate_schedule: Dict from patterns of sites to rate schedules as text, such as
            `{"decoder*": "linear:0.0,0.3"}`; None for fixed rates.
        augment: False for no augmentation, True for the usual one, or text such as
            `"flip_horizontal,rotation=15"`, as for `load_data`.
        label_smoothing: Float in [0, 1), that of the loss; 0 for none.
        seed: Int in [0, 2**32). It fixes the initial weights, the order of the images and the dropout masks.
        data_seed: Int in [0, 2**32), which fixes the order of the images and the validation images in place of
            `seed`; None for `seed`. The members of an ensemble share it.
        snapshots: Int of at least 0, the number of cosine cycles of the learning rate. A snapshot of the weights
            is taken at the end of each cycle, and these snapshots are the members of an ensemble that costs one
            training run. `epochs` must be divisible by this number. 0 for none.
        patience: Int above 0, the number of epochs without a better validation loss after which training stops;
            None to train to the end.
        best: Bool. Whether the model is that of the epoch with the best validation loss, rather than the last.
        fold: Pair of ints `(k, n)` for part `k` of a cross-validation in `n` parts, or None, as for `load_data`.
        ...: See `Settings`.

    Raises:
        ValueError: If a setting of the training is out of its range. Errors in the data, the model and its dropout
            are found by `load_data` and `build`.

    Reference:
        Snapshots: Huang et al., "Snapshot Ensembles: Train 1, get M for free", 2017, arXiv:1704.00109.
    """

    model: str
    dropout: Any = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    rate_schedule: dict[str, Any] | None = None
    augment: bool | str = False
    label_smoothing: float = 0.0
    seed: int = 0
    data_seed: int | None = None
    snapshots: int = 0
    fold: tuple[int, int] | None = None
    patience: int | None = None
    best: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_smoothing(self.label_smoothing)
        if self.snapshots:
            check_count(self.snapshots, "snapshots")
        if self.snapshots and (self.epochs % self.snapshots or self.learning_rate_schedule != "cosine"):
            raise ValueError(
                f"{self.snapshots} snapshots need the cosine schedule, and a number of epochs that is divisible "
                f"by {self.snapshots}. Received: {self.epochs} epochs, schedule {self.learning_rate_schedule}"
            )
        if self.snapshots and (self.patience or self.best or self.warmup or self.ema is not None):
            raise ValueError(
                "Snapshots are the weights at the end of each learning-rate cycle. Leave out --patience, --best, "
                "--warmup and --ema, or pass --members N instead of --members snapshots:N"
            )
        self.rate_callbacks()
        if self.patience is not None:
            check_count(self.patience, "patience")

    def to_json(self) -> dict[str, Any]:
        """Returns the config as a dict for JSON, with the names that the fields have in files."""
        # `asdict` would put the model after the settings; in a file it comes first.
        return renamed({"model": self.model, **dataclasses.asdict(self)}, FILE_NAMES)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "RunConfig":
        """Returns the config from the dict that `to_json` returned."""
        config = renamed(saved, {old: new for new, old in FILE_NAMES.items()})
        return cls(**{**config, "fold": config.get("fold") and tuple(config["fold"])})

    def rate_callbacks(self) -> list[training.RateSchedule]:
        """Returns a list with the callback that changes the dropout rates; it is empty if the rates are fixed."""
        return [] if self.rate_schedule is None else [training.RateSchedule(self.rate_schedule)]

    def load_data(self) -> training.Data:
        """Returns the data of this run, as `training.load_data` does."""
        return training.load_data(self.data, balance=self.balance == "sampling", **self.data_arguments())

    def data_arguments(self) -> dict[str, Any]:
        """Returns the arguments of `load_data` that are fields here."""
        arguments = {name: getattr(self, name) for name in DATA_ARGUMENTS}
        return arguments if self.data_seed is None else {**arguments, "seed": self.data_seed}

    def class_weight(self, train: Any, info: training.DataInfo) -> dict[int, float] | None:
        """Returns the weight of each class, if classes are to be balanced by weights."""
        return class_weights(train, info) if self.balance == "weights" else None

    def build(self, info: training.DataInfo) -> keras.Model:
        """Builds the model with the initial weights that `seed` gives.

        Call it after `load_data`: it sets the random seed, and preparing a data set may draw random numbers.

        Raises:
            ValueError: If the model does not fit the data.
        """
        keras.utils.set_random_seed(self.seed)
        shape = {"input_shape": info.input_shape, "num_classes": info.num_classes}
        before = keras.config.dtype_policy()
        try:
            keras.config.set_dtype_policy(before if self.precision == "float32" else self.precision)
            model = models.build_model(self.model, dropout=self.dropout, **{**shape, **self.options})
        finally:
            keras.config.set_dtype_policy(before)
        check_fit(model, self.model, info)
        return model

    def steps(self, info: training.DataInfo) -> int:
        """Returns the number of steps of the whole run."""
        return self.epochs * math.ceil(info.num_train / self.batch_size)

    def trainer(self, model: keras.Model, info: training.DataInfo, **options: Any) -> training.Trainer:
        """Returns a `Trainer` of the model for this config; `options` are further arguments of `Trainer`.

        With deep supervision, `trainer.model` is another model with the same layers.
        """
        rate: Any = self.learning_rate
        if self.snapshots:
            cycle = self.steps(info) // self.snapshots
            rate = keras.optimizers.schedules.CosineDecayRestarts(rate, cycle, t_mul=1.0)
        else:
            warm_up = round(self.warmup * self.steps(info) / self.epochs)
            rate = learning_rate(rate, self.learning_rate_schedule, self.steps(info), warm_up)
        loss = training.default_loss(info.task, info.num_classes, self.label_smoothing, info.ignore_class)
        chosen = make_optimizer(self.optimizer, rate, self.clip_norm, self.ema)
        if self.deep_supervision:
            with scope(options.get("strategy")):
                # The file of the model then knows its loss, metrics and optimizer. The optimizer starts anew,
                # without an EMA, which would have no averages. It is built, so that its variables are in the file.
                metrics = training.default_metrics(info.task, info.num_classes, info.ignore_class)
                fresh = make_optimizer(self.optimizer, rate, self.clip_norm, None)
                model.compile(fresh, loss=loss, metrics=metrics)
                model.optimizer.build(model.trainable_variables)
                model = training.DeepSupervision(model)
        return training.Trainer(model, chosen, loss, mixup=self.mixup, cutmix=self.cutmix, **options)


def class_weights(train: Any, info: training.DataInfo) -> dict[int, float]:
    """Returns weights by median frequency: a class that is half as frequent as the median one weighs twice.

    A class that does not occur weighs 1.

    Args:
        train: The training batches of `load_data`.
        info: The facts about the data set.

    Reference:
        Eigen and Fergus, "Predicting Depth, Surface Normals and Semantic Labels", 2015, arXiv:1411.4734.
    """
    counts = np.zeros(info.num_classes, np.int64)
    for _, labels in train.as_stored():
        labels = labels.numpy().ravel()
        counts += np.bincount(labels[labels != info.ignore_class], minlength=len(counts))
    frequency = counts / counts.sum()
    weights = np.median(frequency[counts > 0]) / np.where(counts > 0, frequency, 1)
    return {label: float(weights[label]) if counts[label] else 1.0 for label in range(len(counts))}


def as_json(config: RunConfig) -> dict[str, Any]:
    """Returns a config as it comes back from a file, with lists in place of tuples."""
    return json.loads(json.dumps(config.to_json()))


def check_fit(
    model: keras.Model,
    name: str,
    info: training.DataInfo,
    classes: str = "Leave the option `num_classes` out",
    size: str = "Leave the option `input_shape` out, or resize the images with --image-size",
) -> None:
    """Raises a ValueError if a model does not fit the data.

    Args:
        model: A model of one image input and one output.
        name: Str. The model's name in the error.
        info: The facts of the data set.
        classes: Str. Advice for the error if the number of classes is wrong.
        size: Str. Advice for the error if the size of the images is wrong.
    """
    dense = len(model.output_shape) == 4
    if dense != (info.task == "segmentation"):
        raise ValueError(
            f"Model {name!r} returns {'masks' if dense else 'one label per image'}, but {info.name!r} is a data "
            f"set for {info.task}. Pass other data, or a model for {info.task} (see dropzoo list models)"
        )
    if model.output_shape[-1] != info.num_classes:
        given = model.output_shape[-1]
        raise ValueError(
            f"{info.name!r} has {info.num_classes} classes. Received: a model with {given} classes. {classes}"
        )
    taken = shape_of_images(model)
    pairs = zip(taken, info.input_shape, strict=True)
    if any(n is not None and n != given for n, given in pairs):
        raise ValueError(
            f"The images of {info.name!r} have the shape {info.input_shape}, but the model takes {taken}. {size}"
        )
