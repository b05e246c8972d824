"""The bounds of a model's outputs, computed along its TensorFlow graph, and the meaning that follows from them.

Keras records the layers that a model calls, but not what their code does. TensorFlow's graph has every operation,
also those of lambdas and of layers and models with a custom `call`. Each tensor has three numbers, which are
computed from those of its inputs: the least and the greatest value that it can have, and the sum along one axis if
that is a constant. A softmax has the bounds 0 and 1 and the sum 1, and so does half of the sum of two softmaxes.
The output of a layer of weights has no bounds.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np


class Bounds(NamedTuple):
    """The known facts about the values of a tensor.

    Attributes:
        low: Float, no value is smaller.
        high: Float, no value is greater.
        total: Float, the sum along one axis at each position, or None if that is not known.
        axis: Negative int, the axis of `total`.
    """

    low: float
    high: float
    total: float | None = None
    axis: int = -1


_UNIT = Bounds(0.0, 1.0)
_ANY = Bounds(-math.inf, math.inf)

# By type of operation.
_FIXED = {"Softmax": Bounds(0.0, 1.0, 1.0), "Sigmoid": _UNIT, "Tanh": Bounds(-1.0, 1.0), "Erf": Bounds(-1.0, 1.0)}
_FIXED |= dict.fromkeys(("Rsqrt", "SquaredDifference"), Bounds(0.0, math.inf))
_WITHOUT_BOUNDS = frozenset(
    "MatMul BatchMatMulV2 BatchMatMulV3 Einsum Conv2D Conv3D DepthwiseConv2dNative Conv2DBackpropInput "
    "Conv3DBackpropInputV2 FusedBatchNormV3 BiasAdd LogSoftmax LeakyRelu Selu Log Log1p ReadVariableOp "
    "_FusedMatMul _FusedConv2D".split()
)
_SAME = frozenset(
    "Identity IdentityN StopGradient PreventGradient Cast EnsureShape CheckNumerics Snapshot".split()
)
# Every value of the output is a value of the input, or a mean of several.
_SELECTED = frozenset(
    "Reshape ExpandDims Squeeze ResizeBilinear ResizeNearestNeighbor ResizeBicubic ScaleAndTranslate AvgPool "
    "AvgPool3D StridedSlice Slice Tile ReverseV2 BroadcastTo SpaceToBatchND BatchToSpaceND".split()
)
_MONOTONE: dict[str, Callable[[float], float]] = {
    "Relu": lambda x: max(x, 0.0),
    "Relu6": lambda x: min(max(x, 0.0), 6.0),
    "Elu": lambda x: x if x > 0 else math.expm1(x),
    "Exp": lambda x: math.exp(x) if x < 700 else math.inf,
    "Softplus": lambda x: x if x > 30 else math.log1p(math.exp(x)),
    "Sqrt": lambda x: math.sqrt(max(x, 0.0)),
    "Round": round,
}


def meanings_by_bounds(model: keras.Model, structure: Any) -> list[Any]:
    """Returns the meaning of each output of a model, as `output_meanings` does, from its bounds.

    An output between 0 and 1 is `"softmax"` if its last axis sums to 1, else `"sigmoid"`. An output without bounds
    on either side is `"logits"`. The list is empty if the code of the model cannot be traced.

    Args:
        model: A built model; Keras runs on TensorFlow.
        structure: The structure of the inputs, with symbolic tensors.
    """
    return [_meaning(each) for each in output_bounds(model, structure)]


def _meaning(bounds: Bounds | None) -> str | None:
    if bounds is None:
        return None
    if math.isinf(bounds.low) and math.isinf(bounds.high):
        return "logits"
    if bounds.low < -1e-6 or bounds.high > 1 + 1e-6:
        return None
    sums_to_one = bounds.axis == -1 and bounds.total is not None and abs(bounds.total - 1) < 1e-6
    return "softmax" if sums_to_one else "sigmoid"


def output_bounds(model: keras.Model, structure: Any) -> list[Bounds | None]:
    """Returns the bounds of each output of a model in inference mode, or None for an output that is not known.

    The list is empty if the code of the model cannot be traced.

    Args:
        model: A built model; Keras runs on TensorFlow.
        structure: The structure of the inputs, with symbolic tensors.
    """
    import tensorflow as tf  # here, since models are built on other backends too

    def run(*inputs: Any) -> list[Any]:
        return keras.tree.flatten(model(keras.tree.pack_sequence_as(structure, list(inputs)), training=False))

    specs = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in keras.tree.flatten(structure)]
    try:
        graph = tf.function(run, input_signature=specs, autograph=False).get_concrete_function().graph
    except Exception:  # custom code can fail in any way; the callers then look at the values
        return []
    search = _Search(tf.get_static_value)
    return [search.bounds(tensor) for tensor in keras.tree.flatten(graph.structured_outputs)]


class _Search:
    """A search from outputs back to the tensors whose bounds are known."""

    def __init__(self, static_value: Callable[[Any], Any]) -> None:
        self._static_value = static_value
        self._known: dict[str, Bounds | None] = {}

    def bounds(self, tensor: Any, depth: int = 0) -> Bounds | None:
        """Returns the bounds of a tensor, or None for an operation that is not known here."""
        if tensor.name not in self._known:
            self._known[tensor.name] = None if depth > 200 else self._find(tensor, depth)
        return self._known[tensor.name]

    def _find(self, tensor: Any, depth: int) -> Bounds | None:
        operation, kind = tensor.op, tensor.op.type
        value = self._static_value(tensor)
        if value is not None and np.issubdtype(np.asarray(value).dtype, np.number) and np.size(value):
            return Bounds(float(np.min(value)), float(np.max(value)))
        if kind in _FIXED or kind in _WITHOUT_BOUNDS:
            return _FIXED.get(kind, _ANY)
        if kind == "Exp" and operation.inputs[0].op.type == "LogSoftmax":
            return _FIXED["Softmax"]
        if kind == "ClipByValue":
            return self._clipped(operation, depth)
        if kind == "RealDiv" and self._is_own_sum(*operation.inputs):
            whole = self.bounds(operation.inputs[0], depth + 1)
            return Bounds(0.0, 1.0, 1.0) if whole is not None and whole.low >= 0 else None
        found = [self.bounds(each, depth + 1) for each in _values(operation)]
        if not found or None in found:
            return None
        return self._combined(tensor, kind, [each for each in found if each is not None])

    def _combined(self, tensor: Any, kind: str, found: list[Bounds]) -> Bounds | None:
        """Returns the bounds of an operation, computed from those of the tensors that it reads."""
        operation, first = tensor.op, found[0]
        if kind in _SAME:
            return first
        if kind == "Transpose":
            return self._transposed(operation, first)
        if kind in ("Pad", "PadV2"):
            return Bounds(min(0.0, first.low), max(0.0, first.high))
        if kind in _SELECTED or kind in ("GatherV2", "Mean", "MaxPool", "Max", "Min"):
            keeps = first.axis == -1 and self._keeps_sums(tensor, kind)
            return first if keeps else Bounds(first.low, first.high)
        if kind in _MONOTONE:
            function = _MONOTONE[kind]
            unchanged = kind == "Relu" and first.low >= 0
            return first if unchanged else Bounds(function(first.low), function(first.high))
        if kind in ("Add", "AddV2", "AddN"):
            totals = [each.total for each in found if each.axis == first.axis and each.total is not None]
            total = sum(totals) if len(totals) == len(found) else None
            return Bounds(sum(each.low for each in found), sum(each.high for each in found), total, first.axis)
        if kind == "Neg":
            return Bounds(-first.high, -first.low)
        if kind == "Sub":
            return Bounds(first.low - found[1].high, first.high - found[1].low)
        if kind in ("Mul", "RealDiv", "Square"):
            return _product(kind, first, found[-1])
        if kind in ("Maximum", "Minimum"):
            pick = max if kind == "Maximum" else min
            return Bounds(pick(first.low, found[1].low), pick(first.high, found[1].high))
        if kind in ("ConcatV2", "Pack", "SelectV2"):
            same = {each.total if each.axis == -1 else None for each in found}
            total = same.pop() if len(same) == 1 and not self._is_last_axis(operation, tensor) else None
            return Bounds(min(x.low for x in found), max(x.high for x in found), total)
        return None

    def _transposed(self, operation: Any, x: Bounds) -> Bounds | None:
        order = self._static_value(operation.inputs[1])
        if x.total is None:
            return x
        if order is None:  # the sum is along an axis that is not known
            return None
        rank = len(order)
        return x._replace(axis=list(order).index(x.axis + rank) - rank)

    def _clipped(self, operation: Any, depth: int) -> Bounds | None:
        found = [self.bounds(each, depth + 1) for each in operation.inputs]
        if found[1] is None or found[2] is None:
            return None
        x = found[0] or _ANY
        low, high = found[1].low, found[2].high
        return Bounds(min(max(x.low, low), high), max(min(x.high, high), low))

    def _keeps_sums(self, tensor: Any, kind: str) -> bool:
        """Returns whether an operation leaves the sums along the last axis as they are."""
        source, operation = tensor.op.inputs[0], tensor.op
        if kind in ("MaxPool", "Max", "Min", "Tile") or not source.shape.rank or not tensor.shape.rank:
            return False
        last = source.shape.rank - 1
        if kind in ("Mean", "GatherV2"):
            axes = self._static_value(operation.inputs[1 if kind == "Mean" else 2])
            if axes is None or any(axis % (last + 1) == last for axis in np.ravel(axes)):
                return False
        return source.shape[-1] is not None and source.shape[-1] == tensor.shape[-1]

    def _is_last_axis(self, operation: Any, tensor: Any) -> bool:
        if operation.type == "SelectV2":
            return False
        axis = operation.get_attr("axis") if operation.type == "Pack" else self._static_value(operation.inputs[-1])
        rank = tensor.shape.rank
        return axis is None or rank is None or int(axis) % rank == rank - 1

    def _is_own_sum(self, x: Any, total: Any) -> bool:
        """Returns whether `total` is the sum of `x` along its last axis, perhaps plus a small constant."""
        operation = total.op
        if operation.type in ("AddV2", "Maximum"):
            small = [self._static_value(each) for each in operation.inputs]
            sums = [each for each, value in zip(operation.inputs, small, strict=True) if value is None]
            if len(sums) != 1 or any(v is not None and np.max(np.abs(v)) > 1e-5 for v in small):
                return False
            operation = sums[0].op
        if operation.type != "Sum" or operation.inputs[0] is not x or not operation.get_attr("keep_dims"):
            return False
        axes, rank = self._static_value(operation.inputs[1]), x.shape.rank
        return axes is not None and rank is not None and [a % rank for a in np.ravel(axes)] == [rank - 1]


def _values(operation: Any) -> list[Any]:
    """Returns the inputs of an operation that hold values, without shapes, axes and conditions."""
    inputs = list(operation.inputs)
    if operation.type in ("ConcatV2", "SelectV2"):
        return inputs[:-1] if operation.type == "ConcatV2" else inputs[1:]
    if operation.type in ("AddN", "Pack", "Add", "AddV2", "Sub", "Mul", "RealDiv", "Maximum", "Minimum"):
        return inputs
    return inputs[:1]


def _product(kind: str, a: Bounds, b: Bounds) -> Bounds | None:
    """Returns the bounds of a product, a quotient or a square."""
    if kind == "Square":
        low = 0.0 if a.low < 0 < a.high else min(a.low**2, a.high**2)
        return Bounds(low, max(a.low**2, a.high**2))
    if kind == "RealDiv":
        if b.low <= 0 <= b.high:  # the sum of `a`, by other operations, could give probabilities
            return None
        b = Bounds(1 / b.high, 1 / b.low)
    corners = [0.0 if 0.0 in (x, y) else x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    for one, other in ((a, b), (b, a)):
        if one.total is not None and other.low == other.high:  # a constant
            return Bounds(min(corners), max(corners), one.total * other.low, one.axis)
    return Bounds(min(corners), max(corners))
