"""The space of a sweep: all trials that it may run."""

import dataclasses
import functools
import itertools
import json
import math
import random
import typing
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import keras

from dropzoo import layers
from dropzoo.common.checks import check_count, check_rate, unknown
from dropzoo.models.sites import CannotPlace
from dropzoo.runs.config import RunConfig
from dropzoo.runs.presets import in_words, recipe_of
from dropzoo.runs.settings import FILE_NAMES, Settings, renamed, with_settings
from dropzoo.sweep.plans import TrialPlan, grid_of_plans, rate_schedule_at, spec_at, text_of, whole_plan
from dropzoo.sweep.trials import Axes, Trial
from dropzoo.training import get_schedule
from dropzoo.training.data.augment import make_augment
from dropzoo.training.data.dataset import DataInfo

_T = TypeVar("_T")
STRATEGIES = ("grid", "random", "halving")
# Fields that have another name in files; callers may use it too.
_FILE_NAMES = {"specs": "variants", "rate_schedules": "schedules", **FILE_NAMES}


def _takes_other_names(cls: type[_T]) -> type[_T]:
    """Lets a dataclass be made, and replaced, with the names that its fields have in files."""
    init = cls.__init__

    @functools.wraps(init)
    def renaming(self: _T, **given: Any) -> None:
        others = {name: given.pop(other) for name, other in _FILE_NAMES.items() if other in given}
        init(self, **given | others)

    cls.__init__ = renaming  # type: ignore[assignment, method-assign]
    return cls


@with_settings
@_takes_other_names
@dataclasses.dataclass(frozen=True, kw_only=True)
class Space(Settings):
    """The training runs of a sweep: combinations of models, dropout, other regularisers, recipes and seeds.

    Each entry of `sites` is combined with all specs, rates and rate schedules; the entries of `plans` are complete
    plans. The baseline without dropout is always part of the space, once for each combination of the other
    regularisers. The data and the training settings are the same in all runs, except for what a recipe or
    `"halving"` changes. `learning_rate_schedule` may also be given as `schedule`.

    Args:
        models: List of names of models, see `list_models`; a single name is also accepted.
        sites: List of str. Each is one or more patterns of site names, separated by commas: `"module?,dense*"`.
        specs: List of site layers, with or without options, such as `"drop_block2d:block_size=5"`. Also accepted
            as `variants`.
        rates: List of floats in [0, 1), the dropout rates.
        rate_schedules: List of str: `"constant"`; `"linear"` or `"cosine"`, from 0 to the rate; `"curriculum"`,
            `"early"`, `"late"`; or a rate schedule in which `rate` stands for each of `rates`:
            `"late:rate,start=0.5"`. Also accepted as `schedules`.
        plans: List of whole plans as `build_model` takes them: a name, a rate, or a dict from patterns to specs.
        normalizations: List of `"batch"`, `"group"`, `"layer"` or None, values for the models' option
            `normalization`; if empty, their defaults.
        weight_decays: List of floats of at least 0, values for the models' option `weight_decay`; if empty, their
            defaults.
        augments: List of augmentations: False for none, True for the usual ones, or text such as
            `"flip_horizontal,rotation=15"`, as for `load_data`.
        label_smoothings: List of floats in [0, 1), the values of `label_smoothing` in the loss.
        recipes: List of training settings to compare: `"small"` or `"medium"` (the recipes of `dropzoo train`),
            text such as `"optimizer=adamw:weight_decay=0.05; mixup=0.2"`, or dicts. The settings that a
            recipe names replace those of the space. All runs keep the `epochs` of the space: those of `"small"`
            and `"medium"` are ignored, and `epochs` in another recipe is an error. `"own"` replaces nothing; it is
            the default.
        seeds: List of ints in [0, 2**32); each combination is trained once with each seed.
        options: Dict of further arguments of `build_model`, which all models get.
        leave_out: List of combinations that are not tried, as tuples of entries `(model, sites, spec)`.
        folds: Int, 2 or more: the number of parts of a cross-validation over the training images; or 0 for a
            single split.
        strategy: `"grid"`, which tries all plans; `"random"`, which draws `samples` of them for each model; or
            `"halving"`, which trains all plans for a few epochs, then the best 1 / `eta` of them for `eta` times
            as many, and so on up to `epochs`.
        samples: Int above 0, the number of plans that `"random"` draws for each model.
        draw_seed: Int, the seed of that draw.
        eta: Int, 2 or more, for `"halving"`: the factor between the epochs of two rounds. The best 1 / `eta` of a
            round continues.
        min_epochs: Int above 0, the minimum number of epochs in the first round of `"halving"`.
        epochs: Int above 0, the epochs of a whole training run.
        ...: See `Settings`.

    Raises:
        ValueError: If the space is empty, or its arguments do not fit together.

    Example:
    >>> from dropzoo.sweep import Space
    >>> space = Space(models=["simple_cnn"], data="digits", sites=["dense*"], rates=[0.2, 0.5], seeds=range(3))
    >>> len(space.trials())  # two rates and the baseline, three seeds each
    9
    """

    models: tuple[str, ...]
    sites: tuple[str, ...] = ()
    specs: tuple[str, ...] = ("dropout",)
    rates: tuple[float, ...] = (0.1, 0.3, 0.5)
    rate_schedules: tuple[str, ...] = ("constant",)
    plans: tuple[Any, ...] = ()
    normalizations: tuple[str | None, ...] = ()
    weight_decays: tuple[float, ...] = ()
    augments: tuple[bool | str, ...] = (False,)
    label_smoothings: tuple[float, ...] = (0.0,)
    recipes: tuple[Any, ...] = ()
    epochs: int = 30  # more than Settings has: in short training runs, dropout seems to hurt
    seeds: tuple[int, ...] = (0, 1, 2)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    leave_out: tuple[Any, ...] = ()
    folds: int = 0
    strategy: str = "grid"
    samples: int = 20
    draw_seed: int = 0
    eta: int = 3
    min_epochs: int = 1

    def __new__(cls, **given: Any) -> "Space":
        # The error of a dataclass would not suggest the closest name.
        names = [field.name for field in dataclasses.fields(cls)] + list(_FILE_NAMES.values())
        for name in given:
            if name not in names:
                raise unknown("argument of Space", name, names)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.models, str):
            object.__setattr__(self, "models", (self.models,))
        self._make_tuples()
        self._check_there_is_something_to_try()
        self._check_strategy()
        self._check_splits()
        self._check_axes()

    def _make_tuples(self) -> None:
        """Turns the lists and ranges that people and JSON write into tuples, each value once."""
        if not isinstance(self.options, dict):
            raise ValueError(f"`options` must be a dict. Received: options={self.options!r}")
        for field in dataclasses.fields(self):
            if typing.get_origin(field.type) is not tuple:
                continue
            value = getattr(self, field.name)
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise ValueError(f"`{field.name}` must be a list. Received: {field.name}={value!r}")
            unique = {json.dumps(_plain(each)): _plain(each) for each in value}
            object.__setattr__(self, field.name, tuple(unique.values()))

    def _check_there_is_something_to_try(self) -> None:
        for name in ("models", "augments", "label_smoothings", "seeds", "rate_schedules"):
            if not getattr(self, name):
                raise ValueError(f"The space is empty: `{name}` must have at least one entry. Received: {name}=()")
        if not self.plans and not self.sites:
            raise ValueError("The space is empty: it needs `sites` or `plans` (--sites, --plan)")
        if self.sites and not (self.specs and self.rates):
            raise ValueError("The space is empty: with `sites`, pass `specs` and `rates` too")

    def _check_strategy(self) -> None:
        if self.strategy not in STRATEGIES:
            raise unknown("strategy", self.strategy, STRATEGIES)
        for name in ("samples", "min_epochs", "eta"):
            check_count(getattr(self, name), name)
        if self.eta < 2:
            raise ValueError(f"`eta` must be an int of 2 or more. Received: eta={self.eta!r}")

    def _check_splits(self) -> None:
        if self.folds < 0 or self.folds == 1:
            raise ValueError(f"`folds` must be 0, or 2 or more. Received: folds={self.folds}")
        if self.validation_split == 0 and not self.folds:
            raise ValueError("Trials are compared on validation images: `validation_split` must not be 0")

    def _check_axes(self) -> None:
        object.__setattr__(self, "rates", tuple(map(check_rate, self.rates)))
        for augment in self.augments:
            make_augment(augment)
        for shape in self.rate_schedules:
            get_schedule(rate_schedule_at(shape, 0.5) or 0.5)
        for spec in self.specs:
            layers.get(spec_at(spec, 0.1))
        for model, recipe in itertools.product(self.models, self.recipes):
            settings = self._recipe(recipe, model)
            RunConfig(model=model, **{**self.settings(), **settings})  # its checks
            for name, usual in (("augment", (False,)), ("label_smoothing", (0.0,))):
                if name in settings and getattr(self, f"{name}s") != usual:
                    raise ValueError(
                        f"The recipe {in_words(recipe)!r} has its own `{name}`, so the sweep cannot vary it. "
                        f"Leave out `{name}s` (--{name.replace('_', '-')})"
                    )

    @property
    def variants(self) -> tuple[str, ...]:
        """Another name for `specs`."""
        return self.specs

    @property
    def schedules(self) -> tuple[str, ...]:
        """Another name for `rate_schedules`."""
        return self.rate_schedules

    @property
    def schedule(self) -> str:
        """Another name for `learning_rate_schedule`."""
        return self.learning_rate_schedule

    def to_json(self) -> dict[str, Any]:
        """Returns the space as a dict for JSON files; `Space(**space.to_json())` is the same space."""
        return renamed(dataclasses.asdict(self), _FILE_NAMES)

    def rungs(self) -> list[int]:
        """Returns the epochs of each round; all strategies but halving have one round."""
        found = [self.epochs]
        while self.strategy == "halving" and math.ceil(found[0] / self.eta) >= self.min_epochs and found[0] > 1:
            found.insert(0, math.ceil(found[0] / self.eta))
        return found

    def trials(self, epochs: int | None = None) -> list[Trial]:
        """Returns the trials, round by round; in a round, those that share a graph are adjacent.

        Args:
            epochs: Int, the number of epochs of the round to return; None for all rounds.
        """
        rounds = self.rungs() if epochs is None else [epochs]
        found: dict[str, Trial] = {}
        for each in rounds:
            for trial in self._round(each):
                found.setdefault(trial.key, trial)  # two ways to describe the same training run are one trial
        return list(found.values())

    def check(self, info: DataInfo) -> tuple["Space", list[str]]:
        """Builds each graph once, and leaves out the combinations that are impossible for a model.

        Args:
            info: The facts of the data set.

        Returns:
            The space with these combinations in `leave_out`, and a line of text about each of them.

        Raises:
            ValueError: For unknown models, options, sites and plans, for sites or a spec that fit nowhere, and for
                recipes that a model cannot be trained with.
        """
        built: set[Any] = set()
        refused: dict[tuple[str, str, str], str] = {}
        for trial in {t.candidate: t for t in self.trials(self.epochs)}.values():
            where = (trial.axes.model, trial.axes.sites, trial.axes.spec)
            keys = {where, json.dumps([trial.config.model, trial.config.options, trial.axes.recipe])}
            if where in refused or keys <= built:
                continue
            try:
                trial.config.trainer(trial.config.build(info), info)  # which checks the recipe
                built |= keys
            except CannotPlace as error:
                if trial.axes.sites not in self.sites:  # nothing may be left out of a whole plan
                    raise
                refused[where] = str(error)
        for place, names in ((1, self.sites), (2, self.specs if self.sites else ())):
            for name in names:
                if not any(isinstance(key, tuple) and key[place] == name for key in built):
                    raise ValueError(next(why for where, why in refused.items() if where[place] == name))
        words = [f"{s} with {v} in {m}. {why.split(': ')[0]}" for (m, s, v), why in refused.items()]
        return dataclasses.replace(self, leave_out=tuple(refused)), words

    def _recipe(self, recipe: Any, model: str) -> dict[str, Any]:
        """Returns the settings of a recipe; all trials have the same number of epochs."""
        if recipe == "own":
            return {}
        settings = recipe_of(recipe, model)
        if "epochs" in settings and not (isinstance(recipe, str) and "=" not in recipe):
            raise ValueError(
                "A recipe cannot set `epochs` in a sweep, because all trials have the same number of epochs "
                f"(--epochs). Received: the recipe {recipe!r}"
            )
        return {name: value for name, value in settings.items() if name != "epochs"}

    def _round(self, epochs: int) -> Iterator[Trial]:
        """Yields the trials of one round; those that differ only in seeds, folds and rates are adjacent."""
        settings = self.settings() | {"epochs": epochs}
        decays: tuple[float | str, ...] = self.weight_decays or ("own",)
        folds: list[tuple[int, int] | None] = [(k, self.folds) for k in range(self.folds)] or [None]
        for model, norm, decay, smoothing, recipe in itertools.product(
            self.models, self.normalizations or ("own",), decays, self.label_smoothings, self.recipes or ("own",)
        ):
            replaced = self._recipe(recipe, model)
            options = dict(self.options)
            options |= {} if norm == "own" else {"normalization": norm}
            options |= {} if decay == "own" else {"weight_decay": decay}
            shared = Axes(
                model=model,
                normalization=text_of(norm),
                weight_decay=decay,
                label_smoothing=smoothing,
                recipe=in_words(recipe),
            )
            graphs = itertools.groupby(self._plans(model), lambda p: (p.axes.get("sites"), p.axes.get("spec")))
            for _, plans in graphs:
                for seed, fold, augment, plan in itertools.product(self.seeds, folds, self.augments, list(plans)):
                    merged = {**settings, "augment": augment, "label_smoothing": smoothing, **replaced}
                    if epochs != self.epochs:  # the warm-up is the same fraction of a shorter run
                        merged["warmup"] *= epochs / self.epochs
                    config = RunConfig(
                        model=model,
                        dropout=plan.dropout,
                        options=options,
                        rate_schedule=plan.rate_schedule,
                        seed=seed,
                        fold=fold,
                        **merged,
                    )
                    axes = dataclasses.replace(shared, augment=text_of(augment), **plan.axes)
                    yield Trial(axes=axes, config=config)

    def _plans(self, model: str) -> list[TrialPlan]:
        """Returns the plans for a model: the baseline, then the grid or a draw from it."""
        grid = grid_of_plans(self.sites, self.specs, self.rates, self.rate_schedules)
        # Lists, as `_plain` makes them of tuples.
        plans = [p for p in grid if [model, p.axes["sites"], p.axes["spec"]] not in self.leave_out]
        plans += [whole_plan(plan) for plan in self.plans if plan not in (None, "none", {})]  # not the baseline
        if self.strategy == "random" and self.samples < len(plans):
            chosen = random.Random(f"{self.draw_seed} {model}").sample(range(len(plans)), self.samples)
            plans = [plans[i] for i in sorted(chosen)]
        return [TrialPlan(), *plans]


def _plain(value: Any) -> Any:
    """Returns a value as JSON holds it; a layer becomes the text that makes it again."""
    if isinstance(value, keras.Layer):
        return layers.describe(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(
        f"A space is saved as JSON, so it can only contain numbers, text, lists and dicts. Received: {value!r}"
    )
