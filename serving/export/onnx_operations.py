"""The operations of TensorFlow that tf2onnx cannot convert, or converts wrongly, in operations of ONNX."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from dropzoo.layers.draws.samples import MIDDLE, TAILS

_LARGEST = 127  # the largest exponent of a float32; the smallest of a normal number is -126


class _Maker:
    """Writes nodes of ONNX in the place of one node of TensorFlow."""

    def __init__(self, graph: Any, node: Any) -> None:
        from onnx import TensorProto

        self._graph, self._types = graph, TensorProto
        self.inputs, self._outputs = list(node.input), list(node.output)
        self._name, self._dtypes, self._shapes = node.name, node.output_dtypes, node.output_shapes
        self.keeps_axes = int(node.get_attr_value("keep_dims", False) or False)
        self.boundaries = np.array(node.get_attr_value("boundaries", None) or [], np.float32)
        self.dtype, self.given = node.output_dtypes[0], graph.get_dtype(node.input[0])
        graph.remove_node(node.name)

    def __call__(self, kind: str, *inputs: Any, **attributes: Any) -> str:
        names = [self.constant(x) if not isinstance(x, str) else x for x in inputs]
        return self._graph.make_node(kind, names, attr=attributes).output[0]

    def constant(self, value: Any) -> str:
        array = np.float32(value) if isinstance(value, float) else np.asarray(value)
        return self._graph.make_const(f"{self._name}_constant_{len(self._graph.get_nodes())}", array).output[0]

    def cast(self, x: str, dtype: str) -> str:
        return self("Cast", x, to=getattr(self._types, dtype.upper()))

    def is_(self, dtype: str) -> bool:
        """Returns whether the input has this dtype."""
        return self.given == getattr(self._types, dtype.upper())

    def result(self, kind: str, *inputs: Any, **attributes: Any) -> None:
        """Writes the last node, which takes the place of the node of TensorFlow."""
        names = [self.constant(x) if not isinstance(x, str) else x for x in inputs]
        self._graph.make_node(
            kind, names, attr=attributes, outputs=self._outputs, name=self._name, dtypes=self._dtypes,
            shapes=self._shapes,
        )  # fmt: skip


def _bitcast(make: _Maker) -> None:
    """Casts between integers of one size wrap around; the bits of a float32 are computed from its parts."""
    (x,) = make.inputs
    if make.is_("float"):
        make.result("Cast", _bits_of_float(make, x), to=make.dtype)
    elif make.is_("int64") or make.is_("uint64"):  # to twice as many numbers of 32 bits, the low ones first
        wide = make.cast(x, "uint64")
        high = make("BitShift", wide, np.uint64(32), direction="RIGHT")
        last = np.array([-1], np.int64)
        halves = [make("Unsqueeze", make.cast(part, "uint32"), last) for part in (wide, high)]
        make.result("Cast", make("Concat", *halves, axis=-1), to=make.dtype)
    else:
        make.result("Cast", x, to=make.dtype)


def _bits_of_float(make: _Maker, x: str) -> str:
    """The bits of a float32, exactly, as int32: a sign, an exponent and a fraction. All NaN have the same bits."""
    broken, infinite = make("IsNaN", x), make("IsInf", x)
    x = make("Where", broken, 0.0, x)
    size = make("Where", infinite, 0.0, make("Abs", x))
    guess = make("Floor", make("Mul", make("Log", size), float(1 / np.log(2))))
    place = make.cast(make("Clip", guess, -126.0, float(_LARGEST)), "int32")
    exponents = np.arange(-126, _LARGEST + 1)
    half = exponents // 2  # two factors, since the smallest one alone would not be a normal number
    scaled, row = size, make("Add", place, np.int32(126))
    for powers in (half, exponents - half):
        scaled = make("Mul", scaled, make("Gather", (2.0**-powers).astype("float32"), row))
    # The logarithm may be off by one at a power of two.
    above, below = make("GreaterOrEqual", scaled, 2.0), make("Less", scaled, 1.0)
    scaled = make(
        "Where", above, make("Mul", scaled, 0.5), make("Where", below, make("Add", scaled, scaled), scaled)
    )
    place = make("Sub", make("Add", place, make.cast(above, "int32")), make.cast(below, "int32"))
    fraction = make.cast(make("Mul", make("Sub", scaled, 1.0), 2.0**23), "int32")
    normal = make("Add", make("Mul", make("Add", place, np.int32(127)), np.int32(2**23)), fraction)
    # The bound also keeps OpenVINO from one product with both factors, which would be infinite.
    tiny = make.cast(make("Mul", make("Min", make("Mul", size, 2.0**126), 1.0), 2.0**23), "int32")
    negative = make("Or", make("Less", x, 0.0), make("Less", make("Div", 1.0, x), 0.0))  # -0 too
    # Products with 0 and 1 choose, since not every runtime chooses between large integers exactly.
    is_tiny = make("Less", size, 2.0**-126)
    chosen = (
        (make("Not", is_tiny), normal),
        (is_tiny, tiny),
        (infinite, np.int32(0x7F800000)),
        (broken, np.int32(0x7FC00000)),
        (negative, np.int32(-(2**31))),
    )
    first, *others = (make("Mul", make.cast(condition, "int32"), bits) for condition, bits in chosen)
    return functools.reduce(lambda total, bits: make("Add", total, bits), others, first)


def _xlogy(make: _Maker) -> None:
    x, y = make.inputs
    zero = make("CastLike", 0.0, x)
    make.result("Where", make("Equal", x, zero), zero, make("Mul", x, make("Log", y)))


def _erfc(make: _Maker) -> None:
    (x,) = make.inputs
    make.result("Sub", make("CastLike", 1.0, x), make("Erf", x))


def _expm1(make: _Maker) -> None:
    (x,) = make.inputs
    make.result("Sub", make("Exp", x), make("CastLike", 1.0, x))


def _log1p(make: _Maker) -> None:
    (x,) = make.inputs
    make.result("Log", make("Add", x, make("CastLike", 1.0, x)))


def _bucketize(make: _Maker) -> None:
    """How many of the sorted boundaries are not greater than each value."""
    last = np.array([-1], np.int64)
    above = make("GreaterOrEqual", make("Unsqueeze", make.cast(make.inputs[0], "float"), last), make.boundaries)
    count = make("ReduceSum", make.cast(above, "int64"), last, keepdims=0)
    make.result("Cast", count, to=make.dtype)


def _erfinv(make: _Maker) -> None:
    (x,) = make.inputs
    w = make("Neg", make("Log", make("Mul", make("Sub", 1.0, x), make("Add", 1.0, x))))
    parts = []
    for moved, factors in ((make("Sub", w, 2.5), MIDDLE), (make("Sub", make("Sqrt", w), 3.0), TAILS)):
        total = make.constant(factors[0])
        for factor in factors[1:]:
            total = make("Add", make("Mul", total, moved), factor)
        parts.append(total)
    make.result("Mul", make("Where", make("Less", w, 5.0), *parts), x)


def _bound(compare: str) -> Callable[[_Maker], None]:
    """How many numbers of a sorted row are less than each value, or not greater than it."""

    def convert(make: _Maker) -> None:
        row, values = make.inputs
        less = make(compare, make("Unsqueeze", row, np.array([1])), make("Unsqueeze", values, np.array([2])))
        count = make("ReduceSum", make.cast(less, "int32"), np.array([2]), keepdims=0)
        make.result("Cast", count, to=make.dtype)

    return convert


def _floor_mod(make: _Maker) -> None:
    """The remainder with the sign of the divisor, which ONNX has for integers only."""
    x, y = make.inputs
    if make.is_("float") or make.is_("double"):
        make.result("Sub", x, make("Mul", y, make("Floor", make("Div", x, y))))
    else:
        make.result("Mod", x, y)


def _floor_div(make: _Maker) -> None:
    x, y = make.inputs
    if make.is_("float") or make.is_("double"):
        make.result("Floor", make("Div", x, y))
    else:
        make.result("Div", make("Sub", x, make("Mod", x, y)), y)


def _reduced(kind: str) -> Callable[[_Maker], None]:
    """Sums and products of integers wrap around in TensorFlow; ONNX Runtime uses floats for those of 32 bits."""

    def convert(make: _Maker) -> None:
        x, axes = make.inputs
        axes = make("Reshape", make.cast(axes, "int64"), np.array([-1]))
        options = {"keepdims": make.keeps_axes, "noop_with_empty_axes": 1}
        if make.is_("int32") or make.is_("uint32"):
            make.result("Cast", make(kind, make.cast(x, "int64"), axes, **options), to=make.dtype)
        else:
            make.result(kind, x, axes, **options)

    return convert


def handlers(errors: list[Exception]) -> dict[str, tuple[Callable[..., None], list[Any]]]:
    """Returns the conversions by the name of the operation, as `custom_op_handlers` of tf2onnx takes them.

    Args:
        errors: List to which the errors of the conversions are added, since tf2onnx continues after an error.
    """
    known = {
        "Bitcast": _bitcast,
        "Xlogy": _xlogy,
        "Bucketize": _bucketize,
        "Erfc": _erfc,
        "Expm1": _expm1,
        "Log1p": _log1p,
        "Erfinv": _erfinv,
        "LowerBound": _bound("Less"),
        "Prod": _reduced("ReduceProd"),
        "Sum": _reduced("ReduceSum"),
        "UpperBound": _bound("LessOrEqual"),
        "FloorDiv": _floor_div,
        "FloorMod": _floor_mod,
    }

    def handler(convert: Callable[[_Maker], None]) -> Callable[..., None]:
        def run(graph: Any, node: Any, name: str, args: list[Any]) -> None:
            try:
                convert(_Maker(graph, node))
            except Exception as error:
                errors.append(error)
                raise

        return run

    return {name: (handler(convert), []) for name, convert in known.items()}
