"""Docstrings in one dialect: every public name says what it takes, returns and raises."""

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

NAMESPACES = ("layers", "models", "predictions", "serving", "sweep", "training")
PUBLIC = {
    f"{namespace}.{name}": getattr(importlib.import_module(f"dropzoo.{namespace}"), name)
    for namespace in NAMESPACES
    for name in importlib.import_module(f"dropzoo.{namespace}").__all__
}
BUILT = {name: thing for name, thing in PUBLIC.items() if callable(thing)}


def methods() -> dict[str, Callable[..., Any]]:
    """The public functions, and the methods of public classes; one that overrides another has its docstring."""
    found = {}
    for name, thing in BUILT.items():
        if not inspect.isclass(thing):
            found[name] = thing
            continue
        for attribute, function in vars(thing).items():
            is_ours = inspect.isfunction(function) and not attribute.startswith("_")
            if is_ours and not any(hasattr(base, attribute) for base in thing.__mro__[1:]):
                found[f"{name}.{attribute}"] = function
    return found


def parameters(thing: Callable[..., Any]) -> list[str]:
    known = inspect.signature(thing).parameters
    return [name for name in known if name not in ("self", "cls")]


def described(text: str) -> set[str]:
    """The arguments that the sections `Args` and `Attributes` describe: `name: Type. Meaning.`"""
    names: set[str] = set()
    for section in re.findall(r"^(?:Args|Attributes|Call arguments):\n((?:[ \t]+.*\n?|\n)+)", text, re.M):
        for line in re.findall(r"^    (\w+(?:, \w+)*)(?: \([^)]*\))?:", section, re.M):
            names |= set(line.split(", "))
    return names


@pytest.mark.parametrize("name", PUBLIC)
def test_the_summary_is_one_plain_line(name):
    text = inspect.getdoc(PUBLIC[name]) or ""
    summary, _, rest = text.partition("\n")
    assert summary.endswith((".", ":")) and (not rest or rest.startswith("\n")), summary
    assert not re.match(r"(Of|What|Whoever|Where|How|Whether) ", summary), summary


@pytest.mark.parametrize("name", BUILT)
def test_every_argument_is_described(name):
    thing = BUILT[name]
    missing = set(parameters(thing)) - described(inspect.getdoc(thing) or "") - {"name"}
    if inspect.isclass(thing):
        missing -= described(inspect.getdoc(thing.__init__) or "")
    assert missing == set(), f"{name} does not describe {sorted(missing)}"


@pytest.mark.parametrize("name", methods())
def test_what_a_function_returns_is_said(name):
    function = methods()[name]
    text = inspect.getdoc(function) or ""
    assert text, f"{name} has no docstring"
    returned = inspect.signature(function).return_annotation
    says = "Returns:" in text or "Yields:" in text or re.match(r"Returns? ", text)
    assert returned in (None, "None", inspect.Signature.empty) or says, f"{name} does not say what it returns"
    if len(parameters(function)) > 1 and "." in name.partition(".")[2]:
        assert set(parameters(function)) <= described(text), f"{name} does not describe all of its arguments"


def test_an_argument_of_a_space_is_described_once():
    """The settings come from `Settings`; `epochs` has a text of its own, since its default differs."""
    text = inspect.getdoc(PUBLIC["sweep.Space"]) or ""
    names = [name for line in re.findall(r"^    (\w+(?:, \w+)*):", text, re.M) for name in line.split(", ")]
    assert sorted(names) == sorted([*parameters(PUBLIC["sweep.Space"]), "ValueError"])
    assert inspect.signature(PUBLIC["sweep.Space"]).parameters["epochs"].default == 30
