"""Runs the trials of a sweep one after another in this process, and reuses traced graphs."""

import collections
import functools
import gc
import json
import math
import statistics
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import dropzoo
from dropzoo import layers, serving, training
from dropzoo.runs.config import RunConfig
from dropzoo.runs.evaluation import LogProbabilities, log_probabilities, sampled, score
from dropzoo.runs.scores import Scores
from dropzoo.sweep.trials import Outcome, Record, Trial, as_json

# Number of loaded data sets to keep: adjacent trials differ in few seeds and augmentations.
_KEPT_DATA = 8
_STEPS_PER_EXECUTION = 32
# Up to this size, images to evaluate on are kept as arrays: 64 MiB of float32.
_KEPT_NUMBERS = 2**24


class Workbench:
    """Runs trials. Those that differ only in rates, rate schedules and seeds share one traced graph.

    Each trial builds a new model, which takes some milliseconds for each layer. If a model of the same graph is
    there already, it takes over the initial weights, the layers' seeds and the rates of the new one, and its
    optimizer is reset. So a trial does not depend on the trials before it: its curves are those of a model that
    was built and traced for it alone.

    Args:
        mc_samples: Int, the number of samples that the Monte-Carlo latency is measured with, once for each graph;
            0 to leave it out.
        reuse: Bool. Whether to reuse graphs; False builds and traces each trial from the start.
    """

    def __init__(self, mc_samples: int = 0, reuse: bool = True) -> None:
        self.mc_samples, self.reuse = mc_samples, reuse
        self.traced = 0  # graphs so far
        self._key = ""
        self._graph: _Graph | None = None
        self._data: collections.OrderedDict[str, _Kept] = collections.OrderedDict()

    def run(self, trial: Trial) -> Record:
        """Trains and evaluates one trial.

        Args:
            trial: The trial.

        Returns:
            The record. If the trial failed, it has the error and no figures.
        """
        start = time.perf_counter()
        try:
            return Record(trial=trial, versions=versions(), outcome=self.train(trial.config))
        except Exception as error:  # any error: the sweep continues with the next trial
            text = f"{type(error).__name__}: {str(error).strip()[:2000]}"
            seconds = round(time.perf_counter() - start, 3)
            return Record(trial=trial, versions=versions(), outcome=Outcome(seconds=seconds), error=text)

    def train(self, config: RunConfig) -> Outcome:
        """Trains and evaluates one config. Afterwards `model` is the trained model.

        Args:
            config: The config of a run.

        Returns:
            The figures.

        Raises:
            FloatingPointError: If training diverged.
            ValueError: If the config does not fit its data.
        """
        start = time.perf_counter()
        try:
            figures = self._train(config)
        except Exception:
            self._drop()  # the state that the error left is unknown
            raise
        return Outcome(**as_json(figures), seconds=round(time.perf_counter() - start, 3))

    @property
    def model(self) -> keras.Model:
        """The model of the last trial, trained."""
        if self._graph is None:
            raise ValueError("There is no model: no trial has run, or the last one failed")
        return self._graph.model

    def load(self, config: RunConfig) -> "_Kept":
        """Returns the data of a config, from memory if they are there."""
        key = json.dumps([config.data, config.balance == "sampling", config.data_arguments()])
        if key not in self._data:
            self._data[key] = _Kept(config.load_data())
            if len(self._data) > _KEPT_DATA:
                self._data.popitem(last=False)
        self._data.move_to_end(key)
        return self._data[key]

    def _train(self, config: RunConfig) -> dict[str, Any]:
        data = self.load(config)
        if data.validation is None:
            raise ValueError(
                f"Trials are compared on validation images, but {config.data!r} has none: pass a larger "
                "`validation_split` (--validation-split)"
            )
        fresh = config.build(data.info)
        key = _graph_key(fresh, config, data.info)
        graph = self._graph if key == self._key and self.reuse else None
        if graph is not None:
            graph.start_as(fresh)
        else:
            self._drop()
            graph = self._graph = _Graph(fresh, config, data.info)
            self._key = key
            self.traced += 1
        ends = [time.perf_counter()]
        clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
        callbacks = [*config.rate_callbacks(), clock]
        # Moving rates change between executions, so these are short. Otherwise only the time depends on the size.
        graph.trainer.steps_per_execution = 1 if config.rate_schedule else _STEPS_PER_EXECUTION
        history = graph.trainer.fit(
            data,
            data.validation,
            epochs=config.epochs,
            callbacks=callbacks,
            class_weight=config.class_weight(data.train, data.info),
            verbose=0,
        ).history
        if not math.isfinite(history["val_nll"][-1]):
            raise FloatingPointError(f"The validation NLL is {history['val_nll'][-1]}")
        sets = {"train": data.seen, "test": data.test, "validation": data.validation}
        scores = {
            name: score(graph.predict, dataset, Scores(data.info))
            for name, dataset in sets.items()
            if dataset is not None
        }
        figures = {name: each.figures() for name, each in scores.items()}
        calibrated = _calibrated_nll(graph.predict, sets["validation"], sets["test"], data.info.ignore_class)
        for name, value in calibrated.items():
            figures[name]["calibrated_nll"] = value
        epochs = [after - before for before, after in zip(ends, ends[1:], strict=False)]
        return {
            "curves": history,
            **figures,
            "reliability": {name: bins.tolist() for name, bins in vars(scores["validation"].bins).items()},
            "seconds_per_epoch": statistics.median(epochs[1:] or epochs),  # the first may have traced
            "parameters": graph.model.count_params(),
            "mc_ms": self._latency(graph, data.validation),
            "mc_samples": self.mc_samples,
        }

    def _latency(self, graph: "_Graph", dataset: tf.data.Dataset) -> float | None:
        """Returns the milliseconds that all samples of one image take, measured once for each graph."""
        if graph.mc_ms is None and self.mc_samples and layers.dropouts(graph.model):
            image = next(iter(dataset))[0][:1]
            sampled = serving.MonteCarlo(graph.model, num_samples=self.mc_samples)
            times = []
            for _ in range(8):
                start = time.perf_counter()
                sampled(image)["mean"].numpy()
                times.append(1e3 * (time.perf_counter() - start))
            graph.mc_ms = statistics.median(times[1:])  # the first call traces
        return graph.mc_ms

    def _drop(self) -> None:
        if self._graph is not None:
            self._key, self._graph = "", None
            gc.collect()  # a model and its traces refer to each other


class _Graph:
    """A built model with its trainer, the initial state of its optimizer, and the functions traced for it."""

    def __init__(self, model: keras.Model, config: RunConfig, info: training.DataInfo) -> None:
        self.model = model
        self.variables = list(model.variables)  # before compile adds those of the metrics
        metrics = training.default_metrics(info.task, info.num_classes, info.ignore_class)
        # The loss that trials are compared by: without smoothing, Dice and penalties.
        metrics.append(training.NegativeLogLikelihood(name="nll", ignore_class=info.ignore_class))
        self.trainer = config.trainer(model, info, metrics=metrics)
        trained, own = self.trainer.model, {id(variable) for variable in self.variables}
        trained.optimizer.build(trained.trainable_variables)
        heads = [variable for variable in trained.trainable_variables if id(variable) not in own]
        # Those of the heads of deep supervision begin alike in each trial.
        self.others = [(variable, variable.numpy()) for variable in (*trained.optimizer.variables, *heads)]
        # Concrete, since TensorFlow warns of a function that is traced often, and each graph needs its own.
        images = tf.TensorSpec((None, *info.input_shape), tf.float32)
        self.predict: LogProbabilities = tf.function(log_probabilities(model)).get_concrete_function(images)
        self.mc_ms: float | None = None

    def start_as(self, fresh: keras.Model) -> None:
        """Takes over the weights, seeds and rates of a new model of the same graph, and resets the optimizer."""
        for variable, new in zip(self.variables, fresh.variables, strict=True):
            variable.assign(new)
        for layer, new in zip(layers.dropouts(self.model), layers.dropouts(fresh), strict=True):
            if layers.has_live_rate(layer):
                layer.rate = new.rate
        for variable, value in self.others:
            variable.assign(value)


class _Kept:
    """A data set that many trials share; each trial reads the same batches as if it had loaded it alone."""

    def __init__(self, data: training.Data) -> None:
        self.info = data.info
        self.at_epoch = functools.cache(data.train.at_epoch)
        self.train = data.train
        self.validation, self.test = (_in_memory(dataset, data.info) for dataset in (data.validation, data.test))

    @functools.cached_property
    def seen(self) -> tf.data.Dataset:
        """The training images as they are stored, each once and without augmentation, to evaluate on."""
        return _in_memory(self.train.as_stored(), self.info)


def _calibrated_nll(
    predict: LogProbabilities,
    validation: tf.data.Dataset | None,
    test: tf.data.Dataset | None,
    ignore_class: int | None,
) -> dict[str, float]:
    """Returns the NLL on validation and test images with the temperature that fits the validation images."""
    temperature, found = 1.0, {}
    for name, dataset in {"validation": validation, "test": test}.items():
        if dataset is None:
            continue
        classes, log_p = sampled(predict, dataset)
        if name == "validation":
            temperature = training.fit_temperature(log_p, classes, ignore_class)
        counts = classes != ignore_class
        scaled = tf.nn.log_softmax(log_p[counts] / temperature).numpy()
        found[name] = float(-np.take_along_axis(scaled, classes[counts, None], -1).mean())
    return found


def _in_memory(dataset: tf.data.Dataset | None, info: training.DataInfo) -> tf.data.Dataset | None:
    """Returns a data set as few large batches in memory; large sets and varying sizes stay as they are."""
    height, width, channels = info.input_shape
    if dataset is None or height is None or width is None:
        return dataset
    count = sum(len(labels) for _, labels in dataset)
    if count * height * width * channels > _KEPT_NUMBERS:
        return dataset
    images, labels = (np.concatenate(each) for each in zip(*dataset.as_numpy_iterator(), strict=True))
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(min(512, 2**20 // (height * width) or 1))


def versions() -> dict[str, str]:
    """Returns the versions of the packages that a trial's figures depend on."""
    return {"dropzoo": dropzoo.__version__, "keras": keras.__version__, "tensorflow": tf.__version__}


def _graph_key(model: keras.Model, config: RunConfig, info: training.DataInfo) -> str:
    """Returns text that is equal for trials that differ only in live rates, seeds and weights."""
    drops = []
    for layer in layers.dropouts(model):
        free = ("rate", "seed") if layers.has_live_rate(layer) else ("seed",)
        drops.append([type(layer).__name__, layer.get_config() | dict.fromkeys(free)])
    names = (
        *("model", "options", "learning_rate", "learning_rate_schedule", "label_smoothing", "warmup", "optimizer"),
        *("clip_norm", "ema", "precision", "mixup", "cutmix", "deep_supervision"),
    )
    settings = [getattr(config, name) for name in names]
    # The number of steps is part of the learning-rate schedule, which is part of the graph.
    shape = [config.steps(info), info.input_shape, info.num_classes, info.ignore_class]
    return json.dumps([settings, shape, drops], default=str)
