"""A trial, one training run of a sweep, and its record in the sweep's file."""

import dataclasses
import functools
import hashlib
import json
import math
from typing import Any

from dropzoo.runs.config import RunConfig
from dropzoo.runs.figures import Figures
from dropzoo.runs.settings import renamed

# Axes that have another name in files.
_FILE_NAMES = {"spec": "variant", "rate_schedule": "schedule"}
# Fields that are not in a key, since moving the files or holding them elsewhere does not make another trial.
_PLACES = ("data_dir", "manual_dir", "cache")
# Fields that each key holds. Others are in a key only where they differ from their default, so that a sweep
# continues with a later version, which may have more fields.
_ALWAYS = (
    *("data", "epochs", "batch_size", "learning_rate", "schedule", "image_size", "num_channels"),
    *("validation_split", "limit", "model", "dropout", "options", "rate_schedule", "augment", "label_smoothing"),
    *("seed", "fold"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axes:
    """A trial's position on each axis of a space, in the order in which the axes are shown.

    Args:
        model: Str, the name of the model.
        sites: Str, patterns of sites separated by commas, a plan in words, or `"none"`.
        spec: Str, the layer at the sites, `"plan"` for a whole plan, or `"none"`.
        rate: Float in [0, 1); None for a whole plan.
        rate_schedule: Str, an entry of `Space.rate_schedules`.
        normalization: Str, the model's option in words; `"own"` for the model's default.
        augment: Str, the augmentation in words.
        weight_decay: Float of at least 0, the model's option; `"own"` for the model's default.
        label_smoothing: Float in [0, 1), that of the loss.
        recipe: Str, settings of the training in words; `"own"` for those of the space.
    """

    model: str
    sites: str = "none"
    spec: str = "none"
    rate: float | None = 0.0
    rate_schedule: str = "constant"
    normalization: str = "own"
    augment: str = "none"
    weight_decay: float | str = "own"
    label_smoothing: float = 0.0
    recipe: str = "own"

    @property
    def is_baseline(self) -> bool:
        """Whether nothing is dropped."""
        return self.sites == "none"

    @property
    def baseline(self) -> "Axes":
        """The axes of the same trial without dropout."""
        return dataclasses.replace(self, sites="none", spec="none", rate=0.0, rate_schedule="constant")

    def to_json(self) -> dict[str, Any]:
        """Returns the axes as a dict for JSON, with their names in files."""
        return renamed(dataclasses.asdict(self), _FILE_NAMES)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "Axes":
        """Returns the axes from the dict that `to_json` returned."""
        return cls(**renamed(saved, {old: new for new, old in _FILE_NAMES.items()}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run: its config, and its position on each axis of the space.

    Args:
        axes: The trial's position on each axis of the space: the model, the sites, the rate and so on.
        config: The config of the run; with it, `dropzoo train` trains the same model.

    Example:
    >>> from dropzoo.sweep import Space
    >>> trials = Space(models=["simple_cnn"], data="digits", sites=["dense*"], rates=[0.2], seeds=[0]).trials()
    >>> [(trial.axes.rate, trial.is_baseline) for trial in trials]
    [(0.0, True), (0.2, False)]
    """

    axes: Axes
    config: RunConfig

    @functools.cached_property
    def key(self) -> str:
        """Text that identifies a training run, the same in every sweep and process."""
        return _digest(self.config, _PLACES)

    @functools.cached_property
    def candidate(self) -> str:
        """Text that identifies the trial apart from its seed and fold: it is the same for all seeds and folds."""
        return _digest(self.config, (*_PLACES, "seed", "fold"))

    @property
    def is_baseline(self) -> bool:
        """Whether nothing is dropped."""
        return self.axes.is_baseline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The figures of one training run; all but `seconds` are empty if it failed.

    Args:
        seconds: Float, the time of the whole trial.
        curves: Dict of the metrics of each epoch, by name.
        validation: Figures on the validation images.
        train: Figures on the training images, without dropout and augmentation.
        test: Figures on the test images; empty if there are none.
        reliability: Dict of lists with a number for each bin of confidence on the validation images: `count`, and
            the sums `correct` and `confidence`.
        seconds_per_epoch: Float, the median over the epochs.
        parameters: Int, the number of weights.
        mc_ms: Float, the milliseconds that `mc_samples` Monte-Carlo samples of one image take; None if not
            measured.
        mc_samples: Int, the number of these samples; 0 if not recorded.
    """

    seconds: float
    curves: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    validation: Figures = dataclasses.field(default_factory=Figures)
    train: Figures = dataclasses.field(default_factory=Figures)
    test: Figures = dataclasses.field(default_factory=Figures)
    reliability: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    seconds_per_epoch: float = 0.0
    parameters: int = 0
    mc_ms: float | None = None
    mc_samples: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A trial that has ended: one line of a sweep's file.

    Args:
        trial: The trial.
        versions: Dict of the versions of the packages that the figures depend on.
        outcome: The figures.
        error: Str, the error that the trial failed with; empty if it succeeded.
        stopped: Bool, whether the scheduler of a sweep by halving stopped the plan after this trial.
    """

    trial: Trial
    versions: dict[str, str]
    outcome: Outcome
    error: str = ""
    stopped: bool = False

    @property
    def first_line(self) -> str:
        """The first line of the error, cut to 200 characters."""
        return self.error.partition("\n")[0][:200]

    def to_json(self) -> dict[str, Any]:
        """Returns the record as the dict that is one line of the file."""
        trial = self.trial
        head = {"key": trial.key, "axes": trial.axes.to_json(), "config": trial.config.to_json()}
        figures = {name: value for name, value in vars(self.outcome).items() if value != {}}
        outcome = {"seconds": self.outcome.seconds, "error": self.error} if self.error else figures
        stopped = {"stopped": True} if self.stopped else {}
        return as_json({**head, "versions": self.versions, **outcome, **stopped})

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "Record":
        """Returns the record from the dict that `to_json` returned.

        Raises:
            TypeError: If the record has fields or axes that do not exist.
        """
        names = {field.name for field in dataclasses.fields(Outcome)}
        return cls(
            trial=Trial(axes=Axes.from_json(saved["axes"]), config=RunConfig.from_json(saved["config"])),
            versions=saved["versions"],
            outcome=Outcome(**{name: value for name, value in saved.items() if name in names}),
            error=saved.get("error", ""),
            stopped=saved.get("stopped", False),
        )


def as_json(value: Any) -> Any:
    """Returns a value with Python's numbers for NumPy's, and with None for NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(v) for v in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _digest(config: RunConfig, without: tuple[str, ...]) -> str:
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    kept = {
        name: value
        for name, value in config.to_json().items()
        if name not in without and (name in _ALWAYS or value != defaults[name])
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]
