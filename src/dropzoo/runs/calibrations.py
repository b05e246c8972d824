"""The calibration that belongs to a model on disk: a run, a `.keras` file, or a SavedModel."""

from pathlib import Path

from dropzoo import serving
from dropzoo.serving.calibration.calibration import holds_calibration

_NAME = "calibration.json"


def calibration_file(path: Path) -> Path:
    """Returns the path at which `dropzoo calibrate` keeps the calibration of a model.

    Args:
        path: Path of a run's folder, a `.keras` file, a SavedModel, or a folder of versions of one.

    Returns:
        `calibration.json` in the folder of a run or an ensemble, or beside the `model.keras` of a run;
        `NAME.calibration.json` beside another file `NAME.keras`; `assets.extra/calibration.json` in a SavedModel.
    """
    if (export := export_folder(path)) is not None:
        return export / "assets.extra" / _NAME
    if path.suffix == ".keras" and not path.is_dir():
        of_run = path.name == "model.keras" and not (path.parent / "ensemble.json").is_file()
        return path.with_name(_NAME if of_run else f"{path.stem}.{_NAME}")
    return path / _NAME


def keep_calibration(path: Path, calibration: serving.Calibration) -> None:
    """Writes the calibration of a model to `calibration_file(path)`, and also into a `.keras` file.

    The calibration then moves with the `.keras` file. If both exist, the file beside it counts.

    Args:
        path: Path of a run's folder, or of a `.keras` file.
        calibration: The calibration.
    """
    calibration.save(calibration_file(path))
    if _is_file(path):
        calibration.save(path)


def _is_file(path: Path) -> bool:
    return path.suffix == ".keras" and path.is_file()


def find_calibration(path: Path, wanted: bool = True) -> serving.Calibration | None:
    """Returns the calibration of a model, or None if it has none.

    Pass it to `MonteCarlo(model, calibration=...)` or `Ensemble(members, calibration=...)`, which check that it
    fits. A SavedModel answers by its calibration already; there the calibration says only what is promised.

    Args:
        path: Path of a run's folder, a `.keras` file, a SavedModel, or a folder of versions of one.
        wanted: Bool. False, the option `--no-calibration`, returns None.

    Raises:
        ValueError: If the file is not a calibration, or if a SavedModel that answers by a calibration should not
            do so.
    """
    file = calibration_file(path)
    if not file.is_file():  # a file that was moved has it inside
        return serving.Calibration.load(path) if wanted and _is_file(path) and holds_calibration(path) else None
    if wanted:
        return serving.Calibration.load(file)
    if export_folder(path) is not None:
        raise ValueError(
            f"The export {path} always uses the calibration that it was made with. Leave out --no-calibration, or "
            "export the run again with --no-calibration"
        )
    return None


def export_folder(path: Path) -> Path | None:
    """Returns the folder of a SavedModel: `path`, or its newest version; None if `path` is not a SavedModel."""
    if (path / "saved_model.pb").is_file():
        return path
    versions = [each.parent for each in path.glob("*/saved_model.pb") if each.parent.name.isdigit()]
    return max(versions, key=lambda version: int(version.name), default=None)
