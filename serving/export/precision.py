"""Computes models of mixed precision in float32, as the files for other runtimes compute."""

import contextlib
from collections.abc import Iterator, Sequence

import keras

from dropzoo.common.keras_internals import flatten_layers

_HALF = ("float16", "bfloat16")
_SINGLE = ("float32",)
# The dtypes in which the runtimes of a format compute; others, which are not floats, are for indices and texts.
_KNOWN = {"onnx": ("float32", "float64"), "litert": _SINGLE, "openvino": ("float32", "float64")}


@contextlib.contextmanager
def in_float32(models: Sequence[keras.Model], format: str, calibrated: bool = False) -> Iterator[None]:
    """Computes the layers of mixed precision in float32 during the block; their weights are float32 already.

    Args:
        models: The models.
        format: The format of the file.
        calibrated: Whether the file has thresholds, which hold only for the answers that fitted them.

    Raises:
        ValueError: If the weights of a layer have a dtype in which the runtimes of the format do not compute, or a
            calibration was fitted in mixed precision.
    """
    layers = {id(layer): layer for model in models for layer in [model, *flatten_layers(model)]}
    mixed = [each for each in layers.values() if each.compute_dtype in _HALF and each.variable_dtype == "float32"]
    mixed = [each for each in mixed if getattr(each, "quantization_mode", None) is None]
    if mixed and calibrated:
        raise ValueError(
            f"A file of format={format!r} computes in float32, and the calibration was fitted to answers in "
            f"{mixed[0].compute_dtype}. Build a new model after keras.config.set_dtype_policy('float32'), call "
            "new.set_weights(model.get_weights()), and calibrate the new model; or use format='saved_model'"
        )
    before = [(layer, layer.dtype_policy) for layer in mixed]
    try:
        for layer in mixed:
            layer.dtype_policy = "float32"
        _check(list(layers.values()), format)
        yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy


def _check(layers: Sequence[keras.Layer], format: str) -> None:
    for layer in layers:
        dtype, holds = layer.compute_dtype, layer.weights and not flatten_layers(layer, include_self=False)
        if holds and keras.backend.is_float_dtype(dtype) and dtype not in _KNOWN[format]:
            raise ValueError(
                f"A file of format={format!r} computes in float32. Received: the layer {layer.name!r}, "
                f"which computes in {dtype}. Build a new model after keras.config.set_dtype_policy('float32'), "
                "call new.set_weights(model.get_weights()), and export the new model; or use "
                "format='saved_model'"
            )
