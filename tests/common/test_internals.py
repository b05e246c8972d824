"""Private names of Keras and TensorFlow: each still exists, and nothing but its own module uses it."""

import ast
import functools
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

ROOT = Path(__file__).parents[2]
INTERNALS = ROOT / "src" / "dropzoo" / "common"
HOMES = [
    importlib.import_module(f"dropzoo.common.{module.name}")
    for module in pkgutil.iter_modules([str(INTERNALS)])
    if module.name.endswith("_internals")
]
NAMES = [
    pytest.param(home, private, id=f"{private.owner}.{private.name}") for home in HOMES for private in home.NAMES
]


def small_model() -> keras.Model:
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    return model


def small_sequential() -> keras.Model:
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def optimizer() -> keras.Optimizer:
    adam = keras.optimizers.AdamW()
    adam.exclude_from_weight_decay(var_names=["bias"])
    adam.build([keras.Variable([1.0])])
    return adam


def masked() -> Any:
    """What carries a mask: the output of a layer that makes one."""
    return keras.layers.Masking()(tf.zeros([1, 2, 3]))


def node() -> Any:
    return small_model().layers[1]._inbound_nodes[0]


# Attributes that only an instance has: how to make one. The other owners are found by their dotted path.
EXAMPLES: dict[str, Callable[[], Any]] = {
    "keras.Model": small_model,
    "keras.Sequential": small_sequential,
    "keras.Layer": lambda: keras.layers.Dense(1),
    "keras.layers.Lambda": lambda: keras.layers.Lambda(lambda x: x),
    "keras.KerasTensor": masked,
    "keras.Optimizer": optimizer,
    "keras.src.ops.node.Node": node,
    "keras.src.ops.symbolic_arguments.SymbolicArguments": lambda: node().arguments,
}


def find(owner: str) -> Any:
    """An example of an owner, or the module or class of this path."""
    if owner in EXAMPLES:
        return EXAMPLES[owner]()
    try:
        return importlib.import_module(owner)
    except ModuleNotFoundError:
        module, _, name = owner.rpartition(".")
        return getattr(find(module), name)


@pytest.mark.parametrize(("home", "private"), NAMES)
def test_every_private_name_still_exists(home, private):
    assert hasattr(find(private.owner), private.name), (
        f"{private.owner}.{private.name} is gone; last seen in version {home.LAST_SEEN}. "
        f"{home.__name__} needs it in: {private.used_by}"
    )


@functools.cache
def private_uses(path: Path) -> list[tuple[int, str]]:
    """The private attributes that a module reads off others, and its imports of private packages, with lines."""
    found = []
    for element in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(element, ast.Attribute)
            and element.attr.startswith("_")
            and not element.attr.startswith("__")
        ):
            if not (isinstance(element.value, ast.Name) and element.value.id in ("self", "cls")):
                found.append((element.lineno, element.attr))
        elif isinstance(element, (ast.Import, ast.ImportFrom)):
            modules = [getattr(element, "module", None) or "", *(alias.name for alias in element.names)]
            found += [(element.lineno, m) for m in modules if m.startswith(("keras.src", "tensorflow.python"))]
        elif isinstance(element, ast.Call) and getattr(element.func, "id", "") in (
            "getattr",
            "hasattr",
            "setattr",
        ):
            asked = element.args[1]
            if isinstance(asked, ast.Constant) and str(asked.value).startswith("_"):
                found.append((element.lineno, str(asked.value)))
    return found


def test_private_names_stay_in_their_modules():
    names = {private.name for home in HOMES for private in home.NAMES}
    found = [
        f"{path.relative_to(ROOT)}:{line} uses {name}"
        for folder in ("layers", "models", "training", "serving", "src")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.parent != INTERNALS or not path.stem.endswith("_internals")
        for line, name in private_uses(path)
        if name in names or name.startswith(("keras.src", "tensorflow.python"))
    ]
    assert found == []


def test_every_name_of_the_table_is_used():
    """A name that is replaced by a public one must leave the table too, or the canary cries for nothing."""
    for home in HOMES:
        text = Path(str(home.__file__)).read_text()
        for private in home.NAMES:
            used = f".{private.name}" in text or f"import {private.name}" in text or "by way of" in private.used_by
            assert used or f'"{private.name}"' in text.partition("\n)\n")[2], private
