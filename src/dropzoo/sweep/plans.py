"""The dropout of the trials of a sweep: which layer at which sites, at which rate, and how the rate changes."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

#: Short names of rate schedules. In these, as in any other rate schedule, the word `rate` means the rate.
_SHAPES = {
    **{word: f"{word}:0.0,rate" for word in ("linear", "cosine")},
    **{word: f"{word}:rate" for word in ("curriculum", "early", "late")},
}


@dataclasses.dataclass(frozen=True)
class TrialPlan:
    """The dropout of a trial: its place on the axes of the space, and the arguments of `RunConfig`."""

    axes: dict[str, Any] = dataclasses.field(default_factory=dict)
    dropout: Any = None
    rate_schedule: dict[str, Any] | None = None


def grid_of_plans(
    sites: Iterable[str], specs: Iterable[str], rates: Iterable[float], rate_schedules: Iterable[str]
) -> Iterator[TrialPlan]:
    """Yields a plan for each combination of sites, spec, rate and rate schedule."""
    for place, spec, rate, shape in itertools.product(sites, specs, rates, rate_schedules):
        patterns, schedule = [p.strip() for p in place.split(",")], rate_schedule_at(shape, rate)
        axes = {"sites": place, "spec": spec, "rate": rate, "rate_schedule": shape}
        over = dict.fromkeys(patterns, schedule) if schedule else None
        yield TrialPlan(axes, dict.fromkeys(patterns, spec_at(spec, rate)), over)


def whole_plan(plan: Any) -> TrialPlan:
    """Returns a plan that is taken as it is; its rates have no place on the axis of rates."""
    return TrialPlan({"sites": text_of(plan), "spec": "plan", "rate": None}, plan)


def spec_at(spec: str, rate: float) -> float | str:
    """Returns a spec with its rate, as a plan holds it."""
    name, _, options = spec.partition(":")
    if name == "dropout" and not options:
        return rate
    return f"{name}:{rate},{options}".rstrip(",")


def rate_schedule_at(shape: str, rate: float) -> str | None:
    """Returns a rate schedule with its rate, as `RateSchedule` takes it; None for a constant rate."""
    if shape == "constant":
        return None
    text = re.sub(r"\brate\b", str(rate), _SHAPES.get(shape, shape))
    if text == shape:
        raise ValueError(
            f"A rate schedule (--rate-schedule) must be one of constant, {', '.join(_SHAPES)}, or have the word "
            f"`rate` in place of the rate, as in 'late:rate,start=0.5'. Received: {shape!r}"
        )
    return text


def text_of(value: Any) -> str:
    """Returns a value in words."""
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items()) or "none"
    words = {False: "none", None: "none", True: "yes"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
