"""Models by name: `register_model`, `list_models`, `build_model`."""

import fnmatch
import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras

from dropzoo.common.checks import unknown

Builder = Callable[..., keras.Model]
_MODELS: dict[str, Builder] = {}


def register_model(builder: Builder) -> Builder:
    """Makes a builder known by its function's name."""
    name = builder.__name__
    if name in _MODELS:
        raise ValueError(f"A model named {name!r} is registered already: {_MODELS[name]}")
    _MODELS[name] = builder
    return builder


def register_variant(base: Builder, name: str, summary: str, **defaults: Any) -> Builder:
    """Registers `base` under another name, with other defaults of its keyword arguments."""

    @functools.wraps(base)
    def builder(*args: Any, **kwargs: Any) -> keras.Model:
        return base(*args, **{**defaults, "name": name, **kwargs})

    builder.__name__ = builder.__qualname__ = name
    builder.__doc__ = f"{summary}\n\n    Options and sites as of `{base.__name__}`; defaults: {defaults}.\n    "
    signature = inspect.signature(base)
    changed = defaults | {"name": name}
    builder.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(default=changed.get(p.name, p.default)) for p in signature.parameters.values()]
    )
    return register_model(builder)


def list_models(pattern: str = "*") -> list[str]:
    """The names of the registered models that match an fnmatch pattern, sorted.

    Example:
    >>> from dropzoo import models
    >>> models.list_models("*unet*")
    ['attention_unet', 'res_unet', 'unet', 'unet_plus_plus']
    """
    return sorted(fnmatch.filter(_MODELS, pattern))


def get_builder(name: str) -> Builder:
    """The function behind a model's name; its docstring and signature are the model's."""
    if name not in _MODELS:
        raise unknown("model", name, _MODELS)
    return _MODELS[name]


def build_model(name: str, *, dropout: Any = None, weights: Any = None, **options: Any) -> keras.Model:
    """Builds a model with dropout at named sites.

    Args:
        name: One of `list_models()`.
        dropout: What to drop where. `None`: nothing, the graph without any dropout layer. A dict from fnmatch
            patterns of site names to specs for `layers.get`, where later entries win and `None` leaves a site
            alone: `{"decoder*": "spatial_dropout2d:0.2", "bottleneck*": 0.5}`; rates that rise with depth are
            `{"*_branch": models.ramp(0.0, 0.2)}`. `"paper"`: what the model's own paper did; a float: the paper's
            layers at this rate. Another string: a plan of `list_plans()`.
        weights: None, for random ones; a file of weights (`.weights.h5`, `.keras`); or the name of the data that
            reference weights were trained on, see `list_weights()`: then the options default to theirs.
        options: The model's own options, `input_shape` and `num_classes` among them; see
            `help(models.get_builder(name))`.

    Returns:
        A Functional `keras.Model` that takes float images `(batch, height, width, channels)` and gives float32
        logits. With one random seed its initial weights are the same whatever the plan.

    Raises:
        ValueError: for an unknown model, option, plan or layer, and for a pattern that matches no site.

    Example:
    >>> from dropzoo import models
    >>> model = models.build_model("unet", depth=2, filters=8, dropout={"skip*": 0.1})
    >>> [site.name for site in models.list_sites(model) if site.spec]
    ['skip1', 'skip2']
    """
    from dropzoo.models import reference
    from dropzoo.models.plans import get_plan  # plans and ramps read the sites of models, which are built here
    from dropzoo.models.ramps import Ramp, expand_ramps
    from dropzoo.models.sites import list_sites

    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "The models take images of data format 'channels_last'. Received: "
            f"{keras.config.image_data_format()!r}, Keras' own setting; call "
            "keras.config.set_image_data_format('channels_last') first"
        )
    if weights is not None:
        named = reference.is_name(weights)
        options = reference.options_of(name, weights, options) if named else options
        model = build_model(name, dropout=dropout, **options)
        reference.load(model, name, weights)
        return model
    builder = get_builder(name)
    known = [p for p in inspect.signature(builder).parameters if p not in ("dropout", "name")]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    if isinstance(dropout, str) and dropout != "paper":
        dropout = get_plan(dropout).patterns(list_sites(name, **options))
    if isinstance(dropout, dict) and any(isinstance(value, Ramp) for value in dropout.values()):
        dropout = expand_ramps(dropout, list_sites(name, **options))
    return builder(dropout=dropout, **options)
