"""What a sweep tries: the space of its trials, from the command line or a Python file."""

import dataclasses
import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Iterable
from typing import Any

import keras

from dropzoo import layers
from dropzoo.common.checks import check_rate, unknown
from dropzoo.runs.run import RunConfig
from dropzoo.training import get_schedule
from dropzoo.training.data.augment import make_augment
from dropzoo.training.data.load import DataInfo

STRATEGIES = ("grid", "random", "halving")
#: Rates over a run, by a word: what stands for them once the rate is known. Any other text is taken as it is.
_SHAPES = {
    **{word: f"{word}:0.0,rate" for word in ("linear", "cosine")},
    **{word: f"{word}:rate" for word in ("curriculum", "early", "late")},
}
# Where files lie says nothing of what a trial is.
_PLACES = ("data_dir", "manual_dir")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One training: a run's config, and its place in the space.

    Attributes:
        axes: what it tries, by the names of the space's axes; the dropout-free baseline has the sites "none".
        config: of the run; `dropzoo train` does the same training.
    """

    axes: dict[str, Any]
    config: RunConfig

    @property
    def key(self) -> str:
        """The same for the same training, in any sweep and process."""
        return _digest(dataclasses.asdict(self.config), _PLACES)

    @property
    def candidate(self) -> str:
        """The same for all seeds and folds."""
        return _digest(dataclasses.asdict(self.config), (*_PLACES, "seed", "fold"))

    @property
    def is_baseline(self) -> bool:
        return self.axes["sites"] == "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
    """Models x places x variants x rates x schedules x other regularisers x seeds, and how each is trained.

    Each of `sites` is combined with all variants, rates and schedules; each of `plans` stands as it is. The
    baseline without dropout is always part of it, once for each combination of the other regularisers.

    Args:
        models: names.
        data: as for `load_data`.
        sites: each is patterns of site names with commas between: `"module?,dense*"`.
        variants: layers that may stand at any site, with or without options: `"drop_block2d:block_size=5"`.
        rates: in [0, 1).
        schedules: `"constant"`; `"linear"`, `"cosine"`, from 0 to the rate; `"curriculum"`, `"early"`, `"late"`;
            or a schedule in which `rate` stands for the rate: `"late:rate,start=0.5"`.
        plans: whole plans as `build_model` takes them: a name, a rate, or a dict from patterns to specs in text.
        normalizations: of the models; none given, their own.
        weight_decays: of the models; none given, their own.
        augments: as for `load_data`.
        label_smoothings: in [0, 1).
        seeds: one training each.
        options: of every model.
        leave_out: combinations `(model, sites, variant)` that are not tried.
        folds: cross-validation over the training images in so many parts; 0 for one split.
        strategy: `"grid"`; `"random"`, `samples` draws from the grid; `"halving"`, the whole grid for few epochs,
            the best 1 / `eta` of it for `eta` times as many, and so on up to `epochs`.
        samples: how many plans `"random"` draws for each model.
        draw_seed: of that draw.
        eta: of `"halving"`.
        min_epochs: of the first round of `"halving"`.
        epochs: of a whole training; the others are as for `dropzoo train`.

    Raises:
        ValueError: for an empty or impossible space.
    """

    models: tuple[str, ...]
    data: str
    sites: tuple[str, ...] = ()
    variants: tuple[str, ...] = ("dropout",)
    rates: tuple[float, ...] = (0.1, 0.3, 0.5)
    schedules: tuple[str, ...] = ("constant",)
    plans: tuple[Any, ...] = ()
    normalizations: tuple[str | None, ...] = ()
    weight_decays: tuple[float, ...] = ()
    augments: tuple[Any, ...] = (False,)
    label_smoothings: tuple[float, ...] = (0.0,)
    seeds: tuple[int, ...] = (0, 1, 2)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    leave_out: tuple[Any, ...] = ()
    folds: int = 0
    strategy: str = "grid"
    samples: int = 20
    draw_seed: int = 0
    eta: int = 3
    min_epochs: int = 1
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    image_size: int | None = None
    num_channels: int | None = None
    validation_split: float = 0.1
    limit: int | None = None
    manual_dir: str | None = None
    data_dir: str | None = None

    def __new__(cls, **given: Any) -> "Space":
        names = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in names:
                raise unknown("argument of Space", name, names)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if not isinstance(self.options, dict):
            raise ValueError(f"`options` must be a dict. Received: options={self.options!r}")
        for field in dataclasses.fields(self):  # lists as JSON and people write them
            value = getattr(self, field.name)
            if field.name == "options":
                continue
            if field.name == "models" and isinstance(value, str):
                value = (value,)
            if str(field.type).startswith("tuple"):
                if isinstance(value, str) or not isinstance(value, Iterable):
                    raise ValueError(f"`{field.name}` must be a list. Received: {field.name}={value!r}")
                unique = {json.dumps(_plain(v)): _plain(v) for v in value}
                object.__setattr__(self, field.name, tuple(unique.values()))
        for name in ("models", "augments", "label_smoothings", "seeds", "schedules"):
            if not getattr(self, name):
                raise ValueError(f"The space is empty: `{name}` must hold at least one. Received: {name}=()")
        if not self.plans and not self.sites:
            raise ValueError("The space is empty: it needs `sites` or `plans` (--sites, --plan)")
        if self.sites and not (self.variants and self.rates):
            raise ValueError("The space is empty: `sites` need `variants` and `rates`")
        if self.strategy not in STRATEGIES:
            raise unknown("strategy", self.strategy, STRATEGIES)
        for name, low in (("samples", 1), ("eta", 2), ("min_epochs", 1), ("epochs", 1), ("batch_size", 1)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < low:
                raise ValueError(
                    f"`{name}` must be an int from {low} up. Received: {name}={getattr(self, name)!r}"
                )
        if self.folds < 0 or self.folds == 1:
            raise ValueError(f"`folds` must be 0 or from 2 up. Received: folds={self.folds}")
        if self.validation_split == 0 and not self.folds:
            raise ValueError("Trials are compared on validation images: `validation_split` must not be 0")
        object.__setattr__(self, "rates", tuple(map(check_rate, self.rates)))
        for augment in self.augments:
            make_augment(augment)
        for shape in self.schedules:
            get_schedule(_schedule(shape, 0.5) or 0.5)
        for variant in self.variants:
            layers.get(_spec(variant, 0.1))

    def rungs(self) -> list[int]:
        """The epochs of each round: one, but for halving."""
        found = [self.epochs]
        while self.strategy == "halving" and math.ceil(found[0] / self.eta) >= self.min_epochs and found[0] > 1:
            found.insert(0, math.ceil(found[0] / self.eta))
        return found

    def trials(self, epochs: int | None = None) -> list[Trial]:
        """The trials of `epochs` epochs, those of one graph together; of all rounds where it is None."""
        if epochs is None:
            return [trial for each in self.rungs() for trial in self.trials(each)]
        found: dict[str, Trial] = {}
        folds: list[Any] = [(k, self.folds) for k in range(self.folds)] or [None]
        for model, norm, decay, smoothing in itertools.product(
            self.models, self.normalizations or ("own",), self.weight_decays or ("own",), self.label_smoothings
        ):
            options = dict(self.options)
            options |= {} if norm == "own" else {"normalization": norm}
            options |= {} if decay == "own" else {"weight_decay": decay}
            others = {
                "model": model,
                "normalization": _text(norm),
                "weight_decay": decay,
                "label_smoothing": smoothing,
            }
            for _, group in itertools.groupby(self._drawn(model), key=lambda p: (p[0]["sites"], p[0]["variant"])):
                for seed, fold, augment, plan in itertools.product(self.seeds, folds, self.augments, list(group)):
                    axes, dropout, rate_schedule = plan
                    config = RunConfig(
                        model=model,
                        dropout=dropout,
                        options=options,
                        rate_schedule=rate_schedule,
                        augment=augment,
                        label_smoothing=smoothing,
                        seed=seed,
                        fold=fold,
                        epochs=epochs,
                        **{name: getattr(self, name) for name in _SETTINGS},
                    )
                    trial = Trial(axes={**others, "augment": _text(augment), **axes}, config=config)
                    found.setdefault(trial.key, trial)  # two ways to say the same are one trial
        return list(found.values())

    def check(self, info: DataInfo) -> tuple["Space", list[str]]:
        """The space without the combinations that no model takes, and what was left out, in words.

        Raises:
            ValueError: for unknown models, options, sites and plans, and for sites or a variant that fit nowhere.
        """
        built: set[Any] = set()
        refused: dict[tuple[str, str, str], str] = {}
        for trial in {t.candidate: t for t in self.trials(self.epochs)}.values():
            where = tuple(trial.axes[name] for name in ("model", "sites", "variant"))
            keys = {where, json.dumps([trial.config.model, trial.config.options])}
            if where in refused or keys <= built:
                continue
            try:
                trial.config.build(info)
                built |= keys
            except ValueError as error:
                if not str(error).startswith("Cannot put") or where[1] not in self.sites:
                    raise
                refused[where] = str(error)
        for place, names in ((1, self.sites), (2, self.variants if self.sites else ())):
            for name in names:
                if not any(isinstance(key, tuple) and key[place] == name for key in built):
                    raise ValueError(next(why for where, why in refused.items() if where[place] == name))
        words = [f"{s} with {v} in {m}. {why.split(': ')[0]}" for (m, s, v), why in refused.items()]
        return dataclasses.replace(self, leave_out=tuple(refused)), words

    def _drawn(self, model: str) -> list[tuple[dict[str, Any], Any, dict[str, Any] | None]]:
        """Of each plan its axes, `dropout` and `rate_schedule`; the baseline first."""
        none = {"sites": "none", "variant": "none", "rate": 0.0, "schedule": "constant"}
        plans: list[tuple[dict[str, Any], Any, dict[str, Any] | None]] = []
        for sites, variant, rate, shape in itertools.product(
            self.sites, self.variants, self.rates, self.schedules
        ):
            if [model, sites, variant] in self.leave_out:
                continue
            patterns, schedule = [p.strip() for p in sites.split(",")], _schedule(shape, rate)
            axes = {"sites": sites, "variant": variant, "rate": rate, "schedule": shape}
            over = dict.fromkeys(patterns, schedule) if schedule else None
            plans.append((axes, dict.fromkeys(patterns, _spec(variant, rate)), over))
        for plan in self.plans:
            if plan in (None, "none", {}):  # the baseline
                continue
            axes = {"sites": _text(plan), "variant": "plan", "rate": None, "schedule": "constant"}
            plans.append((axes, plan, None))
        if self.strategy == "random" and self.samples < len(plans):
            chosen = random.Random(f"{self.draw_seed} {model}").sample(range(len(plans)), self.samples)
            plans = [plans[i] for i in sorted(chosen)]
        return [(none, None, None), *plans]


_SETTINGS = (
    *("data", "batch_size", "learning_rate", "schedule", "image_size", "num_channels", "validation_split"),
    *("limit", "manual_dir", "data_dir"),
)


def _spec(variant: str, rate: float) -> Any:
    name, _, options = variant.partition(":")
    if name == "dropout" and not options:
        return rate
    return f"{name}:{rate},{options}".rstrip(",")


def _schedule(shape: str, rate: float) -> str | None:
    if shape == "constant":
        return None
    text = re.sub(r"\brate\b", str(rate), _SHAPES.get(shape, shape))
    if text == shape:
        raise ValueError(
            f"A schedule must be one of constant, {', '.join(_SHAPES)}, or hold the word `rate`, as in "
            f"'late:rate,start=0.5'. Received: {shape!r}"
        )
    return text


def _plain(value: Any) -> Any:
    """As JSON holds it; a layer as the text that makes it again."""
    if isinstance(value, keras.Layer):
        return layers.describe(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(f"A sweep is recorded as text: it takes numbers, text and dicts of them. Received: {value!r}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items()) or "none"
    words = {False: "none", None: "none", True: "yes"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _digest(config: dict[str, Any], without: Iterable[str]) -> str:
    kept = {name: value for name, value in config.items() if name not in without}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]
