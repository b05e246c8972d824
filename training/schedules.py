"""The usual rate schedules, which change dropout rates while a model trains.

A rate schedule is any function from the progress of the run, a float from 0 to 1, to a rate in [0, 1).
"""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import TypeAlias

from dropzoo.common.checks import check_choice, check_positive, check_rate, parse_spec, unknown

#: A function from progress, a float from 0 to 1, to a rate in [0, 1).
Schedule: TypeAlias = Callable[[float], float]


def get_schedule(spec: Schedule | float | str) -> Schedule:
    """Returns a rate schedule from a short description.

    Args:
        spec: A function, which is returned as it is; a number, which means `constant`; or text such as
            `"name:value,option=value"`, where `name` is a rate schedule of dropzoo, such as `late`.

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
            'A rate schedule is a number, text such as "linear:0.0,0.3", or a function from progress to rate. '
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

    Example:
    >>> from dropzoo import training
    >>> training.constant(0.2)(0.9)
    0.2
    """
    rate = check_rate(rate)
    return lambda progress: rate


def linear(start: float, end: float) -> Schedule:
    """Returns a rate schedule that is a straight line: `start * (1 - t) + end * t` at progress `t`.

    The authors of DropBlock used `start=0`: in their experiments, a rising rate was better than a fixed rate.

    Args:
        start: Float in [0, 1). The rate at progress 0.
        end: Float in [0, 1). The rate at progress 1.

    Raises:
        ValueError: If a rate is not in [0, 1).

    Example:
    >>> from dropzoo import training
    >>> training.linear(0.0, 0.4)(0.5)
    0.2

    Reference:
        Ghiasi et al., "DropBlock: A regularization method for convolutional networks", 2018, arXiv:1810.12890.
    """
    start, end = check_rate(start, "start"), check_rate(end, "end")
    return lambda progress: start * (1.0 - progress) + end * progress


def cosine(start: float, end: float) -> Schedule:
    """Returns a rate schedule along half a cosine, which is slow at both ends.

    At progress `t`, the rate is that of `linear` at progress `(1 - cos(pi t)) / 2`.

    Args:
        start: Float in [0, 1). The rate at progress 0.
        end: Float in [0, 1). The rate at progress 1.

    Raises:
        ValueError: If a rate is not in [0, 1).

    Example:
    >>> from dropzoo import training
    >>> round(training.cosine(0.0, 0.4)(0.25), 3)
    0.059

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
        rates: Dict from progress to rates. A key is a float in [0, 1): the progress at which its rate begins. One
            key must be 0.

    Raises:
        ValueError: If `rates` is not such a dict.

    Example:
    >>> from dropzoo import training
    >>> training.step({0.0: 0.1, 0.5: 0.3})(0.6)
    0.3
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
    """Returns the rate schedule of curriculum dropout, from 0 up to `rate`.

    At progress `t`, the rate is `rate * (1 - exp(-gamma * t))`. The task gets harder as the network learns: at
    first the network sees the whole signal, and later less of it. The paper defines the schedule by the
    probability of keeping a unit, `theta(t) = (1 - theta_bar) * exp(-gamma * t) + theta_bar`, where `theta_bar` is
    `1 - rate`.

    Differs from the paper: `t` is the progress of the run and not the number of steps, so the paper's heuristic
    `gamma = 10 / steps` becomes `gamma=10`.

    Args:
        rate: Float in [0, 1). The limit; at the end of the run the rate is `rate * (1 - exp(-gamma))`.
        gamma: Float above 0. The speed.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> from dropzoo import training
    >>> round(training.curriculum(0.5)(0.1), 3)
    0.316

    Reference:
        Morerio et al., "Curriculum Dropout", 2017, arXiv:1703.06229.
    """
    rate, gamma = check_rate(rate), check_positive(gamma, "gamma")
    return lambda progress: rate * -math.expm1(-gamma * progress)


def early(rate: float, end: float = 1 / 6, decay: str = "linear") -> Schedule:
    """Returns the rate schedule of early dropout, which is on at the beginning only; for networks that underfit.

    At the beginning of training, dropout makes the gradients of different batches agree more; later it would
    reduce the capacity of the network. In both settings of claim 5 in docs/evidence.md, early dropout changes the
    accuracy too little to matter.

    Args:
        rate: Float in [0, 1). The rate at the beginning.
        end: Float in (0, 1]. The progress at which the rate becomes 0; in the paper, this is after 50 of 300
            epochs.
        decay: `"linear"` from `rate` down to 0 at `end`, as in the paper's main results, or `"constant"`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> from dropzoo import training
    >>> schedule = training.early(0.5, end=0.5)
    >>> schedule(0.25), schedule(0.75)
    (0.25, 0.0)

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

    In both settings of claim 5 in docs/evidence.md, it was not shown that late dropout is better than dropout in
    all epochs.

    Args:
        rate: Float in [0, 1). The rate from `start` on.
        start: Float in [0, 1). The progress at which dropout begins; in the paper, this is after 50 of 300 epochs.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> from dropzoo import training
    >>> schedule = training.late(0.5, start=0.2)
    >>> schedule(0.1), schedule(0.2)
    (0.0, 0.5)

    Reference:
        Liu et al., "Dropout Reduces Underfitting", 2023, arXiv:2303.01500.
    """
    if not isinstance(start, numbers.Real) or isinstance(start, bool) or not 0 <= start < 1:
        raise ValueError(f"`start` must be a number in [0, 1). Received: start={start!r}")
    return step({0.0: 0.0, start: check_rate(rate)})


_SCHEDULES: dict[str, Callable[..., Schedule]] = {
    schedule.__name__: schedule for schedule in (constant, linear, cosine, step, curriculum, early, late)
}
