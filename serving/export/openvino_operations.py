"""Exact operations on random bits, for OpenVINO, which computes some integer operations in float32 on processors.

A float32 keeps 24 of 32 bits. Sums, products and operations on single bits are exact, and so is everything that is
built from them.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Value: TypeAlias = Any
"""The output of a node of OpenVINO, or the node, if it has one output."""

_TOP = -(2**31)  # the highest bit


class _Maker:
    """Writes nodes of OpenVINO in the place of one node of ONNX."""

    def __init__(self, node: Any) -> None:
        from openvino import opset13

        self.ops, self._node = opset13, node

    def attribute(self, name: str) -> Any:
        return self._node.get_attribute(name)

    def given(self, index: int) -> Value:
        """Returns an input."""
        return self._node.get_input(index)

    def signed(self, index: int) -> Value:
        """Returns an input as int32."""
        x = self.given(index)
        return x if _dtype(x) == "i32" else self.ops.convert(x, "i32")

    def ordered(self) -> tuple[Value, Value]:
        """Returns the two inputs as int32 in the order of the numbers that their bits stand for."""
        x, y = self.signed(0), self.signed(1)
        return (self.add(x, _TOP), self.add(y, _TOP)) if self.attribute("unsigned") else (x, y)

    def like(self, index: int, x: Value) -> Value:
        """Returns a result in the type of an input."""
        dtype = _dtype(self.given(index))
        return x if dtype == "i32" else self.ops.convert(x, dtype)

    def constant(self, value: int) -> Value:
        return self.ops.constant(np.int32(value))

    def add(self, x: Value, y: Value | int) -> Value:
        return self.ops.add(x, self._known(y))

    def subtract(self, x: Value, y: Value | int) -> Value:
        return self.ops.subtract(x, self._known(y))

    def multiply(self, x: Value, y: Value | int) -> Value:
        return self.ops.multiply(x, self._known(y))

    def both(self, x: Value, y: Value | int) -> Value:
        return self.ops.bitwise_and(x, self._known(y))

    def shifted(self, x: Value, places: int) -> Value:
        """Returns the bits of x, moved to the right. OpenVINO's own shift takes 40 times as long as an addition.

        A division in float32 is exact for the 24 highest bits, once the others are 0.
        """
        if places == 0:
            return x
        if 8 <= places <= 16:
            high = self.ops.divide(self.both(x, -(2**places)), self.constant(2**places))
            return self.both(high, 2 ** (32 - places) - 1)
        upper = self.shifted(x, 16)
        if places > 16:
            return self.ops.divide(upper, self.constant(2 ** (places - 16)))
        lower = self.ops.divide(self.both(x, 0xFFFF), self.constant(2**places))
        return self.add(self.multiply(upper, 2 ** (16 - places)), lower)

    def at_least(self, x: Value, y: Value) -> Value:
        """Returns whether x >= y. As floats, the two have the same order or are equal, and then they are close."""
        ops = self.ops
        close = ops.greater_equal(self.subtract(x, y), self.constant(0))
        return ops.logical_or(ops.greater(x, y), ops.logical_and(ops.equal(x, y), close))

    def selected(self, condition: Value, x: Value, y: Value) -> Value:
        mask = self.ops.subtract(self.constant(0), self.ops.convert(condition, "i32"))
        return self.ops.bitwise_xor(y, self.both(self.ops.bitwise_xor(x, y), mask))

    def divided(self, x: Value, y: Value) -> tuple[Value, Value]:
        """Returns the quotient of x and y, |y| < 2**20, rounded down, and the remainder.

        What the first quotient loses is small enough for floats. A product with an inverse may take the place of a
        division, so half a unit keeps quotients away from whole numbers.
        """
        ops, divisor = self.ops, self.ops.convert(y, "f32")
        rough = ops.convert(ops.divide(ops.convert(x, "f32"), divisor), "i32")
        lost = ops.convert(self.subtract(x, self.multiply(rough, y)), "f32")
        half = ops.multiply(ops.sign(divisor), ops.constant(np.float32(0.5)))
        whole = self.add(rough, ops.convert(ops.floor(ops.divide(ops.add(lost, half), divisor)), "i32"))
        return whole, self.subtract(x, self.multiply(whole, y))

    def _known(self, value: Value | int) -> Value:
        return self.constant(value) if isinstance(value, int) else value


def _bit_shift(make: _Maker) -> Value:
    x, places = make.signed(0), make.attribute("places")
    if make.attribute("direction") == "LEFT":
        return make.multiply(x, 2**places if places < 31 else _TOP)
    return make.shifted(x, places)


def _from_float(make: _Maker) -> Value:
    """Floats in [0, 2**32) as integers; the highest bit is taken off before."""
    ops, x = make.ops, make.given(0)
    half = ops.constant(2.0**31, x.get_element_type())
    top = ops.greater_equal(x, half)
    rest = ops.subtract(x, ops.multiply(ops.convert(top, _dtype(x)), half))
    return make.add(ops.convert(rest, "i32"), make.multiply(ops.convert(top, "i32"), _TOP))


def _to_float(make: _Maker) -> Value:
    """Unsigned integers as floats: each half is exact, and their sum is rounded once."""
    ops, x = make.ops, make.signed(0)
    low, high = (ops.convert(part, "f32") for part in (make.both(x, 0xFFFF), make.shifted(x, 16)))
    return ops.add(ops.multiply(high, ops.constant(np.float32(2**16))), low)


def _at_least(make: _Maker) -> Value:
    return make.at_least(*make.ordered())


def _at_most(make: _Maker) -> Value:
    x, y = make.ordered()
    return make.at_least(y, x)


def _less(make: _Maker) -> Value:
    return make.ops.logical_not(_at_least(make))


def _greater(make: _Maker) -> Value:
    return make.ops.logical_not(_at_most(make))


def _equal(make: _Maker) -> Value:
    return make.ops.equal(make.ops.bitwise_xor(make.signed(0), make.signed(1)), make.constant(0))


def _where(make: _Maker) -> Value:
    return make.like(1, make.selected(make.given(0), make.signed(1), make.signed(2)))


def _maximum(make: _Maker) -> Value:
    return make.like(0, make.selected(_at_least(make), make.signed(0), make.signed(1)))


def _minimum(make: _Maker) -> Value:
    return make.like(0, make.selected(_at_most(make), make.signed(0), make.signed(1)))


def _quotient(make: _Maker) -> Value:
    """The quotient, rounded towards 0."""
    ops, x, y, zero = make.ops, make.signed(0), make.signed(1), make.constant(0)
    whole, rest = make.divided(x, y)
    negative = ops.not_equal(ops.less(x, zero), ops.less(y, zero))
    up = ops.logical_and(negative, ops.not_equal(rest, zero))
    return make.like(0, make.add(whole, ops.convert(up, "i32")))


def _remainder(make: _Maker) -> Value:
    """The remainder with the sign of the divisor."""
    return make.like(0, make.divided(make.signed(0), make.signed(1))[1])


def _sum(make: _Maker) -> Value:
    """A sum that wraps around. Running sums are exact; the last of them is the sum."""
    ops, total, axes = make.ops, make.signed(0), np.array(make.attribute("axes"), np.int64)
    for axis in map(ops.constant, axes):
        total = ops.gather(ops.cum_sum(total, axis), ops.constant(np.array([-1])), axis)
    return make.like(0, total if make.attribute("keepdims") else ops.squeeze(total, ops.constant(axes)))


_EXACT: dict[str, Callable[[_Maker], Value]] = {
    "BitShift": _bit_shift,
    "Div": _quotient,
    "Equal": _equal,
    "FromFloat": _from_float,
    "Greater": _greater,
    "GreaterOrEqual": _at_least,
    "Less": _less,
    "LessOrEqual": _at_most,
    "Max": _maximum,
    "Min": _minimum,
    "Mod": _remainder,
    "ReduceSum": _sum,
    "ToFloat": _to_float,
    "Where": _where,
}


def conversions() -> dict[str, Callable[[Any], list[Value]]]:
    """Returns the conversions by the name of the marked operation, as `ConversionExtension` takes them."""

    def conversion(write: Callable[[_Maker], Value]) -> Callable[[Any], list[Value]]:
        return lambda node: list(write(_Maker(node)).outputs())

    return {name: conversion(write) for name, write in _EXACT.items()}


def _dtype(x: Value) -> str:
    return str(x.get_element_type().to_string())
