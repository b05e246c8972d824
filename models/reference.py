"""Finds trained weights by the name of the data that they were trained on."""

import json
import os
from pathlib import Path
from typing import Any

import keras

from dropzoo.common.checks import unknown
from dropzoo.models.registry import get_builder

#: The folder of the reference models: at the root of a checkout, or inside an installed package.
FOLDER = Path(__file__).resolve().parents[1] / "saved_models"


def list_weights(name: str | None = None) -> list[str]:
    """Returns the names of the weights that `build_model` can load, sorted.

    Weights have the name of the data set that the model was trained on.

    Args:
        name: One of `list_models()`; None for the weights of all models. The list is empty for a model without
            reference weights.

    Raises:
        ValueError: For an unknown name; the error suggests the closest.

    Example:
    >>> from dropzoo import models
    >>> "fashion_mnist" in models.list_weights("simple_cnn")
    True
    """
    if name is not None:
        get_builder(name)  # raises for an unknown name
    return sorted(weights for model, weights in _references() if name in (None, model))


def is_name(weights: str | os.PathLike) -> bool:
    """Returns whether `weights` is meant as the name of a data set and not as a file."""
    return isinstance(weights, str) and not Path(weights).suffix


def options_of(name: str, weights: str, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that a model was trained with.

    Args:
        name: The name of the model.
        weights: The name of the weights.
        given: The options that a user asks for.

    Raises:
        ValueError: For unknown weights, and for an option whose value is not that of the trained model.
    """
    found = _references()
    if (name, weights) not in found:
        raise unknown(f"weights of {name}", weights, list_weights(name))
    trained = found[name, weights][1]
    for option, value in given.items():
        plain = json.loads(json.dumps(value, default=lambda v: v.tolist() if hasattr(v, "tolist") else repr(v)))
        if option not in trained or trained[option] != plain:
            had = f"{option}={trained[option]!r}" if option in trained else f"the default `{option}`"
            raise ValueError(
                f"The weights {weights!r} belong to a {name} with {had}. Received: {option}={value!r}. Leave "
                f"`{option}` out, or build the model without `weights`"
            )
    return {option: tuple(value) if isinstance(value, list) else value for option, value in trained.items()}


def load(model: keras.Model, name: str, weights: str | os.PathLike) -> None:
    """Loads weights, by name or from a file, into a model that was built for them."""
    found = _references().get((name, str(weights)))
    model.load_weights(Path(weights) if found is None else found[0])


def _references() -> dict[tuple[str, str], tuple[Path, dict[str, Any]]]:
    """Returns the file and the options of each reference model, by the names of the model and of its data."""
    found = {}
    for path in sorted(FOLDER.glob("*/reference.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        found[told["model"], told["weights"]] = path.with_name("model.keras"), told["options"]
    return found
