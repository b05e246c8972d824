"""Argument checks whose errors have one form: what was expected, what came, what to do.

Keras is imported in the checks that need it. The command line uses the others, and answers without Keras.
"""

import ast
import difflib
import math
import numbers
import re
from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")

_KERAS_2 = ("tf_keras.", "keras.engine.", "keras.src.engine.", "tensorflow.python.keras.")


def did_you_mean(name: object, available: Iterable[str]) -> str:
    """Returns " Did you mean 'x' or 'y'?" for a name that does not exist, or "" if no name is close to it."""
    names = list(available)
    near = (
        difflib.get_close_matches(str(name), names, n=3) or [n for n in names if str(name) and str(name) in n][:3]
    )
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def unknown(kind: str, name: object, available: Iterable[str], aliases: Iterable[str] = ()) -> ValueError:
    """Returns the error for an unknown name, with the closest names that exist.

    Args:
        kind: Str, such as `"layer"`.
        name: The unknown name.
        available: The names that exist.
        aliases: Other names that are accepted. The error may suggest them, but does not list them.

    Returns:
        A ValueError to raise. It lists at most 50 names.
    """
    names = sorted(available)
    hint = did_you_mean(name, sorted({*names, *aliases}))
    more = f", ... ({len(names)} in all)" if len(names) > 50 else ""  # the sites of a large network
    return ValueError(f"Unknown {kind} {str(name)!r}.{hint} Available: {', '.join(names[:50]) or 'none'}{more}")


def check_rate(rate: Any, name: str = "rate") -> float:
    """Returns a rate as a float in [0, 1).

    At a rate of 1 every unit is dropped, and the scale `1 / (1 - rate)` does not exist. A rate of `1 - 2**-25` or
    more becomes 1 in float32, the type in which the layers compute.

    Args:
        rate: The value to check.
        name: Str. Name of the argument, for the error.

    Returns:
        A float. A NumPy float is read as its shortest decimal, so that `np.float32(0.3)` gives 0.3.

    Raises:
        ValueError: If `rate` is not a number in [0, 1), or becomes 1 in float32.
    """
    is_number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
    if not is_number or math.isnan(rate) or not 0 <= rate < 1 - 2**-25:
        raise ValueError(f"`{name}` must be a number in [0, 1), the fraction to drop. Received: {name}={rate!r}")
    # A NumPy float knows its type, and a Python float has none: NumPy need not be imported to tell them apart.
    return float(str(rate)) if hasattr(rate, "dtype") else float(rate)


def check_count(value: Any, name: str) -> int:
    """Returns `value` as an int if it is a positive integer; otherwise raises a ValueError."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or int(value) < 1:
        raise ValueError(f"`{name}` must be a positive int. Received: {name}={value!r}")
    return int(value)


def check_positive(value: Any, name: str) -> float:
    """Returns `value` unchanged if it is a finite number above 0; otherwise raises a ValueError."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise ValueError(f"`{name}` must be a positive number. Received: {name}={value!r}")
    return value


def check_tensorflow(what: str) -> None:
    """Raises a RuntimeError if Keras does not run on TensorFlow, which a part of the package needs."""
    import keras

    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            f"{what} needs Keras' TensorFlow backend. Received: {backend!r}. Save the model, and load it in a "
            "process with KERAS_BACKEND=tensorflow; layers, models, retrofit and RateSchedule work on any backend."
        )


def check_seed(value: Any, name: str = "seed") -> int:
    """Returns `value` as an int if it is an integer in [0, 2**32); otherwise raises a ValueError."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not 0 <= int(value) < 2**32:
        raise ValueError(f"`{name}` must be an int in [0, 2**32). Received: {name}={value!r}")
    return int(value)


def check_choice(value: T, name: str, choices: Iterable[T]) -> T:
    """Returns `value` if it is one of `choices`; otherwise raises a ValueError that lists them."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}")
    return value


def check_pair(value: Any, name: str) -> tuple[int, int]:
    """Returns a positive int or a pair of them as a pair `(height, width)`; otherwise raises a ValueError."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    try:
        height, width = (check_count(size, name) for size in pair)
    except ValueError:  # also from a tuple of another length
        message = f"`{name}` must be a positive int or a pair of them. Received: {name}={value!r}"
        raise ValueError(message) from None
    return height, width


def check_data_format(data_format: str | None) -> str:
    """Returns `data_format`, or Keras' global setting if it is None; raises a ValueError for other values."""
    import keras

    data_format = data_format or keras.config.image_data_format()
    return check_choice(data_format, "data_format", ("channels_last", "channels_first"))


def check_keras_model(model: Any, name: str = "model") -> None:
    """Raises a ValueError if `model` is not a model of Keras 3; the error names its type and says what to do.

    Args:
        model: The argument to check.
        name: Str. Name of the argument, for the error.
    """
    import keras

    if isinstance(model, keras.Model):
        return
    homes = [f"{cls.__module__}." for cls in type(model).__mro__]
    if any(home.startswith(_KERAS_2) for home in homes):
        raise ValueError(
            f"`{name}` is a model of Keras 2 ({homes[0].partition('.')[0]}), and dropzoo works with Keras 3. "
            "Save it in Keras 2 as an HDF5 file, model.save('model.h5'), and load that file in Keras 3: "
            f"keras.saving.load_model('model.h5', compile=False). Received: {type(model)}"
        )
    if isinstance(model, type) and issubclass(model, keras.Model):
        raise ValueError(
            f"`{name}` must be a keras.Model, not a class. Call the class to create a model. Received: {model}"
        )
    raise ValueError(f"`{name}` must be a keras.Model. Received: {type(model)}")


def snake_case(name: str) -> str:
    """Returns the default name that Keras gives to a layer of a class: `drop_block2d` for `DropBlock2D`."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def parse_spec(spec: str, form: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Splits a spec like `"name:0.1,option=value"` into a name and the arguments of a call.

    Args:
        spec: Str. Values are Python literals; bare words are strings.
        form: Str. The expected form, for the error.

    Returns:
        The name, a tuple of positional arguments and a dict of keyword arguments.

    Raises:
        ValueError: If `spec` does not have this form.
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


def is_same_definition(old: Any, new: Any) -> bool:
    """Returns whether two classes or functions are one, or one that is defined again, as in a notebook."""
    return (new.__module__, new.__qualname__) == (old.__module__, old.__qualname__)
