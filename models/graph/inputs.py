"""The images that a model takes, found in its graph: the range of their pixels and the order of their channels.

Images enter many networks through layers that scale them: `Rescaling(1 / 255)`, `Normalization`, the operations of
`preprocess_input`, a `Lambda`. Such layers have no kernel. Constant images run through all layers before the first
kernel, whatever their class, and the range of the model is the one that arrives there as small numbers.
"""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from dropzoo.common.images import channels_first
from dropzoo.common.keras_internals import flatten_layers, nodes_of
from dropzoo.common.pixels import RANGES, Pixels
from dropzoo.models.graph.networks import network_in
from dropzoo.models.graph.order import is_channels_first
from dropzoo.models.graph.walk import graph_of

_LEVELS = (0.0, 1.0, 255.0, 65535.0, -1.0)
_WIDE_INTEGERS = ("int16", "int32", "int64", "uint32", "uint64")
_SIDE = 16  # the height and width of the images, where a model takes any
# The means of the red, green and blue pixels of ImageNet, in [0, 1].
_IMAGENET = np.array([0.485, 0.456, 0.406])


def pixels_of(model: keras.Model) -> Pixels | None:
    """Returns the range of the images that a model of one input takes, as far as its graph shows.

    Args:
        model: A model. If it has a custom `call`, only its first `Rescaling` or `Normalization` is found.

    Returns:
        `Pixels`, or None if the model has several inputs or no layer before its first kernel changes the pixels.
    """
    found = input_pixels(model)
    return next(iter(found.values())) if len(found) == 1 else None


def input_pixels(model: keras.Model) -> dict[str, Pixels | None]:
    """Returns, for each input of a model by its name, the images that it takes, as far as the graph shows.

    The value is None for an input that is not an image: an image has at least three axes besides the batch.
    """
    graph = graph_of(model)
    if graph is None:
        taken = [t for t in getattr(model, "inputs", None) or [] if len(t.shape) > 3]
        return {tensor.name: _guess(model, tensor) for tensor in taken[:1]} or {"inputs": _guess(model, None)}
    return {tensor.name: _of_input(graph, tensor) for tensor in graph.inputs}


def hint_of(model: keras.Model) -> str:
    """Returns a sentence about a network inside whose weights expect images minus means; "" if there is none.

    It is for models whose graph shows no range, because the preprocessing is not part of the model.
    """
    for layer in flatten_layers(model):
        network, takes = network_in(layer) or ("", "")
        if takes == "centred":
            return (
                f" The model has the layers of {network!r} of keras.applications, whose published weights expect "
                "the images that its preprocess_input returns: put that function into the model."
            )
    return ""


def _of_input(graph: Any, tensor: keras.KerasTensor) -> Pixels | None:
    """Returns the images that one input of a Functional model takes, or None."""
    if len(tensor.shape) < 4:
        return None
    first = is_channels_first(graph, tensor)
    channels = tensor.shape[1] if first else tensor.shape[-1]
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype in ("uint8", "uint16"):
        return Pixels(0.0, float(np.iinfo(dtype).max), int(dtype[4:]), channels, source=f"its dtype, {dtype}")
    shown = _by_trace(graph, tensor, first, dtype)
    if shown is None and dtype in _WIDE_INTEGERS:  # values in [0, 1] would be black and white alone
        return Pixels(0.0, 255.0, None, channels, source=f"its dtype, {dtype}")
    return shown


def _by_trace(graph: Any, tensor: keras.KerasTensor, first: bool, dtype: str) -> Pixels | None:
    """Returns the images that one input takes by the layers that change them, or None."""
    images, channels = _images(tensor.shape, first).astype(dtype), tensor.shape[1 if first else -1]
    trace = _Trace(images)
    try:
        arrived = list(trace.through(graph, tensor))
    except Exception:  # a custom layer may raise anything for these images; the graph then shows nothing
        return None
    each = [
        _read(value, names, channels, first if value.shape == images.shape else channels_first(value.shape))
        for value, names in arrived
    ]
    found = {pixels for pixels in each if pixels is not None}
    ranges = {each.range for each in found}
    known = [network for network in map(network_in, trace.entered) if network is not None]
    if not ranges and known and known[0][1] == "symmetric" and not any(names for _, names in arrived):
        return Pixels(-1.0, 1.0, None, channels, source=f"its network {known[0][0]!r} of keras.applications")
    return max(found, key=lambda each: (each.order is not None, each.source)) if len(ranges) == 1 else None


def _images(shape: tuple[int | None, ...], first: bool) -> np.ndarray:
    """Returns one constant image for each of `_LEVELS`, and one whose channels have the values 0, 1, 2, ..."""
    size = _size(shape)
    axis = 0 if first else -1
    flat = [np.full(size, level, "float32") for level in _LEVELS]
    numbers = np.arange(size[axis], dtype="float32").reshape([-1, 1, 1] if axis == 0 else [-1])
    return np.stack([*flat, np.broadcast_to(numbers, size)])


def _size(shape: tuple[int | None, ...]) -> list[int]:
    return [_SIDE if n is None else n for n in shape[1:]]


class _Trace:
    """Runs images through the part of a graph that comes before the first layers with kernels.

    Args:
        images: The images.

    Attributes:
        entered: The models that take the images as they are.
    """

    def __init__(self, images: np.ndarray) -> None:
        self._images, self.entered = images, list[Any]()

    def through(self, graph: Any, tensor: keras.KerasTensor) -> Iterator[tuple[np.ndarray, tuple[str, ...]]]:
        """Yields the array that arrives at each layer with a kernel, and the names of the layers that changed it.

        The other inputs of the graph get zeros.
        """
        values: dict[int, Any] = {
            id(other): (keras.ops.zeros((len(self._images), *_size(other.shape)), other.dtype), ())
            for other in graph.inputs
            if other.dtype != "string"
        }
        values[id(tensor)] = keras.ops.convert_to_tensor(self._images), ()
        self.entered.append(graph)
        yield from self._run(graph, values)
        yield from (_numbers(values[id(end)]) for end in graph.outputs if id(end) in values)

    def _run(self, graph: Any, values: dict[int, Any]) -> Iterator[tuple[np.ndarray, tuple[str, ...]]]:
        """Runs the nodes whose inputs are all known, and adds their outputs to `values`."""
        for node in nodes_of(graph):
            operation, reads = node.operation, node.input_tensors
            known = [values[id(tensor)] for tensor in reads if id(tensor) in values]
            if not reads or not known or len(known) < len(reads):
                continue
            inner = graph_of(operation)
            if inner is not None and not any(names for _, names in known):
                self.entered.append(inner)
            frames = inner is None and isinstance(operation, keras.layers.TimeDistributed)
            if frames and (inner := graph_of(operation.layer)) is not None:
                yield from self._run(inner, {id(inner.inputs[0]): (known[0][0][:, 0], known[0][1])})
            elif inner is not None and len(inner.inputs) == len(known):
                inside = {id(tensor): value for tensor, value in zip(inner.inputs, known, strict=True)}
                yield from self._run(inner, inside)
                both = zip(inner.outputs, node.outputs, strict=True)
                values |= {id(outer): inside[id(tensor)] for tensor, outer in both if id(tensor) in inside}
            elif _has_kernel(operation):
                yield from map(_numbers, known)
                if (scale := _first_scale(operation)) is not None:
                    yield _numbers((scale(known[0][0]), (*known[0][1], scale.name)))
            else:
                made = _call(node, {id(t): value for t, (value, _) in zip(reads, known, strict=True)})
                names = tuple(dict.fromkeys(name for _, each in known for name in each))
                for tensor, value in zip(node.outputs, made, strict=True):
                    changed = not _same(value, known[0][0])
                    values[id(tensor)] = (value, (*names, operation.name) if changed else names)


def _numbers(value: tuple[Any, tuple[str, ...]]) -> tuple[np.ndarray, tuple[str, ...]]:
    return keras.ops.convert_to_numpy(value[0]), value[1]


def _same(value: Any, other: Any) -> bool:
    """Returns whether a layer has left the first three images, which every dtype holds, as they were."""
    arrays = [keras.ops.convert_to_numpy(each[:3]) for each in (value, other)]
    new, old = (_levels(array, channels_first(array.shape)).mean(-1) for array in arrays)
    return np.allclose(new, old, rtol=1e-3)


def _levels(images: np.ndarray, first: bool) -> np.ndarray:
    """Returns the level of each channel of constant images, `(images, channels)`; padding does not affect it."""
    if first:
        images = np.moveaxis(images, 1, -1)
    return np.median(images.astype("float64").reshape(len(images), -1, images.shape[-1]), 1)


def _has_kernel(operation: Any) -> bool:
    """Returns whether a layer has weights besides the statistics of the images."""
    if isinstance(operation, keras.layers.Normalization):
        return getattr(operation, "mean", None) is None or _centred(operation.mean, operation.variance)
    if isinstance(operation, keras.layers.BatchNormalization):
        return _centred(operation.moving_mean, operation.moving_variance)
    return bool(getattr(operation, "weights", ()))


def _centred(mean: Any, variance: Any) -> bool:
    """Returns whether statistics show no range: they are initial ones, or those of standardised images."""
    mean, variance = (keras.ops.convert_to_numpy(each) for each in (mean, variance))
    return not (mean > 0.3 * np.sqrt(variance)).all()


def _first_scale(operation: Any) -> keras.layers.Layer | None:
    """Returns the first scaling layer inside a layer or model whose code hides its graph, or None."""
    if not isinstance(operation, keras.layers.Layer) or graph_of(operation) is not None:
        return None
    scales = (keras.layers.Rescaling, keras.layers.Normalization)
    inside = flatten_layers(operation, False)
    return next((each for each in inside if isinstance(each, scales) and not _has_kernel(each)), None)


def _call(node: Any, values: dict[int, Any]) -> list[Any]:
    """Returns the outputs of a call in inference mode; the variables keep their values."""
    args, kwargs = node.arguments.fill_in(values)
    if not isinstance(node.operation, keras.layers.Layer):
        return keras.tree.flatten(node.operation(*args, **kwargs))
    before = [(variable, variable.numpy()) for variable in node.operation.variables]
    made = node.operation(*args, **{**kwargs, "training": False})
    for variable, value in before:
        variable.assign(value)
    return keras.tree.flatten(made)


def _guess(model: keras.Model, tensor: keras.KerasTensor | None) -> Pixels | None:
    """Returns the images that the first scaling layer of a model without a graph takes, or None."""
    scale = _first_scale(model)
    if scale is None:
        return None
    channels = tensor.shape[-1] if tensor is not None else len(np.ravel(getattr(scale, "scale", 0.0)))
    try:
        value = scale(_images((None, 1, 1, channels), False))
    except Exception:  # a normalization of other axes
        return None
    return _read(*_numbers((value, (scale.name,))), None if tensor is None else channels, False)


def _read(value: np.ndarray, names: tuple[str, ...], channels: int | None, first: bool) -> Pixels | None:
    """Returns the images for which `value`, the trial images as they arrive, is in a range that networks take."""
    if not names or value.ndim < 2 or len(value) != len(_LEVELS) + 1:
        return None
    rows = _levels(value, first)
    rows = rows[:, (rows != rows[:1]).any(0)]  # without channels that do not depend on the image
    if not rows.size:
        return None
    zero, one, large = rows[0], rows[1], rows[2]
    gain = one - zero
    straight = np.allclose(large - zero, 255 * gain, rtol=0.02, atol=1e-6) and (gain != 0).all()
    if straight and np.allclose(gain, 1, rtol=0.01) and np.allclose(zero, 0, atol=0.01):
        return None
    pair = _exact(gain, zero) if straight else None
    if pair is None:
        pair = _plausible({level: row.mean() for level, row in zip(_LEVELS, rows, strict=False)})
    if pair is None:
        return None
    order = _order(rows[-1], gain, zero, pair[1]) if straight and channels == 3 == len(gain) else None
    bits = {255.0: 8}.get(pair[1], 16 if pair[1] > 255 else None)
    which = "its layers" if len(names) > 1 else "its layer"
    source = f"{which} {', '.join(map(repr, names[:3]))}{', ...' if len(names) > 3 else ''}"
    return Pixels(*pair, bits, channels, order, source)


def _exact(gain: np.ndarray, zero: np.ndarray) -> tuple[float, float] | None:
    """Returns the range that a scaling maps to [0, 1], [-1, 1] or [-0.5, 0.5]; None for an unusual range."""
    if np.ptp(gain) > 0.01 * abs(gain[0]) or np.ptp(zero) > 0.01 or gain[0] <= 0:
        return None
    scale, offset = float(gain.mean()), float(zero.mean())
    high = (1.0 if abs(offset) < 0.01 else -2 * offset) / scale
    for _, known in RANGES:
        if abs(high - known) <= 0.05 * known:
            return 0.0, known
    usual = min(abs(offset), abs(offset + 1), abs(offset + 0.5)) < 0.01
    return (0.0, float(round(high))) if usual and high > 31 and abs(high - round(high)) < 0.01 * high else None


def _plausible(mean: dict[float, float]) -> tuple[float, float] | None:
    """Returns the first of `RANGES` whose black and white arrive on both sides of zero, and not far from it."""
    for least, most in ((0.5, 30), (30, 300)):
        for low, high in RANGES:
            ends = sorted((mean[low], mean[high]))
            span = ends[1] - ends[0]
            if np.isfinite(span) and least <= span <= most and ends[0] <= 0.05 * span and ends[1] >= -0.05 * span:
                return low, high
    return None


def _order(ramp: np.ndarray, gain: np.ndarray, zero: np.ndarray, high: float) -> str | None:
    """Returns the order of the channels of an input whose means are those of ImageNet."""
    places = np.rint((ramp - zero) / gain).astype(int)  # the channel of the image that became each channel
    if sorted(places) != [0, 1, 2]:
        return None
    means = np.empty(3)
    means[places] = -zero / gain / high
    for order, expected in (("rgb", _IMAGENET), ("bgr", _IMAGENET[::-1])):
        if np.allclose(means, expected, atol=0.01):
            return order
    return None
