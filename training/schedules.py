"""Dropout rates that change while a model trains: the callback `RateSchedule`, and the usual rate schedules.

A rate schedule is any function from the progress of the run, a float from 0 to 1, to a rate in [0, 1).
"""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras

from dropzoo import layers, models
from dropzoo.common.checks import check_choice, check_positive, check_rate, parse_spec, unknown

#: A function from progress, a float from 0 to 1, to a rate in [0, 1).
Schedule: TypeAlias = Callable[[float], float]


class RateSchedule(keras.callbacks.Callback):
    """Sets the rates of dropout layers before each step of `model.fit` or `Trainer.fit`.

    Nothing is traced again, because the rates are live. Progress is the number of steps done divided by the number
    of steps of the whole run, `epochs * steps per epoch`, so the last step comes just short of 1. It counts from
    the start of the run, also in a resumed run (`fit(initial_epoch=...)`, or the Trainer's checkpoints). Where
    Keras does not know the number of steps, the whole first epoch runs at the rate of its start, and the callback
    counts the steps. With `steps_per_execution` the rates change once for each execution.

    The callback ignores the rates that the layers had before. Afterwards they keep their last value and are saved
    with it. The logs of each epoch, and so the history, get `"rate/<pattern>"`, the rate of the last step.

    Args:
        schedules: Dict from patterns to rate schedules. A pattern is the name of a site or of a dropout layer as
            `models.list_sites` prints it, `"inner/head"` in a nested model, or an fnmatch pattern of these names.
            Later patterns win. A rate schedule is a function, a number, or text such as `"linear:0.0,0.3"`; None
            leaves the layers alone.

    Raises:
        ValueError: If `schedules` is not such a dict. Before the first step: if a pattern matches nothing, if a
            rate that it matches cannot change (layers of Keras), or if a rate schedule leaves [0, 1).

    Example:
    >>> from dropzoo import models, training
    >>> model = models.build_model("unet", dropout={"decoder*": 0.0, "head": 0.0}, depth=1, filters=2)
    >>> rates = training.RateSchedule({"decoder*": training.linear(0.0, 0.3), "head": training.late(0.5)})
    >>> {pattern: len(found) for pattern, found in rates.match(model).items()}
    {'decoder*': 3, 'head': 1}
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
        """Returns the layers that each pattern sets, without the patterns that others have overruled.

        Args:
            model: A model with dropout layers.

        Raises:
            ValueError: If the model has no dropout layer, a pattern matches none, or a rate cannot be set.
        """
        if not layers.dropouts(model):
            raise ValueError("The model has no dropout layer. A rate that rises from 0 needs one of rate 0 there")
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
                "The number of steps of the only epoch is not known, so there is no progress in it: pass "
                "`steps_per_epoch`, or say it with tf.data.experimental.assert_cardinality"
            )
        for pattern in self._matched:  # find a rate out of range now and not after hours
            for percent in range(100):
                self._rate(pattern, percent / 100)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        progress = self._epoch / self._epochs
        if self._steps:  # one division of whole numbers, so that a resumed run gets the very same floats
            # Keras begins one batch too many where it does not know the number of steps.
            done = self._epoch * self._steps + min(batch, self._steps - 1)
            progress = done / (self._epochs * self._steps)
        for pattern, matched in self._matched.items():
            rate = self._rate(pattern, progress)
            if self._rates.get(pattern) != rate:
                self._rates[pattern] = rate
                for layer in matched:
                    layer.rate = rate

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._steps:
            self._seen.append(batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._steps = self._steps or self.params.get("steps") or max(self._seen)
        if logs is not None:  # read off the layers: a run resumed at the very end of an epoch has set none
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
    if layers.has_live_rate(layer):
        return
    if isinstance(layer, layers.Stochastic):
        why = f"is a {type(layer).__name__}, whose rate cannot be set: choose another layer"
    else:
        ours = type(layers.counterpart(layer)).__name__
        why = f"is a layer of Keras, whose rate is fixed once it is traced: put dropzoo.layers.{ours} there"
    raise ValueError(
        f"{layer.name!r}, which {pattern!r} matches, {why}, or leave it alone with a later pattern: "
        f"{{{layer.name!r}: None}}"
    )


def get_schedule(spec: Schedule | float | str) -> Schedule:
    """Returns a rate schedule from a short description.

    Args:
        spec: A function, which is returned as it is; a number, which means `constant`; or text such as
            `"name:value,option=value"`, where the name is that of a rate schedule here.

    Returns:
        A function from progress, a float from 0 to 1, to a rate.

    Raises:
        ValueError: For any other `spec`, an unknown name, or arguments that the rate schedule does not take.

    Example:
    >>> from dropzoo import training
    >>> training.get_schedule("late:0.5,start=0.6")(0.7)
    0.5
    """
    if callable(spec):
        return spec
    if isinstance(spec, numbers.Real):
        return constant(spec)
    if not isinstance(spec, str):
        raise ValueError(
            'A rate schedule is a function from progress to rate, a number, or text such as "linear:0.0,0.3". '
            f"Received: {spec!r}"
        )
    name, args, kwargs = parse_spec(spec, "name:value,option=value")
    if name not in _SCHEDULES:
        raise unknown("rate schedule", name, _SCHEDULES)
    try:
        return _SCHEDULES[name](*args, **kwargs)
    except TypeError as error:
        raise ValueError(f"Cannot make a rate schedule from {spec!r}: {error}") from None


def constant(rate: float) -> Schedule:
    """Returns a rate schedule that is always `rate`.

    Args:
        rate: Float in [0, 1).

    Raises:
        ValueError: If the rate is not in [0, 1).
    """
    rate = check_rate(rate)
    return lambda progress: rate


def linear(start: float, end: float) -> Schedule:
    """Returns a rate schedule that is a straight line: `start * (1 - t) + end * t`.

    DropBlock was trained with `start=0`: its authors found a rate that grows better than a fixed one.

    Args:
        start: Float in [0, 1). The rate at progress 0.
        end: Float in [0, 1). The rate at progress 1.

    Raises:
        ValueError: If a rate is not in [0, 1).

    Reference:
        Ghiasi et al., "DropBlock: A regularization method for convolutional networks", 2018, arXiv:1810.12890.
    """
    start, end = check_rate(start, "start"), check_rate(end, "end")
    return lambda progress: start * (1.0 - progress) + end * progress


def cosine(start: float, end: float) -> Schedule:
    """Returns a rate schedule along half a cosine, slow at both ends: `linear` of `(1 - cos(pi t)) / 2`.

    Args:
        start: Float in [0, 1). The rate at progress 0.
        end: Float in [0, 1). The rate at progress 1.

    Raises:
        ValueError: If a rate is not in [0, 1).

    Reference:
        The curve is that of the learning rates in Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with
        Warm Restarts", 2017, arXiv:1608.03983.
    """
    line = linear(start, end)
    return lambda progress: line((1.0 - math.cos(math.pi * progress)) / 2.0)


def step(rates: Mapping[float, float]) -> Schedule:
    """Returns a rate schedule that is constant between jumps.

    `step({0.0: 0.1, 0.5: 0.3})` is 0.1 in the first half of the run and 0.3 in the second.

    Args:
        rates: Dict from the progress at which a rate begins, a float in [0, 1), to that rate. It needs a key 0.

    Raises:
        ValueError: If `rates` is not such a dict.
    """
    ok = isinstance(rates, Mapping) and all(isinstance(t, numbers.Real) and 0 <= t < 1 for t in rates)
    if not ok or 0 not in rates:
        raise ValueError(
            "`rates` must be a dict from progress in [0, 1) to rates, with an entry for 0. "
            f"Received: rates={rates!r}"
        )
    jumps = sorted((float(t), check_rate(rate, f"rates[{t}]")) for t, rate in rates.items())
    return lambda progress: [rate for begin, rate in jumps if begin <= progress][-1]


def curriculum(rate: float, gamma: float = 10.0) -> Schedule:
    """Returns the rate schedule of curriculum dropout, from 0 up to `rate`: `rate * (1 - exp(-gamma * t))`.

    The problem gets harder as the network learns: at first it sees the whole signal, later less. The paper writes
    it as the probability to keep a unit, `theta(t) = (1 - theta_bar) * exp(-gamma * t) + theta_bar`, where
    `theta_bar` is `1 - rate`.

    Differs from the paper: `t` is the progress of the run and not the number of steps, so its heuristic
    `gamma = 10 / steps` is 10 here.

    Args:
        rate: Float in [0, 1). The limit; at the end of the run the rate is `rate * (1 - exp(-gamma))`.
        gamma: Float above 0. The speed.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Morerio et al., "Curriculum Dropout", 2017, arXiv:1703.06229.
    """
    rate, gamma = check_rate(rate), check_positive(gamma, "gamma")
    return lambda progress: rate * -math.expm1(-gamma * progress)


def early(rate: float, end: float = 1 / 6, decay: str = "linear") -> Schedule:
    """Returns the rate schedule of early dropout, which is on at the beginning only; for networks that underfit.

    At the beginning dropout makes the gradients of different batches agree more; later it would cost capacity.

    Args:
        rate: Float in [0, 1). The rate at the beginning.
        end: Float in (0, 1]. The progress from which on the rate is 0; it is 50 epochs of 300 in the paper.
        decay: `"linear"` from `rate` down to 0 at `end`, as in the paper's main results, or `"constant"`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Liu et al., "Dropout Reduces Underfitting", 2023, arXiv:2303.01500.
    """
    rate = check_rate(rate)
    if not isinstance(end, numbers.Real) or isinstance(end, bool) or not 0 < end <= 1:
        raise ValueError(f"`end` must be a number in (0, 1]. Received: end={end!r}")
    check_choice(decay, "decay", ("linear", "constant"))
    if decay == "constant":
        return lambda progress: rate if progress < end else 0.0
    return lambda progress: rate * max(0.0, 1.0 - progress / end)


def late(rate: float, start: float = 1 / 6) -> Schedule:
    """Returns the rate schedule of late dropout, 0 until `start` and then `rate`; for networks that overfit.

    Args:
        rate: Float in [0, 1). The rate afterwards.
        start: Float in [0, 1). The progress at which dropout begins; it is 50 epochs of 300 in the paper.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Liu et al., "Dropout Reduces Underfitting", 2023, arXiv:2303.01500.
    """
    if not isinstance(start, numbers.Real) or isinstance(start, bool) or not 0 <= start < 1:
        raise ValueError(f"`start` must be a number in [0, 1). Received: start={start!r}")
    return step({0.0: 0.0, start: check_rate(rate)})


_SCHEDULES: dict[str, Callable[..., Schedule]] = {
    schedule.__name__: schedule for schedule in (constant, linear, cosine, step, curriculum, early, late)
}
