"""The package as it ships: wheel, sub-packages, public names, docstrings, README."""

import doctest
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

import dropzoo
from dropzoo import models, training
from dropzoo.layers import _registry
from dropzoo.models import registry

ROOT = Path(__file__).parent.parent
FLOORS = ("layers", "models", "training", "serving")
MODULES = sorted(
    "dropzoo." + str(path.relative_to(root).with_suffix("")).replace(os.sep, ".")
    for root in (ROOT, ROOT / "src" / "dropzoo")
    for folder in (FLOORS if root == ROOT else (".",))
    for path in (root / folder).rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def shipped() -> dict[str, str]:
    """Each file on disk that belongs to the package: its place in the source, and the one in the wheel."""
    folders = {"src/dropzoo": "dropzoo"} | {floor: f"dropzoo/{floor}" for floor in FLOORS}
    found = {
        path: f"{inside}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in folders.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for card in ROOT.glob("saved_models/*/reference.json"):
        for path in (card, card.with_name("model.keras")):
            found[path] = f"dropzoo/{path.relative_to(ROOT).as_posix()}"
    return {path.relative_to(ROOT).as_posix(): inside for path, inside in found.items()}


def test_wheel_and_sdist_hold_every_file_of_the_package_and_no_other(built):
    """Modules of all rooms, src/ included, `py.typed`, the pages, and the reference models."""
    sdist, wheel = built
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if not name.partition("/")[0].endswith(".dist-info")}
        scripts = next(name for name in file.namelist() if name.endswith("entry_points.txt"))
        assert b"dropzoo = dropzoo.cli.app:main" in file.read(scripts)
    assert names == set(shipped().values())
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert set(shipped()) <= names


def test_the_wheel_works_elsewhere(built, tmp_path):
    """Without the source: its files come first on the path, and the dependencies are borrowed."""
    with zipfile.ZipFile(built[1]) as file:
        file.extractall(tmp_path / "site")
    code = """
import dropzoo, dropzoo.layers, dropzoo.models, dropzoo.training, dropzoo.serving, dropzoo.cli.app
for module in (dropzoo, dropzoo.layers, dropzoo.models, dropzoo.training, dropzoo.serving):
    print(module.__file__)
print(dropzoo.models.build_model("unet", depth=1, filters=2, dropout="paper").name)
print(dropzoo.models.build_model("simple_cnn", weights="digits").name, *dropzoo.models.list_weights())
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    *files, name, weights = run.stdout.splitlines()
    assert all(file.startswith(str(tmp_path / "site")) for file in files) and name == "unet"
    assert weights.split() == ["simple_cnn", *dropzoo.models.list_weights()] and len(weights.split()) > 2


def test_files_of_compiled_models_load_in_a_new_process(tmp_path):
    """Keras looks for the loss and the metrics among the registered names; the command line imports less."""
    model = models.build_model("unet", input_shape=(8, 8, 1), num_classes=2, depth=1, filters=2)
    model.compile("sgd", training.DiceCrossEntropy(), [training.MeanIoU(2)])
    model.save(tmp_path / "m.keras")
    for command in (
        ["-c", "import dropzoo, keras; print(*dropzoo.models.list_sites(keras.models.load_model('m.keras')))"],
        ["-m", "dropzoo.cli", "sites", "m.keras"],
    ):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0 and "bottleneck_conv1" in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["dropzoo", *(f"dropzoo.{floor}" for floor in FLOORS)])
def test_public_names_exist(name):
    module = importlib.import_module(name)
    assert list(module.__all__) == sorted(module.__all__)
    for public in module.__all__:
        assert getattr(module, public).__doc__


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    if name.endswith(".ray"):
        pytest.importorskip("ray.serve", reason="needs the extra `ray`")
    if name in ("dropzoo.layers.draws.jax", "dropzoo.layers.draws.torch"):
        pytest.importorskip(name.rpartition(".")[2], reason="needs the extra `backends`")
    globs = {"np": np, "tf": tf, "keras": keras, "dropzoo": dropzoo}
    module = importlib.import_module(name)
    # Examples may register layers and models, which the other tests must not see.
    with mock.patch.dict(_registry._LAYERS), mock.patch.dict(registry._MODELS):
        failed, _ = doctest.testmod(module, globs=vars(module) | globs, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize("page", ["training", "uncertainty", "guarantees", "predictions"])
def test_examples_in_guides_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_examples(f"docs/{page}.md")


def test_examples_in_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_examples("README.md")


def run_examples(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    assert blocks
    names: dict = {}  # one goes on from the other
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_the_readme_is_short_and_names_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme and "make test" in readme and len(readme.splitlines()) <= 120


@pytest.fixture(scope="module")
def tables():
    """The script docs/tables.py."""
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STALE = "a table is not that of the code: run python docs/tables.py"
# Their rows take seconds. A model of the same family is compared each time.
LARGE = (
    "densenet_bc_100_12",
    "fc_densenet103",
    "fc_densenet67",
    "resnet110",
    "resnet44",
    "resnet56",
    "vgg16",
    "vgg19",
)


def test_the_tables_of_layers_and_plans_are_those_of_the_code(tables):
    for path, content in ((tables.CHOOSING, tables.of_layers()), (tables.MODELS, tables.of_plans())):
        assert path.read_text() == tables.filled(path.read_text(), content), STALE
    models_table = tables.MODELS.read_text().partition("<!-- table: models -->")[2]
    assert re.findall(r"^\| `(\w+)` \|", models_table, re.M) == dropzoo.models.list_models(), STALE


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in dropzoo.models.list_models()]
)
def test_the_table_of_models_is_that_of_the_code(tables, name):
    assert tables.model_row(name) in tables.MODELS.read_text().splitlines(), STALE
