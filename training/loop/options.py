"""The trainer's options: checks, and the rule of `jit_compile="auto"`."""

import keras
import tensorflow as tf

from dropzoo.common.checks import check_choice, check_count
from dropzoo.common.keras_internals import flatten_layers
from dropzoo.layers.draws.xla import has_compiler


def check_options(
    jit_compile: bool | str, steps_per_execution: int, on_nan: str, r_drop: float, one_output: bool
) -> None:
    """Raises a ValueError for a bad option; `one_output` says whether the model has one output of known shape."""
    check_choice(jit_compile, "jit_compile", (True, False, "auto"))
    check_count(steps_per_execution, "steps_per_execution")
    check_choice(on_nan, "on_nan", ("stop", "restore"))
    is_number = isinstance(r_drop, (int, float)) and not isinstance(r_drop, bool)
    if not is_number or not 0 <= r_drop < float("inf"):
        raise ValueError(f"`r_drop` must be a number of at least 0. Received: r_drop={r_drop!r}")
    if r_drop and not one_output:
        raise ValueError(f"`r_drop` needs a model with one output of known shape. Received: r_drop={r_drop}")


def check_device(name: str | None, strategy: tf.distribute.Strategy | None) -> None:
    """Raises a ValueError if the device does not exist, or if there is a strategy, which has its own devices."""
    if name is None:
        return
    if strategy is not None:
        raise ValueError(f"`prefetch_to` is for training without a strategy. Received: prefetch_to={name!r}")
    there = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    check_choice(name, "prefetch_to", there)


def xla_pays(model: keras.Model, strategy: tf.distribute.Strategy | None, deterministic: bool) -> bool:
    """Returns whether `jit_compile="auto"` compiles the steps."""
    if strategy is not None or deterministic or not tf.config.list_physical_devices("GPU"):
        return False
    return has_compiler() and all(layer.supports_jit for layer in flatten_layers(model))
