"""The identity of a model on the disk, which changes when the model is trained or exported again."""

import hashlib
from pathlib import Path

_FILES = ("model.keras", "saved_model.pb", "variables/*", "assets.extra/*.json", "calibration.json")


def digest_of(model: Path) -> str:
    """Returns a digest of the content of a model's files, which stays when they are copied.

    Args:
        model: Path as for `stamp_of`.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in _files(model):
        whole = hashlib.blake2b()
        with open(file, "rb") as opened:
            while part := opened.read(2**20):
                whole.update(part)
        digest.update(whole.digest())
    return digest.hexdigest()


def stamp_of(model: Path) -> list[list[int]]:
    """Returns the sizes and the times of the files of a model.

    Args:
        model: Path of a run's folder, a `.keras` file, a SavedModel or a folder of versions.
    """
    stats = [each.stat() for each in _files(model)]
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]


def _files(model: Path) -> list[Path]:
    """The files that an answer of the model depends on."""
    if model.is_file():
        files = [model, model.with_name("calibration.json"), model.with_name(f"{model.stem}.calibration.json")]
    else:
        patterns = [*_FILES, *(f"*/{each}" for each in _FILES)]
        files = sorted({each for pattern in patterns for each in model.glob(pattern)})
    return [each for each in files if each.is_file() and each.name != "measurements.json"]
