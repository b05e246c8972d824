"""Reads the values of options as the API takes them."""

import ast
import math
import os
import re
from pathlib import Path
from typing import Any

import typer


def data_name(data: str) -> str:
    """Returns a name for results on a data set: the name of the set or of its folder, even if that is ".".

    The version of a set, as in `cifar10:3.0.2`, follows a hyphen: names of files may have no colon on Windows.
    """
    return Path(os.path.abspath(data)).name.replace(":", "-")


def parse_augment(value: str | None) -> bool | str:
    """Reads `--augment` as `load_data` takes it: False for nothing or "none", True for "yes", else the text."""
    return {None: False, "none": False, "yes": True}.get(value, value or False)


def parse_size(value: str) -> int | tuple[int, int]:
    """Reads `--image-size` as `load_data` takes it: a number, or height and width, as in 360x480."""
    numbers = re.fullmatch(r"[(\[]?\s*(\d+)\s*(?:[x,]\s*(\d+)\s*)?[)\]]?", value)
    if numbers is None or not all(int(each) for each in numbers.groups() if each):
        raise typer.BadParameter(
            f"expected pixels, such as 256, or height and width, such as 360x480. Received: {value!r}"
        )
    height, width = numbers.groups()
    return int(height) if width is None else (int(height), int(width))


def parse_path(value: str) -> Path:
    """Reads a path of images; an empty one would mean the current folder."""
    if not value:
        raise typer.BadParameter(
            "expected a file, a folder or a pattern. Received an empty text, as from a variable that is not set. "
            "For the current folder, pass a dot"
        )
    return Path(value)


def parse_values(value: str) -> tuple[float, float]:
    """Reads `--value-range` as `load_data` takes it: a pair of numbers."""
    try:
        return _pair(value)
    except ValueError:
        raise typer.BadParameter(
            f"expected the values to read as black and as white, such as -1000,2000. Received: {value!r}"
        ) from None


def parse_range(value: str | None) -> tuple[float, float] | None:
    """Reads `--input-range` as `export_model` takes it: a pair of numbers, or None."""
    if value is None:
        return None
    try:
        return _pair(value)
    except ValueError:
        raise ValueError(
            f"--input-range must be the values of a black and of a white pixel, such as 0,255. Received: {value!r}"
        ) from None


def parse_dropout(values: list[str] | None, option: str = "--dropout") -> Any:
    """Reads `--dropout` as `build_model` takes it: None, a rate, a plan's name, or a dict of patterns.

    Args:
        values: The values of the option, or None.
        option: "--dropout"; or "--plan", whose parts are the values.
    """
    if not values:
        return None
    if len(values) == 1 and "=" not in values[0]:
        return _number(values[0])
    return _by_pattern(option, "pattern=spec", values)


def parse_rate_schedule(values: list[str] | None) -> dict[str, Any] | None:
    """Reads `--rate-schedule` as `RateSchedule` takes it: a dict of patterns, or None."""
    if not values:
        return None
    if len(values) == 1 and "=" not in values[0].partition(":")[0]:  # after the colon it sets an option
        return {"*": _number(values[0])}
    return _by_pattern("--rate-schedule", "pattern=schedule", values)


def parse_options(values: list[str] | None) -> dict[str, Any]:
    """Reads `--option name=value`, where the value is a Python literal or a bare word."""
    options: dict[str, Any] = {}
    for value in values or ():
        name, equals, literal = value.partition("=")
        if not equals:
            raise ValueError(f'--option must be "name=value". Received: {value!r}')
        try:
            options[name.strip()] = ast.literal_eval(literal.strip())
        except (ValueError, SyntaxError):
            options[name.strip()] = literal.strip()
    return options


def parse_resources(values: list[str] | None) -> dict[str, float] | None:
    """Reads `--resource name=amount` as a dict of amounts; None if there is no such option."""
    found = {}
    for value in values or ():
        name, _, amount = value.partition("=")
        number = _number(amount)
        if not name or not isinstance(number, float) or not 0 <= number < math.inf:
            raise ValueError(f'--resource must be "name=amount", as in "cpu=2". Received: {value!r}')
        found[name.strip()] = number
    return found or None


def _pair(text: str) -> tuple[float, float]:
    from dropzoo.common.pixels import check_range  # which imports NumPy

    low, _, high = text.strip("()[] ").partition(",")
    return check_range((float(low), float(high)))


def _by_pattern(option: str, form: str, values: list[str]) -> dict[str, Any]:
    plan: dict[str, Any] = {}
    for value in values:
        pattern, equals, spec = value.partition("=")
        if not equals or not pattern or not spec:
            several = "has several parts" if option == "--plan" else "is passed several times"
            rule = f"If {option} {several}, each must be" if len(values) > 1 else f"{option} must be"
            raise ValueError(f'{rule} "{form}". Received: {value!r}')
        plan[pattern] = None if spec == "none" else _number(spec)
    return plan


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
