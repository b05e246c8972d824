"""The callback that changes dropout rates while a model trains."""

from collections.abc import Mapping
from typing import Any

import keras

from dropzoo import layers, models
from dropzoo.common.checks import check_rate
from dropzoo.models.graph.random import random_layers
from dropzoo.training.schedules import Schedule, get_schedule


class RateSchedule(keras.callbacks.Callback):
    """Sets the rates of dropout layers before each step of `model.fit` or `Trainer.fit`.

    TensorFlow does not retrace the step, because the rates are live. The progress is the number of finished steps
    divided by the number of steps in the whole run, `epochs * steps per epoch`, so it is just below 1 at the last
    step. In a resumed run (`fit(initial_epoch=...)`, or the Trainer's checkpoints), it counts from the start of
    the original run. If Keras does not know the number of steps, the callback counts them during the first epoch,
    which then runs at one rate; for a run of a single epoch, this is an error. With `steps_per_execution` the
    rates change once for each execution.

    The callback ignores the rates that the layers had before. After the run, the layers keep their last rates, and
    a saved model contains them. The logs of each epoch, and the history, contain `"rate/<pattern>"`, the rate at
    the last step.

    Args:
        schedules: Dict from patterns to rate schedules. A pattern is the name of a site or of a dropout layer, as
            in `models.list_sites` (in a nested model, `"inner/head"`), or an fnmatch pattern of these names. If
            several patterns match a layer, the last one wins. A rate schedule is a function, a number, or text
            such as `"linear:0.0,0.3"`; None does not change the rates of the layers.

    Raises:
        ValueError: If `schedules` is not such a dict. Before the first step: if a pattern matches no layer, if the
            rate of a matched layer cannot change (such as that of Keras' own layers), or if a rate schedule gives
            a rate outside [0, 1).

    Example:
    >>> import numpy as np
    >>> from dropzoo import models, training
    >>> model = models.build_model("unet", dropout={"decoder*": 0.0, "head": 0.0}, depth=1, filters=2)
    >>> rates = training.RateSchedule({"decoder*": training.linear(0.0, 0.3), "head": training.late(0.5)})
    >>> {pattern: len(found) for pattern, found in rates.match(model).items()}
    {'decoder*': 3, 'head': 1}
    >>> model.compile(loss=training.default_loss("segmentation", 2))
    >>> history = model.fit(np.ones((4, 8, 8, 1)), np.ones((4, 8, 8)), 2, epochs=2, callbacks=[rates], verbose=0)
    >>> [round(rate, 3) for rate in history.history["rate/decoder*"]]  # at progress 1/4 and 3/4
    [0.075, 0.225]
    """

    # Keras reads this, and then does not wait for each step before it starts the next.
    async_safe = True

    def __init__(self, schedules: Mapping[str, Schedule | float | str | None]) -> None:
        super().__init__()
        if not isinstance(schedules, Mapping) or not schedules:
            raise ValueError(
                "`schedules` must be a dict from patterns of site names to rate schedules. "
                f"Received: schedules={schedules!r}"
            )
        self.schedules = {p: None if s is None else get_schedule(s) for p, s in schedules.items()}

    def match(self, model: keras.Model) -> dict[str, list[keras.Layer]]:
        """Returns the layers that each pattern sets, leaving out those that a later pattern matches too.

        Args:
            model: A model with dropout layers.

        Raises:
            ValueError: If the model has no dropout layer, a pattern matches none, or a rate cannot be set.
        """
        if not random_layers(model):
            raise ValueError(
                "The model has no dropout layer. For a rate that rises from 0, add a dropout layer with rate 0"
            )
        matched = models.match_sites(model, self.schedules)
        last = {layer: pattern for pattern, found in matched.items() for layer in found}
        found = {
            pattern: [layer for layer in those if last[layer] == pattern]
            for pattern, those in matched.items()
            if self.schedules[pattern] is not None
        }
        for pattern, those in found.items():
            for layer in those:
                _check_live(layer, pattern)
        return {pattern: those for pattern, those in found.items() if those}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._matched = self.match(self.model)
        self._rates: dict[str, float] = {}
        self._seen = [0]
        self._epochs, self._steps = self.params["epochs"], self.params.get("steps")
        if self._epochs == 1 and not self._steps:
            raise ValueError(
                "The number of steps of the only epoch is not known, so its progress is not known either. Pass "
                "`steps_per_epoch`, or set the number with tf.data.experimental.assert_cardinality"
            )
        for pattern in self._matched:  # to find a rate that is out of range now, and not after hours
            for percent in range(100):
                self._rate(pattern, percent / 100)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        progress = self._epoch / self._epochs
        if self._steps:  # one division of whole numbers, so that a resumed run gets exactly the same floats
            # Keras begins one batch too many if it does not know the number of steps.
            done = self._epoch * self._steps + min(batch, self._steps - 1)
            progress = done / (self._epochs * self._steps)
        for pattern, matched in self._matched.items():
            rate = self._rate(pattern, progress)
            if self._rates.get(pattern) != rate:
                self._rates[pattern] = rate
                _ = self.model  # on JAX, `fit` holds the rates until a callback asks for the model
                for layer in matched:
                    layer.rate = rate

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._steps:
            self._seen.append(batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._steps = self._steps or self.params.get("steps") or max(self._seen)
        if logs is not None:  # from the layers, since a run that resumes at the end of an epoch has set no rate
            logs.update({f"rate/{pattern}": matched[0].rate for pattern, matched in self._matched.items()})

    def _rate(self, pattern: str, progress: float) -> float:
        schedule = self.schedules[pattern]
        rate = schedule(progress) if schedule else None
        try:
            return check_rate(rate)
        except ValueError:
            raise ValueError(
                f"The rate schedule of {pattern!r} must give a number in [0, 1). Received: {rate!r} at progress "
                f"{progress:.4g}"
            ) from None


def _check_live(layer: keras.Layer, pattern: str) -> None:
    """Raises a ValueError if the rate of a layer cannot change in a traced step."""
    if layers.has_live_rate(layer) and layers.is_stochastic(layer):
        return
    kind = type(layer).__name__
    if isinstance(layer, layers.Stochastic):
        why = f"a layer of the class {kind} whose rate cannot be set. Choose another layer"
    elif layers.is_dropout(layer):
        ours = type(layers.counterpart(layer)).__name__
        why = f"a layer of Keras whose rate is fixed once it is traced. Put dropzoo.layers.{ours} there"
    else:
        why = (
            f"a layer of the class {kind} with dropout in its own code, whose rate is fixed once it is traced. "
            "Use a dropout layer"
        )
    raise ValueError(
        f"{pattern!r} matches {layer.name!r}, {why}, or exclude this one with a later pattern: "
        f"{{{layer.name!r}: None}}"
    )
