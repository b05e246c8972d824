"""Checks that a copy of a model computes the same as the original, since configs may leave arguments out."""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from dropzoo import layers
from dropzoo.common.keras_internals import flatten_layers, shadowed_calls, takes_training
from dropzoo.models.graph.batches import small_batches
from dropzoo.models.graph.walk import Call

Pairs = list[tuple[keras.Layer, keras.Layer]]
Recorded = list[tuple[tuple[Any, ...], dict[str, Any], Any]]


class OtherOutputs(ValueError):
    """The error for a copy that gives other outputs than its original."""


def check_copy(model: keras.Model, new: keras.Model, pairs: Pairs, rounding: float = 0.0) -> bool:
    """Compares a copy with the original on a small random batch in inference mode.

    Layers whose class is neither of Keras nor of this package are compared one by one, with the inputs that they
    get in the original, since a later layer may hide a difference. Then the outputs of the models are compared.

    Args:
        model: The original.
        new: The copy, with the state of the original.
        pairs: The layers of the original with their copies.
        rounding: Float, the largest relative difference that counts as equal; 0 compares to the bit.

    Returns:
        A bool, whether the outputs are equal. It is False if they cannot be compared: if the original gives other
        outputs each time or, with a warning, if no random batch runs through it.

    Raises:
        ValueError: If a layer or the model gives a different output from the original; the error names the layer.
    """
    alike = [(old, copied) for old, copied in pairs if old.name == copied.name]  # others are parts of a layer
    own = [(old, copied) for old, copied in alike if is_custom(old)]
    try:
        batch, seen = _first_run(model, [old for old, _ in own])
    except Exception as error:  # the code of a model may ask anything of its inputs
        warnings.warn(
            "The copy was not compared with the original, because the model could not run a random batch: "
            f"{error!r}. Compare the outputs of the two models on your own inputs.",
            stacklevel=5,
        )
        seen = {}
    for old, copied in own:
        _compare_calls(old, copied, seen.get(id(old), []))
        _compare_arguments(old, copied)
    if not seen:
        return False
    expected, found = seen[0][0][2], _run(new, batch)
    if _equal(expected, found, rounding):
        return True
    with _other_seeds():
        if not _equal(expected, _run(model, batch)):
            return False
    where = _first_difference(model, new, batch, alike)
    raise OtherOutputs(
        f"The copy does not give the same outputs as the original{where}. Pass share_weights=True, which uses the "
        "layers of the original, or define a `get_config` that returns all arguments of the layer."
    )


def draws_in_inference(model: keras.Model, watched: list[keras.Layer], batch: Any = None) -> list[keras.Layer]:
    """Returns the layers that give other outputs for the same inputs, in two passes in inference mode.

    If a layer inside another layer is in the result, the outer layer is left out.

    Args:
        model: A model with a graph.
        watched: The layers to look at.
        batch: Inputs of the model; None for a small random batch. If no such batch runs, the result is empty.
    """
    try:
        if batch is None:
            batch, _ = _first_run(model, [])
        one = _recorded(model, watched, batch)
        with _other_seeds():
            two = _recorded(model, watched, batch)
        if _equal(one[0][0][2], two[0][0][2]):
            return []
    except Exception:  # the code of a model may ask anything of its inputs
        return []
    found = {id(x): x for x in watched if any(map(_differ, one[id(x)], two[id(x)]))}
    explained = {key for key, x in found.items() if any(id(y) in found for y in flatten_layers(x, False))}
    return [layer for key, layer in found.items() if key not in explained]


def gives_its_input(call: Call) -> bool:
    """Returns whether a suspected layer acts like a dropout layer.

    Such a layer has "drop" or "StochasticDepth" in the name of its class, has no weights, and returns its input in
    inference.
    """
    name = type(call.layer).__name__.lower()
    if not ("drop" in name or "stochasticdepth" in name) or call.layer.weights:
        return False
    if len(call.inputs) != 1 or len(call.outputs) != 1 or call.inputs[0].shape != call.outputs[0].shape:
        return False
    tensor = call.inputs[0]
    shape = [2, *(4 if size is None else size for size in tensor.shape[1:])]
    x = keras.ops.cast(np.random.default_rng(0).normal(size=shape), tensor.dtype)
    try:
        return _equal(_run(call.layer, x, **({"training": False} if takes_training(call.layer) else {})), x)
    except Exception:  # the code of a layer may ask anything of its inputs
        return False


def acting_in_inference(changed: Iterable[tuple[str, keras.Layer]]) -> tuple[str, str] | None:
    """Returns the first dropout layer that changes its inputs in inference, as `ShakeDrop` does, or None.

    Args:
        changed: Pairs of a name and a layer.

    Returns:
        The name, and the spec of the layer.
    """
    one = keras.ops.ones((1, 1))
    for name, layer in changed:
        if not isinstance(layer, layers.BaseDropout) or type(layer).infer is layers.BaseDropout.infer:
            continue
        with contextlib.suppress(Exception):  # the code of a layer may ask anything of its inputs
            if not _equal(layer.infer(one), one):
                return name, layers.describe(layer)
    return None


def is_custom(layer: Any) -> bool:
    """Returns whether a layer is custom: its class is neither of Keras nor of this package."""
    return isinstance(layer, keras.Layer) and not type(layer).__module__.startswith(("keras.", "dropzoo."))


def _run(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
    """Returns the outputs of a layer, or of a model in inference mode; no variable changes."""
    trainable, fixed = layer.trainable_variables, layer.non_trainable_variables
    if isinstance(layer, keras.Model):
        kwargs["training"] = False
    return layer.stateless_call([v.value for v in trainable], [v.value for v in fixed], *args, **kwargs)[0]


@contextlib.contextmanager
def _other_seeds() -> Iterator[None]:
    """Makes every seed generator return other seeds while the block runs, so that code draws other numbers."""
    original = keras.random.SeedGenerator.next

    def following(self: keras.random.SeedGenerator, ordered: bool = True) -> Any:
        return original(self, ordered) + 1

    keras.random.SeedGenerator.next = following
    try:
        yield
    finally:
        keras.random.SeedGenerator.next = original


def _first_run(model: keras.Model, watched: list[keras.Layer]) -> tuple[Any, dict[int, Recorded]]:
    """Returns the first random batch that runs through a model, and the calls of some layers, see `_recorded`."""
    failed: Exception | None = None
    for batch in small_batches(model):
        try:
            return batch, _recorded(model, watched, batch)
        except Exception as error:  # the next size may be large enough
            failed = error
    raise failed or ValueError("the model has no inputs")


def _recorded(model: keras.Model, watched: list[keras.Layer], batch: Any) -> dict[int, Recorded]:
    """Returns the calls of layers in one pass, by the id of the layer; the call of the model is at 0."""
    seen: dict[int, Recorded] = {id(layer): [] for layer in watched}

    def note(layer: keras.Layer) -> Callable[..., Any]:
        original = layer.call

        def call(*args: Any, **kwargs: Any) -> Any:
            outputs = original(*args, **kwargs)
            seen[id(layer)].append((args, kwargs, outputs))
            return outputs

        return call

    with shadowed_calls([(layer, note(layer)) for layer in watched]):
        seen[0] = [((batch,), {}, _run(model, batch))]
    return seen


def _compare_arguments(old: keras.Layer, copied: keras.Layer) -> None:
    """Warns if an argument of a layer's constructor differs in the copy, since inference may not show it."""
    parameters = inspect.signature(type(old).__init__).parameters
    for attribute in (a for name in parameters if name not in ("self", "name") for a in (name, f"_{name}")):
        before, after = (vars(layer).get(attribute) for layer in (old, copied))
        if isinstance(before, (bool, int, float, str)) and _is_plain(after) and before != after:
            warnings.warn(
                f"The copy of layer {old.name!r} has {attribute}={after!r} where the original has {before!r}, "
                f"because `get_config` of {type(old).__name__} leaves it out. Add it there, or pass "
                "share_weights=True.",
                stacklevel=6,
            )


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _compare_calls(old: keras.Layer, copied: keras.Layer, calls: Recorded) -> None:
    """Raises a ValueError if a copied layer does not give the output of the original."""
    for args, kwargs, output in calls:
        if _equal(output, _run(copied, *args, **kwargs)):
            continue
        with _other_seeds():
            if not _equal(output, _run(old, *args, **kwargs)):
                continue
        raise ValueError(
            f"The copy of layer {old.name!r} does not give the same outputs as the original: "
            f"{type(old).__name__}.from_config(layer.get_config()) returns a different layer. Define a "
            f"`get_config` that returns all arguments of {type(old).__name__}, or pass share_weights=True, which "
            "uses the layers of the original."
        )


def _first_difference(model: keras.Model, new: keras.Model, batch: Any, pairs: Pairs) -> str:
    """Returns the first layer whose outputs differ, in words for an error; "" if that is not known."""
    one = _recorded(model, [old for old, _ in pairs], batch)
    two = _recorded(new, [copied for _, copied in pairs], batch)
    names = [old.name for old, copied in pairs if any(map(_differ, one[id(old)], two[id(copied)]))]
    return f", first in layer {names[0]!r}" if names else ""


def _differ(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """Returns whether two calls have the same inputs and different outputs."""
    return _equal(a[:2], b[:2]) and not _equal(a[2], b[2])


def _equal(a: Any, b: Any, rounding: float = 0.0) -> bool:
    """Returns whether two structures hold the same arrays: to the bit, or up to rounding."""
    first, second = keras.tree.flatten(a), keras.tree.flatten(b)
    return len(first) == len(second) and all(
        _same_array(x, y, rounding) for x, y in zip(first, second, strict=True)
    )


def _same_array(a: Any, b: Any, rounding: float) -> bool:
    if not keras.ops.is_tensor(a) or not keras.ops.is_tensor(b):
        return True  # `training` and the like
    x, y = (np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in (a, b))
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    if x.dtype == object:  # texts
        return bool(np.array_equal(x, y))
    if x.tobytes() == y.tobytes():
        return True
    return bool(rounding) and bool(np.allclose(x, y, rtol=rounding, atol=rounding, equal_nan=True))
