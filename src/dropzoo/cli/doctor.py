"""`dropzoo doctor`: what a bug report needs."""

import importlib.metadata
import json
import os
import platform
import shutil
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from dropzoo.cli.console import console

#: Packages that provide the same module as another package, and replace it.
_SAME = {"tensorflow": "tensorflow-cpu", "keras": "keras-nightly"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Prints the versions, devices, extras and known problems of this installation, for bug reports.

    The exit status is 1 if there is a problem.

    Example: dropzoo doctor --json
    """
    required, extras = requirements()
    found: dict[str, Any] = {
        "system": {"python": platform.python_version(), "platform": platform.platform(), "cpus": os.cpu_count()},
        "packages": {name: version_of(name) for name in ("dropzoo", *required)},
        "extras": {name: missing(wanted) for name, wanted in extras.items()},
        **_tensorflow(),
    }
    found["problems"] = problems(required, found)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _show(found)
    if found["problems"]:
        raise typer.Exit(1)


def requirements() -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Returns the required packages, such as `"ray[tune]"`, with their versions, and the same for each extra."""
    from packaging.requirements import Requirement

    required: dict[str, str] = {}
    extras: dict[str, dict[str, str]] = {}
    for line in importlib.metadata.requires("dropzoo") or ():
        wanted = Requirement(line)
        extra = line.partition("extra ==")[2].strip(" '\"") if "extra ==" in line else ""
        if wanted.name != "dropzoo" and (wanted.marker is None or wanted.marker.evaluate({"extra": extra})):
            name = wanted.name + (f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else "")
            (extras.setdefault(extra, {}) if extra else required)[name] = str(wanted.specifier)
    return required, extras


def version_of(name: str) -> str | None:
    """Returns the version of an installed package, or of a package that replaces it, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return version_of(_SAME[name]) if name in _SAME else None


def installed(name: str) -> bool:
    """Whether a package of exactly this name is installed."""
    return any(True for _ in importlib.metadata.distributions(name=name))


def missing(wanted: dict[str, str]) -> list[str]:
    """Returns those packages that are not installed in a version that is wanted, as pip takes them."""
    return [name + versions for name, versions in wanted.items() if not _is_met(name + versions)]


def _is_met(requirement: str) -> bool:
    """Whether a package is installed in a version that is wanted, with what its own extras need."""
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    version = version_of(wanted.name)
    if version is None or not wanted.specifier.contains(version, prereleases=True):
        return False
    holder = wanted.name if installed(wanted.name) else _SAME.get(wanted.name, wanted.name)
    for line in (importlib.metadata.requires(holder) or ()) if wanted.extras else ():
        marker = Requirement(line).marker
        if marker is None or marker.evaluate({"extra": ""}):
            continue  # needed without the extras too
        if any(marker.evaluate({"extra": extra}) for extra in wanted.extras):
            if not _is_met(line.partition(";")[0].strip()):
                return False
    return True


def problems(required: dict[str, str], found: dict[str, Any]) -> list[str]:
    """Returns the known problems, with what to do about each."""
    said = [f"{each} is required, but {_have(each)}: pip install '{each}'" for each in missing(required)]
    if found["error"]:
        said.append(f"TensorFlow cannot be used: {found['error']}")
    if found["backend"] not in (None, "tensorflow"):
        said.append(
            f"Keras runs on {found['backend']}: layers, models, retrofit and RateSchedule work; training.Trainer, "
            "serving and the commands need KERAS_BACKEND=tensorflow"
        )
    if os.environ.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true"):
        said.append(
            "TF_USE_LEGACY_KERAS is set, so tf.keras is Keras 2, which dropzoo refuses: unset this variable"
        )
    if shutil.which("nvidia-smi") and not any("GPU" in each for each in found["devices"]):
        said.append("An NVIDIA driver is installed, but TensorFlow sees no GPU: pip install '.[gpu]'")
    for name, other in _SAME.items():
        if installed(name) and installed(other):
            said.append(f"{name} and {other} are both installed, in one folder: uninstall both and install one")
    return said


def _have(requirement: str) -> str:
    from packaging.requirements import Requirement

    version = version_of(Requirement(requirement).name)
    return f"version {version} is installed" if version else "it is not installed"


def _tensorflow() -> dict[str, Any]:
    """Returns the devices and the backend; an import that fails becomes an error to print."""
    try:
        import keras
        import tensorflow as tf

        devices = [f"{each.device_type} {each.name}" for each in tf.config.list_physical_devices()]
        details = {"backend": keras.backend.backend(), "policy": keras.config.dtype_policy().name}
        return {"devices": devices, **details, "error": None}
    except Exception as error:  # a broken installation raises anything, and is what this command is for
        return {"devices": [], "backend": None, "policy": None, "error": f"{type(error).__name__}: {error}"}


def _show(found: dict[str, Any]) -> None:
    table = Table("what", "found", show_header=False)
    for name, value in found["system"].items():
        table.add_row(name, escape(str(value)))
    for name, version in found["packages"].items():
        table.add_row(name, version or "not installed")
    table.add_row("Keras backend, policy", f"{found['backend']}, {found['policy']}")
    table.add_row("devices", escape(", ".join(found["devices"])) or "none")
    for name, lacking in found["extras"].items():
        table.add_row(f"extra {name}", escape(f"not installed: {', '.join(lacking)}") if lacking else "installed")
    console.print(table)
    for each in found["problems"] or ["No problem found."]:
        console.print(escape(each), soft_wrap=True)
