"""Argument checks with one form of error message: what was expected, what came, what to do."""

import ast
import difflib
import math
import numbers
import re
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np


def did_you_mean(name: object, available: Iterable[str]) -> str:
    """Returns " Did you mean 'x' or 'y'?" for a name that does not exist, or nothing if no name is close to it."""
    near = difflib.get_close_matches(str(name), list(available), n=3)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def unknown(kind: str, name: object, available: Iterable[str]) -> ValueError:
    """The error for a name that does not exist, with the nearest ones that do."""
    names = sorted(available)
    hint = did_you_mean(name, names)
    more = f", ... ({len(names)} in all)" if len(names) > 50 else ""  # the sites of a large network
    return ValueError(f"Unknown {kind} {str(name)!r}.{hint} Available: {', '.join(names[:50])}{more}")


def check_rate(rate: Any, name: str = "rate") -> float:
    """`rate` as a float in [0, 1): at 1 everything is dropped and the scale 1 / (1 - rate) does not exist.

    Above 1 - 2**-25 it would be 1 as a float32, which the layers compute in.
    """
    is_number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
    if not is_number or math.isnan(rate) or not 0 <= rate < 1 - 2**-25:
        raise ValueError(f"`{name}` must be a number in [0, 1), the fraction to drop. Received: {name}={rate!r}")
    return float(str(rate)) if isinstance(rate, np.floating) else float(rate)  # NumPy's float32 of 0.3 is 0.3


def check_count(value: Any, name: str) -> int:
    """Returns a positive int, or raises a ValueError that names the argument."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or int(value) < 1:
        raise ValueError(f"`{name}` must be a positive int. Received: {name}={value!r}")
    return int(value)


def check_positive(value: Any, name: str) -> float:
    """Returns a finite number above 0, or raises a ValueError that names the argument."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(f"`{name}` must be a positive number. Received: {name}={value!r}")
    return value  # type: ignore[return-value]  # as it was given: configs keep ints


def check_seed(value: Any, name: str = "seed") -> int:
    """Returns an int in [0, 2**32), or raises a ValueError that names the argument."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not 0 <= int(value) < 2**32:
        raise ValueError(f"`{name}` must be an int in [0, 2**32). Received: {name}={value!r}")
    return int(value)


def check_choice(value: Any, name: str, choices: Iterable[Any]) -> Any:
    """Returns `value` if it is one of `choices`, or raises a ValueError that lists them."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}")
    return value


def check_pair(value: Any, name: str) -> tuple[int, int]:
    """A positive int, or a pair of them, as a pair `(height, width)`."""
    pair = (value, value) if isinstance(value, int) else value
    ok = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(n, int) and n > 0 for n in pair)
    if not ok or isinstance(value, bool):
        raise ValueError(f"`{name}` must be a positive int or a pair of them. Received: {name}={value!r}")
    return pair[0], pair[1]


def check_data_format(data_format: str | None) -> str:
    """`data_format`, or Keras' global default."""
    data_format = data_format or keras.config.image_data_format()
    return check_choice(data_format, "data_format", ("channels_last", "channels_first"))


def snake_case(name: str) -> str:
    """As Keras names layers: DropBlock2D is drop_block2d."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def parse_spec(spec: str, form: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Text like "name:0.1,option=value" as a name and the arguments of a call; bare words are strings.

    `form` is what the error says was expected.
    """
    name, _, arguments = spec.partition(":")

    def value(node: ast.expr) -> Any:
        return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)

    try:
        call = ast.parse(f"_({arguments})", mode="eval").body
        if not isinstance(call, ast.Call):
            raise SyntaxError
        return name.strip(), tuple(map(value, call.args)), {str(k.arg): value(k.value) for k in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(f'Expected "{form}". Received: {spec!r}') from None
