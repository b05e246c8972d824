"""Rates that change while a model trains: the callback `RateSchedule`, and the usual schedules.

A schedule is any function from the progress of the run, a float from 0 to 1, to a rate in [0, 1).
"""

import fnmatch
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import keras

from dropzoo import layers
from dropzoo.common.checks import check_rate, parse_spec, unknown
from dropzoo.layers._base import Stochastic

Schedule = Callable[[float], float]


class RateSchedule(keras.callbacks.Callback):
    """Sets the rates of dropout layers before each step of `model.fit` or `Trainer.fit`.

    Nothing is traced again: the rates are live. Progress is the number of steps done over those of the whole run,
    `epochs * steps per epoch`, so the last step comes just short of 1. It counts from the start of the run, also
    in one that is resumed (`fit(initial_epoch=...)`, or the Trainer's checkpoints). Where Keras does not know the
    number of steps, the first epoch runs at the rate of its start, and counts them. With `steps_per_execution`
    the rates change at each execution.

    The rates that the layers had before play no part. Afterwards they stay at their last value, and are saved so.
    The logs of an epoch, and so the history, get `"rate/<pattern>"`: the rate of its last step.

    Args:
        schedules: Dict from patterns (fnmatch) to schedules. A pattern is matched against the names of the
            dropout layers, with and without `_dropout`, also in nested models; later patterns win. A schedule
            is a function, a number, or text such as `"linear:0.0,0.3"`; None leaves the layers alone.

    Raises:
        ValueError: before the first step, if a pattern matches nothing, if a rate that it matches cannot change
            (layers of Keras), or if a schedule leaves [0, 1).

    Example:
    >>> from dropzoo import models, training
    >>> model = models.build_model("unet", dropout={"decoder*": 0.0, "head": 0.0}, depth=1, filters=2)
    >>> rates = training.RateSchedule({"decoder*": training.linear(0.0, 0.3), "head": training.late(0.5)})
    >>> {pattern: len(found) for pattern, found in rates.match(model).items()}
    {'decoder*': 3, 'head': 1}
    """

    # For Keras, which then does not wait for each step before it starts the next.
    async_safe = True

    def __init__(self, schedules: Mapping[str, Any]) -> None:
        super().__init__()
        if not isinstance(schedules, Mapping) or not schedules:
            raise ValueError(
                f"`schedules` must be a dict from patterns of site names to schedules. Received: {schedules!r}"
            )
        self.schedules = {p: None if s is None else get_schedule(s) for p, s in schedules.items()}

    def match(self, model: keras.Model) -> dict[str, list[keras.Layer]]:
        """The layers that each pattern sets, without the patterns that others have overruled."""
        found = [layer for layer in model._flatten_layers(include_self=False) if layers.is_stochastic(layer)]
        if not found:
            raise ValueError("The model has no dropout layer. A rate that rises from 0 needs one of rate 0 there")
        matched: dict[str, list[keras.Layer]] = {pattern: [] for pattern in self.schedules}
        unused = set(self.schedules)
        for layer in found:
            names = (layer.name, layer.name.removesuffix("_dropout"))
            matching = [p for p in self.schedules if any(fnmatch.fnmatchcase(name, p) for name in names)]
            unused -= set(matching)
            if matching and self.schedules[matching[-1]] is not None:
                _check_live(layer, matching[-1])
                matched[matching[-1]].append(layer)
        for pattern in self.schedules:
            if pattern in unused:
                raise unknown("dropout site", pattern, {layer.name.removesuffix("_dropout") for layer in found})
        return {pattern: those for pattern, those in matched.items() if those}

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
        for pattern in self._matched:  # a rate out of range is found now and not after hours
            for percent in range(100):
                self._rate(pattern, percent / 100)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        progress = self._epoch / self._epochs
        if self._steps:  # one division of whole numbers, so that a resumed run gets the very same floats
            # Of data of unknown length Keras begins one batch more than there are.
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
                f"The schedule of {pattern!r} must give a number in [0, 1). Received: {rate!r} at progress "
                f"{progress:.4g}"
            ) from None


def _check_live(layer: keras.Layer, pattern: str) -> None:
    rate = getattr(type(layer), "rate", None)
    if isinstance(rate, property) and rate.fset is not None:
        return
    if isinstance(layer, Stochastic):
        why = f"is a {type(layer).__name__}, whose rate cannot be set: choose another layer"
    else:
        ours = type(layers.counterpart(layer)).__name__
        why = f"is a layer of Keras, whose rate is fixed once it is traced: put dropzoo.layers.{ours} there"
    raise ValueError(
        f"{layer.name!r}, which {pattern!r} matches, {why}, or leave it alone with a later pattern: "
        f"{{{layer.name!r}: None}}"
    )


def get_schedule(spec: Any) -> Schedule:
    """A schedule from a function, which is given back, a number, or text: `"name:value,option=value"`.

    Example:
    >>> from dropzoo import training
    >>> training.get_schedule("late:0.5,start=0.6")(0.7)
    0.5
    """
    if callable(spec):
        return spec
    if isinstance(spec, numbers.Real):
        return constant(spec)  # type: ignore[arg-type]
    if not isinstance(spec, str):
        raise ValueError(
            'A schedule is a function from progress to rate, a number, or text such as "linear:0.0,0.3". '
            f"Received: {spec!r}"
        )
    name, args, kwargs = parse_spec(spec, "name:value,option=value")
    if name not in _SCHEDULES:
        raise unknown("schedule", name, _SCHEDULES)
    try:
        return _SCHEDULES[name](*args, **kwargs)
    except TypeError as error:
        raise ValueError(f"Cannot make a schedule from {spec!r}: {error}") from None


def constant(rate: float) -> Schedule:
    """Always `rate`."""
    rate = check_rate(rate)
    return lambda progress: rate


def linear(start: float, end: float) -> Schedule:
    """In a straight line from `start` to `end`: `start * (1 - t) + end * t`.

    With `start=0` as DropBlock was trained, whose authors found a rate that grows better than a fixed one.

    Reference:
        Ghiasi et al., "DropBlock: A regularization method for convolutional networks", 2018, arXiv:1810.12890.
    """
    start, end = check_rate(start, "start"), check_rate(end, "end")
    return lambda progress: start * (1.0 - progress) + end * progress


def cosine(start: float, end: float) -> Schedule:
    """From `start` to `end` along half a cosine, slow at both ends: `linear` of `(1 - cos(pi t)) / 2`.

    Reference:
        The curve is that of learning rates in Loshchilov and Hutter, "SGDR", 2017, arXiv:1608.03983.
    """
    line = linear(start, end)
    return lambda progress: line((1.0 - math.cos(math.pi * progress)) / 2.0)


def step(rates: Mapping[float, float]) -> Schedule:
    """Constant between jumps: `step({0.0: 0.1, 0.5: 0.3})` is 0.1 in the first half of the run and then 0.3.

    Args:
        rates: Dict from the progress at which a rate begins to that rate; the first begins at 0.
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
    """Curriculum dropout: from 0 up to `rate`, fast at first: `rate * (1 - exp(-gamma * t))`.

    The task gets harder as the network learns: first all of the signal, then less. In the paper's words the
    probability to keep a unit is `theta(t) = (1 - theta_bar) * exp(-gamma * t) + theta_bar`, where `theta_bar` is
    `1 - rate`.

    Differs from the paper: `t` is the progress of the run and not the number of steps, so its heuristic
    `gamma = 10 / steps` is 10 here.

    Args:
        rate: Float in [0, 1). What is approached: at the end of the run less by the factor `1 - exp(-gamma)`.
        gamma: Float, the speed.

    Reference:
        Morerio et al., "Curriculum Dropout", 2017, arXiv:1703.06229.
    """
    rate = check_rate(rate)
    if not isinstance(gamma, numbers.Real) or isinstance(gamma, bool) or not 0 < gamma < math.inf:
        raise ValueError(f"`gamma` must be a positive number. Received: gamma={gamma!r}")
    return lambda progress: rate * -math.expm1(-gamma * progress)


def early(rate: float, end: float = 1 / 6, decay: str = "linear") -> Schedule:
    """Early dropout: on at the beginning of the run only, for networks that underfit.

    There dropout makes the gradients of different batches agree more; later it would cost capacity.

    Args:
        rate: Float in [0, 1), the rate at the beginning.
        end: Float in (0, 1], the progress from which on the rate is 0; the paper's is 50 epochs of 300.
        decay: `"linear"` from `rate` down to 0 at `end`, as in the paper's main results, or `"constant"`.

    Reference:
        Liu et al., "Dropout Reduces Underfitting", 2023, arXiv:2303.01500.
    """
    rate = check_rate(rate)
    if not isinstance(end, numbers.Real) or isinstance(end, bool) or not 0 < end <= 1:
        raise ValueError(f"`end` must be a number in (0, 1]. Received: end={end!r}")
    if decay not in ("linear", "constant"):
        raise ValueError(f"`decay` must be 'linear' or 'constant'. Received: decay={decay!r}")
    if decay == "constant":
        return lambda progress: rate if progress < end else 0.0
    return lambda progress: rate * max(0.0, 1.0 - progress / end)


def late(rate: float, start: float = 1 / 6) -> Schedule:
    """Late dropout: 0 until `start`, then `rate`, for networks that overfit.

    Args:
        rate: Float in [0, 1), the rate afterwards.
        start: Float in [0, 1), the progress from which on it drops; the paper's is 50 epochs of 300.

    Reference:
        Liu et al., "Dropout Reduces Underfitting", 2023, arXiv:2303.01500.
    """
    if not isinstance(start, numbers.Real) or isinstance(start, bool) or not 0 <= start < 1:
        raise ValueError(f"`start` must be a number in [0, 1). Received: start={start!r}")
    return step({0.0: 0.0, start: check_rate(rate)})


_SCHEDULES: dict[str, Callable[..., Schedule]] = {
    schedule.__name__: schedule for schedule in (constant, linear, cosine, step, curriculum, early, late)
}
