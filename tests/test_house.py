"""The house: which package may import which, what is private, what ships, and that types are checked."""

import ast
import graphlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FLOORS = ("layers", "models", "training", "serving")
FOLDERS = {"dropzoo": ROOT / "src" / "dropzoo"} | {f"dropzoo.{floor}": ROOT / floor for floor in FLOORS}

# What each room may import of dropzoo besides itself. Rooms of src/dropzoo that are not listed may use all.
MAY_USE = {
    "common": (),
    "layers": ("common",),
    "models": ("common", "layers"),
    "training": ("common", "layers", "models"),
    "serving": ("common", "layers", "models"),
    "runs": ("common", *FLOORS),
    "pages": ("common", *FLOORS, "runs"),
}

# What a room within `serving` may import of the others. Those that are not listed may use all.
MAY_USE_IN_SERVING = {
    "calibration": (),
    "montecarlo": ("calibration",),
    "calibration.fitting": ("calibration", "montecarlo"),
    "export": ("calibration", "montecarlo"),
}

# These modules of the floors below `training` may import TensorFlow.
NEED_TENSORFLOW = ("dropzoo.layers.draws.xla", "dropzoo.layers.draws.samples")


def modules() -> Iterator[tuple[str, Path]]:
    """The full name and the file of each module of the product; a package has the name of its folder."""
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *(part for part in parts if part != "__init__"))), path


def imports(path: Path) -> Iterator[str]:
    """The full names of what a module imports of dropzoo, also inside functions and by `from dropzoo import x`."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = imported(node)
        yield from (name for name in names if name.split(".")[0] == "dropzoo" and name != "dropzoo.__version__")


def imported(node: ast.AST) -> list[str]:
    """The full names of what a statement imports; none if it is no import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def room(name: str) -> str:
    """`dropzoo.layers.draws.xla` is in the room `layers`."""
    return (name.split(".") + [""])[1]


def test_every_folder_of_code_is_a_listed_package():
    """An unlisted sub-package can be imported where the source is, and is missing from the wheel.

    The reference models are listed too, since their files ship as data.
    """
    on_disk = {
        ".".join((package, *path.parent.relative_to(folder).parts))
        for package, folder in FOLDERS.items()
        for path in folder.rglob("*.py")
    }
    references = {f"dropzoo.saved_models.{p.parent.name}" for p in ROOT.glob("saved_models/*/reference.json")}
    assert on_disk | references == set(PYPROJECT["tool"]["setuptools"]["packages"])
    assert all((folder / "__init__.py").exists() for folder in FOLDERS.values())


def test_the_type_checker_sees_every_room():
    """`typing_root` shows mypy the package as it installs; an entry that is missing would be checked as Any."""
    links = {path.name: path.resolve() for path in (ROOT / "typing_root" / "dropzoo").iterdir()}
    rooms = [p for p in (ROOT / "src" / "dropzoo").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    assert links == {path.name: path.resolve() for path in [*rooms, *(ROOT / floor for floor in FLOORS)]}


def test_a_wrong_call_across_two_packages_is_reported(tmp_path):
    """In a copy of the tree, so that unresolved imports and Any would hide it there as here."""
    for name in ("src", *FLOORS, "typing_root", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name, **({"symlinks": True} if (ROOT / name).is_dir() else {}))
    (tmp_path / "layers" / "planted.py").write_text("def double(x: int) -> int:\n    return 2 * x\n")
    caller = (
        "from dropzoo.layers.planted import double\nfrom dropzoo.nothing import x\n\nbad: str = double('text')\n"
    )
    (tmp_path / "src" / "dropzoo" / "common" / "planted.py").write_text(caller)
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache")]
    command += ["-m", "dropzoo.common.planted", "--follow-imports=silent"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert 'incompatible type "str"; expected "int"' in run.stdout, run.stdout + run.stderr
    assert '"int", variable has type "str"' in run.stdout and '"dropzoo.nothing"' in run.stdout


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("name", MAY_USE)
def test_arrows_run_one_way(name):
    allowed = (name, *MAY_USE[name])
    found = [
        f"{module} imports {used}"
        for module, path in modules()
        if room(module) == name
        for used in imports(path)
        if room(used) not in allowed
    ]
    assert found == []


@pytest.mark.parametrize("name", MAY_USE_IN_SERVING)
def test_arrows_run_one_way_within_serving(name):
    rooms = {module for module, path in modules() if path.name == "__init__.py"}

    def room_of(used: str) -> str:
        while used not in rooms:
            used = used.rpartition(".")[0]
        return used.removeprefix("dropzoo.serving.")

    here = {module: path for module, path in modules() if room_of(module) == name and path.name != "__init__.py"}
    others = [
        (module, room_of(used)) for module, path in here.items() for used in imports(path) if ".serving." in used
    ]
    assert (
        here
        and [each for each in others if each[1] not in (name, "dropzoo.serving", *MAY_USE_IN_SERVING[name])] == []
    )


def test_no_module_imports_itself_through_others():
    """Not even for the type checker alone: two files that need each other are one subject, or share a third."""
    files = dict(modules())
    uses = {
        module: {used if used in files else used.rpartition(".")[0] for used in imports(path)} & files.keys()
        for module, path in files.items()
    }
    graphlib.TopologicalSorter({module: used - {module} for module, used in uses.items()}).prepare()


def test_no_module_imports_a_private_one_of_another_package():
    """`_name.py` and names that begin with `_` belong to the folder that they are in."""
    found = []
    for module, path in modules():
        home = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for used in imports(path):
            parts = used.split(".")
            private = [i for i, part in enumerate(parts) if part.startswith("_") and not part.startswith("__")]
            if private and ".".join(parts[: private[0]]) not in (home, module):
                found.append(f"{module} imports {used}")
    assert found == []


@pytest.mark.parametrize("floor", ["common", "layers", "models"])
def test_layers_and_models_need_no_tensorflow(floor):
    """They run on every Keras backend; modules that import TensorFlow are imported inside functions only."""
    found = [
        f"{module} imports {name}"
        for module, path in modules()
        if room(module) == floor and module not in NEED_TENSORFLOW
        for node in ast.parse(path.read_text()).body  # what runs at import
        for name in imported(node)
        if name.startswith(("tensorflow", *NEED_TENSORFLOW))
    ]
    assert found == []
