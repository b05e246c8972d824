"""The images behind a name: those of a folder, of an embedded data set, or of one of TFDS."""

import dataclasses
import os
from pathlib import Path

from dropzoo.training.data.files.listing import has_images
from dropzoo.training.data.files.table import Reading
from dropzoo.training.data.folders import read_folder
from dropzoo.training.data.pipeline import Source
from dropzoo.training.data.tfds import is_known, read_tfds


def read_source(
    name: str | os.PathLike,
    reading: Reading,
    seed: int,
    data_dir: str | os.PathLike | None,
    manual_dir: str | os.PathLike | None,
) -> Source:
    """Reads a folder, or a data set of TFDS."""
    if folder := find_folder(name):
        if data_dir or manual_dir:
            raise ValueError(
                f"`data_dir` and `manual_dir` are only for TFDS names. Received one of them with the folder {name}"
            )
        return read_folder(folder, reading)
    for field in dataclasses.fields(Reading):
        value = getattr(reading, field.name)
        if field.name not in ("validation_split", "num_channels") and value != field.default:
            raise ValueError(
                f"`{field.name}` is for folders of files. Received: {field.name}={value!r} with the data set "
                f"{os.fspath(name)!r}. For a folder of this name, pass ./{os.fspath(name)}"
            )
    directories = (None if d is None else os.path.expanduser(d) for d in (data_dir, manual_dir))
    return read_tfds(os.fspath(name), reading.validation_split, seed, *directories)


def find_folder(name: str | os.PathLike) -> Path | None:
    """Returns the folder to which a name refers, or None for the name of a data set.

    If the name is a path, the folder need not exist. If TFDS knows the name of a folder, the folder is used only
    if it holds image files, as `cifar10/train` does; a folder that TFDS has prepared holds none.
    """
    text = os.fspath(name)
    # A file is not a data set either; `read_layout` says what to pass in its place.
    is_path = isinstance(name, os.PathLike) or text.startswith(("~", ".")) or os.path.isfile(text)
    if not is_path and os.path.isdir(text):
        is_path = not is_known(text) or has_images(Path(text))
    is_path = is_path or (any(sign in text for sign in ("/", os.sep)) and not is_known(text))
    return Path(name).expanduser() if is_path else None
