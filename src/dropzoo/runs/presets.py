"""Recipes: training settings that go together, under a name or written out."""

import ast
import inspect
from collections.abc import Mapping
from typing import Any

from dropzoo import models
from dropzoo.common.checks import unknown

#: The settings that a recipe may have. Those of the data and of the model belong to the run.
FIELDS = (
    *(
        "epochs",
        "batch_size",
        "learning_rate",
        "learning_rate_schedule",
        "warmup",
        "optimizer",
        "clip_norm",
        "ema",
    ),
    *("precision", "mixup", "cutmix", "deep_supervision", "balance", "label_smoothing", "augment"),
)
#: The recipes by name and task; `benchmarks/recipes.py` compares them with the defaults and with their parts.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # Up to some thousand images: long, with changes of the images and an average of the last weights.
    "small": {
        "classification": {
            "epochs": 60,
            "learning_rate": 2e-3,
            "optimizer": "adamw:weight_decay=0.05",
            "warmup": 2.0,
            "ema": 0.99,
            "augment": True,
        },
        "segmentation": {
            "epochs": 60,
            "batch_size": 8,
            "learning_rate": 2e-3,
            "warmup": 2.0,
            "clip_norm": 1.0,
            "augment": True,
        },
    },
    # Tens of thousands of images: fewer epochs of larger batches, and a larger learning rate.
    "medium": {
        "classification": {
            "epochs": 30,
            "batch_size": 128,
            "learning_rate": 4e-3,
            "learning_rate_schedule": "one_cycle",
            "optimizer": "adamw:weight_decay=0.05",
            "clip_norm": 1.0,
            "augment": True,
        },
        "segmentation": {
            "epochs": 30,
            "batch_size": 16,
            "learning_rate": 2e-3,
            "learning_rate_schedule": "one_cycle",
            "optimizer": "adamw:weight_decay=0.01",
            "clip_norm": 1.0,
            "augment": True,
        },
    },
}

_WORDS = {"yes": True, "true": True, "no": False, "false": False, "none": False, None: False}


def task_of(model: str) -> str:
    """Returns the task that a model of `list_models` is for: `"classification"` or `"segmentation"`."""
    # The models of masks take images of any size.
    default = inspect.signature(models.get_builder(model)).parameters["input_shape"].default
    return "segmentation" if default[0] is None else "classification"


def recipe_of(spec: str | Mapping[str, Any], model: str) -> dict[str, Any]:
    """Returns the settings of a recipe.

    Args:
        spec: A name of `PRESETS`, text such as `"optimizer=adamw:weight_decay=0.05; mixup=0.2"`, or a dict.
        model: The name of the model, which decides the task.

    Raises:
        ValueError: If there is no such recipe or setting.
    """
    if isinstance(spec, Mapping):
        settings = dict(spec)
    elif "=" not in spec:
        if spec not in PRESETS:
            raise unknown("recipe", spec, PRESETS)
        return dict(PRESETS[spec][task_of(model)])
    else:
        settings = dict(map(_parsed, filter(str.strip, spec.split(";"))))
    settings = {_named(name): value for name, value in settings.items()}
    for name in settings:
        if name not in FIELDS:
            raise unknown("setting of a recipe", name, FIELDS)
    return {name: _meant(name, value) for name, value in settings.items()}


def in_words(spec: str | Mapping[str, Any]) -> str:
    """Returns a recipe as text, the same for the same settings."""
    if isinstance(spec, str):
        return "; ".join(part.strip() for part in spec.split(";") if part.strip())
    return "; ".join(f"{name}={value}" for name, value in spec.items())


def _parsed(part: str) -> tuple[str, Any]:
    name, equals, text = part.strip().partition("=")
    if not equals:
        raise ValueError(
            f'A recipe must be a name, or settings such as "name=value; name=value". Received: {part!r}'
        )
    try:
        return name.strip(), ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return name.strip(), text.strip()


def _meant(name: str, value: Any) -> Any:
    """Returns a value whose words, as `yes` and `none`, are read like those of the options."""
    word = value.lower() if isinstance(value, str) else value
    if name in ("augment", "deep_supervision"):
        return _WORDS.get(word, value) if word is None or isinstance(word, str) else value
    return None if name in ("clip_norm", "ema") and word == "none" else value


def _named(name: str) -> str:
    name = name.replace("-", "_")
    return "learning_rate_schedule" if name == "schedule" else name
