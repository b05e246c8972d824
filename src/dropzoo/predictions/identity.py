"""What tells a model on the disk from another one, or from itself after it was trained or exported again."""

from pathlib import Path

_FILES = ("model.keras", "saved_model.pb", "variables/*", "assets.extra/*.json", "calibration.json")


def stamp_of(model: Path | None) -> list[list[int]]:
    """Returns the sizes and the times of the files of a model; empty for a model elsewhere.

    Args:
        model: Path of a run's folder, a `.keras` file, a SavedModel or a folder of versions; or None.
    """
    if model is None:
        return []
    if model.is_file():
        files = [model, model.with_name("calibration.json"), model.with_name(f"{model.stem}.calibration.json")]
    else:
        patterns = [*_FILES, *(f"*/{each}" for each in _FILES)]
        files = sorted({each for pattern in patterns for each in model.glob(pattern)})
    stats = [each.stat() for each in files if each.is_file()]
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]
