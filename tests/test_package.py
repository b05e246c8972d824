"""The package as it ships: wheel, sub-packages, public names, docstrings, README."""

import doctest
import importlib
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import dropzoo

ROOT = Path(__file__).parent.parent
FLOORS = ("layers", "models", "training", "serving")
MODULES = sorted(
    "dropzoo." + str(path.relative_to(root).with_suffix("")).replace(os.sep, ".")
    for root in (ROOT, ROOT / "src" / "dropzoo")
    for folder in (FLOORS if root == ROOT else (".",))
    for path in (root / folder).rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)


def test_the_wheel_of_the_sdist_imports_elsewhere(tmp_path):
    """Without the source: a fresh environment that borrows the dependencies only."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert len(list((tmp_path / "dist").glob("*.tar.gz"))) == 1
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    site = sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")})
    # `pip --python` installs into another environment; the dependencies come by path, their .pth files do not.
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    (Path(site) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    code = """
import dropzoo, dropzoo.layers, dropzoo.models, dropzoo.training, dropzoo.serving, dropzoo.cli.app
for module in (dropzoo, dropzoo.layers, dropzoo.models, dropzoo.training, dropzoo.serving):
    print(module.__file__)
print(dropzoo.models.build_model("unet", depth=1, filters=2, dropout="paper").name)
print(dropzoo.models.build_model("simple_cnn", weights="digits").name, *dropzoo.models.list_weights())
"""
    run = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    *files, name, weights = run.stdout.splitlines()
    assert all(file.startswith(str(site)) for file in files) and name == "unet"
    assert weights.split() == ["simple_cnn", *dropzoo.models.list_weights()] and len(weights.split()) > 2
    installed = Path(site) / "dropzoo"
    assert (installed / "py.typed").exists() and not (Path(site) / "tests").exists()


@pytest.mark.parametrize("name", ["dropzoo", *(f"dropzoo.{floor}" for floor in FLOORS)])
def test_public_names_exist(name):
    module = importlib.import_module(name)
    assert list(module.__all__) == sorted(module.__all__)
    for public in module.__all__:
        assert getattr(module, public).__doc__


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    if name.endswith(".ray"):
        pytest.importorskip("ray.serve", reason="needs the extra `ray`")
    globs = {"np": np, "tf": tf, "keras": keras, "dropzoo": dropzoo}
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, globs=vars(module) | globs, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.parametrize("page", ["README.md", "docs/training.md", "docs/uncertainty.md"])
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    assert blocks
    names: dict = {}  # one goes on from the other
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_readme_and_guide_name_what_there_is():
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme and "make test" in readme and len(readme.splitlines()) <= 150
    for plan in dropzoo.models.list_plans():
        assert f"`{plan}`" in readme
    for name in (*dropzoo.models.list_models(), *dropzoo.layers.list_layers()):
        assert f"`{name}`" in readme
    guide = (ROOT / "docs" / "choosing-a-layer.md").read_text()
    assert [name for name in dropzoo.layers.list_layers() if f"`{name}`" not in guide] == []


def test_readme_gives_the_sizes_of_the_guide():
    guide = (ROOT / "docs" / "models.md").read_text()
    sizes = {
        name: int(n.replace(",", "")) for name, n in re.findall(r"^\| `(\w+)` \|.*?\| ([\d,]+) \|", guide, re.M)
    }
    assert sizes.keys() == set(dropzoo.models.list_models())
    rows = re.findall(r"^\| (`.*?) \|[^|]*\| ([\d., ]+) \|[^|]+\|$", (ROOT / "README.md").read_text(), re.M)
    printed = {
        name: size for names, row in rows for name, size in zip(names.split(", "), row.split(", "), strict=True)
    }
    assert printed == {f"`{name}`": f"{size / 1e6:.2f}" for name, size in sizes.items()}
