"""The names of the models: `register_model`, `list_models`, `get_builder`."""

import fnmatch
import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras

from dropzoo.common.checks import is_same_definition, unknown

Builder = Callable[..., keras.Model]
_MODELS: dict[str, Builder] = {}


def register_model(builder: Builder) -> Builder:
    """Decorator that registers a model builder under the name of its function.

    Args:
        builder: Function that takes `input_shape`, `num_classes` and keyword arguments, including `dropout` and
            `name`, and returns a model. Its docstring describes the model.

    Returns:
        The same function.

    Raises:
        ValueError: If another model of this name is registered already. A function that is defined again, as when
            a notebook's cell runs again, replaces its former definition.

    Example:
    >>> import keras
    >>> from dropzoo import models
    >>> @models.register_model
    ... def two_layers(input_shape=(8,), num_classes=3, *, dropout=None, name="two_layers"):
    ...     drop = models.Sites(dropout, paper={"hidden": 0.5})
    ...     inputs = keras.Input(input_shape)
    ...     x = drop(keras.layers.Dense(16, "relu", name="hidden")(inputs), "hidden")
    ...     drop.done()
    ...     return keras.Model(inputs, keras.layers.Dense(num_classes, name="logits")(x), name=name)
    >>> model = models.build_model("two_layers", num_classes=5, dropout="paper")
    >>> [(site.name, site.spec) for site in models.list_sites(model) if site.spec]
    [('hidden', 'dropout:0.5')]
    """
    name = builder.__name__
    if name in _MODELS and not is_same_definition(_MODELS[name], builder):
        raise ValueError(f"A model named {name!r} is registered already: {_MODELS[name]}. Choose another name")
    _MODELS[name] = builder
    return builder


def register_variant(base: Builder, name: str, summary: str, **defaults: Any) -> Builder:
    """Registers a builder under another name, with other defaults.

    Args:
        base: The builder.
        name: The new name.
        summary: The first line of the docstring.
        defaults: The other defaults of its keyword arguments.

    Returns:
        The new builder.

    Raises:
        ValueError: If another model of this name is registered already.
    """

    @functools.wraps(base)
    def builder(*args: Any, **kwargs: Any) -> keras.Model:
        return base(*args, **{**defaults, "name": name, **kwargs})

    builder.__name__ = builder.__qualname__ = name
    changes = " and ".join(f"`{option}={value!r}`" for option, value in defaults.items())
    same = f"Options and sites are those of `{base.__name__}`, but by default {changes}."
    builder.__doc__ = f"{summary}\n\n    {same}\n"
    signature = inspect.signature(base)
    changed = defaults | {"name": name}
    builder.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(default=changed.get(p.name, p.default)) for p in signature.parameters.values()]
    )
    return register_model(builder)


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names of the registered models, sorted.

    Args:
        pattern: Str. An fnmatch pattern for the names.

    Example:
    >>> from dropzoo import models
    >>> models.list_models("*unet*")
    ['attention_unet', 'res_unet', 'unet', 'unet_plus_plus']
    """
    return sorted(fnmatch.filter(_MODELS, pattern))


def get_builder(name: str) -> Builder:
    """Returns the function that builds a model. Its docstring and signature describe the options of the model.

    Args:
        name: One of `list_models()`.

    Raises:
        ValueError: For an unknown name; the error suggests the closest.

    Example:
    >>> from dropzoo import models
    >>> models.get_builder("lenet5").__doc__.partition(":")[0]
    'LeNet-5'
    """
    if name not in _MODELS:
        raise unknown("model", name, _MODELS)
    return _MODELS[name]
