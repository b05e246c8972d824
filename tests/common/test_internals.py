"""Private names of Keras and TensorFlow: each still exists, and nothing but its own module uses it."""

import ast
import functools
import importlib
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import pytest
import tensorflow as tf
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from dropzoo.common.keras_internals import shadowed_calls
from dropzoo.common.tensorflow_internals import codes_of_recompute_grad

ROOT = Path(__file__).parents[2]
INTERNALS = ROOT / "src" / "dropzoo" / "common"
HOMES = [
    importlib.import_module(f"dropzoo.common.{module.name}")
    for module in pkgutil.iter_modules([str(INTERNALS)])
    if module.name.endswith("_internals")
]
NAMES = [pytest.param(home, name, id=name) for home in HOMES for name in home.NAMES]


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


# Owners whose attributes only an instance has, and how to make one. The others are found by their dotted path.
EXAMPLES: dict[str, Callable[[], Any]] = {
    "keras.Model": small_model,
    "keras.Sequential": small_sequential,
    "keras.Layer": lambda: keras.layers.Dense(1),
    "keras.layers.Lambda": lambda: keras.layers.Lambda(lambda x: x),
    "keras.KerasTensor": masked,
    "keras.Optimizer": optimizer,
    "keras.optimizers.Adam": optimizer,
    "keras.Variable": lambda: keras.Variable(1.0),
    "keras.Metric": lambda: keras.metrics.MeanSquaredError(),
    "keras.src.ops.node.Node": node,
    "keras.src.ops.symbolic_arguments.SymbolicArguments": lambda: node().arguments,
    "tf.recompute_grad": lambda: SimpleNamespace(**{code.co_name: code for code in codes_of_recompute_grad()}),
    "CacheDataset": lambda: tf.data.Dataset.range(1).cache(),
    "": lambda: importlib.import_module("tensorflow.python.data.ops.snapshot_op"),
}


@pytest.mark.parametrize("home", HOMES)
def test_the_bounds_of_the_package_enclose_the_versions_that_were_seen(home):
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    package = home.__name__.rpartition(".")[2].removesuffix("_internals")
    bounds = SpecifierSet(re.search(rf'"{package}([><=][^"]*)"', text)[1])
    first, last = Version(home.FIRST_SEEN), Version(home.LAST_SEEN)
    assert first in bounds and last in bounds and Version(f"{first.major}.{first.minor - 1}.99") not in bounds


def find(owner: str) -> Any:
    """An example of an owner, or the module or class of this path."""
    if owner in EXAMPLES:
        return EXAMPLES[owner]()
    if owner in ("keras", "tf"):
        return {"keras": keras, "tf": tf}[owner]
    module, _, name = owner.rpartition(".")
    return getattr(find(module), name)


@pytest.mark.parametrize(("home", "name"), NAMES)
def test_every_private_name_still_exists(home, name):
    owner, _, attribute = name.rpartition(".")
    assert hasattr(find(owner), attribute), (
        f"{name} is gone from Keras {keras.__version__} or TensorFlow {tf.__version__}. "
        f"{home.__name__} needs it, see there: {home.NAMES[name]}"
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
    names = {name.rpartition(".")[2] for home in HOMES for name in home.NAMES}
    found = [
        f"{path.relative_to(ROOT)}:{line} uses {name}"
        for folder in ("layers", "models", "training", "serving", "src")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.parent != INTERNALS or not path.stem.endswith("_internals")
        for line, name in private_uses(path)
        if name in names or name.startswith(("keras.src", "tensorflow.python"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("home", HOMES)
def test_the_table_lists_the_private_names_of_its_module(home):
    """A name that is not in the table has no canary, and one that is used no more would cry for nothing."""
    listed = {name.rpartition(".")[2] for name in home.NAMES}
    used = {name for _, name in private_uses(Path(home.__file__)) if name.startswith("_")}
    assert used <= listed
    by_part_of_its_name = {"_SnapshotDataset"}
    assert {name for name in listed if name.startswith("_")} <= used | by_part_of_its_name


def test_shadows_are_taken_away_again():
    """One inside another, as when a function is traced while another samples the same model."""
    layer, x = keras.layers.Dense(2), tf.ones([1, 3])
    expected = layer(x)
    with pytest.raises(KeyError), shadowed_calls([(layer, lambda inputs: inputs)]):
        with shadowed_calls([(layer, lambda inputs: 2 * inputs)]):
            assert layer(x)[0, 0] == 2
        assert layer(x)[0, 0] == 1
        raise KeyError
    assert "call" not in vars(layer) and bool(tf.reduce_all(layer(x) == expected))
