"""What is known of the images that a model takes, kept with the model and in its `.keras` file.

Keras writes the files of `save_assets`, which layers and models may define, into the `.keras` archive. It loads
the archive all the same into a model without `load_assets`.
"""

import dataclasses
import json
import warnings
import zipfile
from pathlib import Path

import keras

from dropzoo.common.pixels import Pixels, check_range
from dropzoo.models.graph.inputs import pixels_of

_FILE = "dropzoo_images.json"


def remember(model: keras.Model, pixels: Pixels) -> None:
    """Keeps a record of the images that a model takes; `model.save` writes it into the `.keras` file."""
    known = vars(model).get("save_assets")
    if isinstance(known, _Record):
        known.pixels = pixels
    else:
        model.save_assets = _Record(pixels, getattr(model, "save_assets", None))


def recorded(model: keras.Model) -> Pixels | None:
    """Returns the record that `remember` or `load_model` has kept with a model, or None."""
    known = vars(model).get("save_assets")
    return known.pixels if isinstance(known, _Record) else None


def taken_by(model: keras.Model, said: tuple[float, float] | None = None) -> Pixels:
    """Returns the images that a model of one input takes: as was said, or recorded, or as its graph shows.

    Where nothing is known, images in [0, 1] are assumed, and `source` is empty.

    Args:
        model: A model of one input.
        said: `(low, high)`, the argument `input_range` of the caller; None if nothing was said.

    Raises:
        ValueError: If the model was trained on images of another range than what was said.
    """
    shown, known = pixels_of(model), recorded(model)
    found = known or shown or Pixels()
    if said is None or check_range(said) == found.range and found.source:
        return found
    low, high = check_range(said)
    if known is not None:
        raise ValueError(
            f"The model was trained on pixels from {known.words}. Received: input_range={said!r}. Leave it out"
        )
    if shown is not None:
        warnings.warn(
            f"The model takes pixels from {shown.words}, but you say input_range={said!r}, which is taken. Leave it "
            "out unless the model was trained on such images",
            stacklevel=3,
        )
    bits = {255.0: 8}.get(high, 16 if high > 255 else None)
    return dataclasses.replace(found, low=low, high=high, bits=bits, source="the argument `input_range`")


def read_record(path: Path) -> Pixels | None:
    """Returns the record in a `.keras` file, or None if the file has none."""
    with zipfile.ZipFile(path) as archive:
        if f"assets/{_FILE}" not in archive.namelist():
            return None
        return Pixels(**json.loads(archive.read(f"assets/{_FILE}")))


def load_model(path: Path) -> keras.Model:
    """Loads a `.keras` file as Keras does, and keeps its record with the model."""
    model = keras.models.load_model(path)
    if (pixels := read_record(path)) is not None:
        remember(model, pixels)
    return model


class _Record:
    """The `save_assets` of a model that has a record: it writes the record beside the model's own files."""

    def __init__(self, pixels: Pixels, own: object) -> None:
        self.pixels, self._own = pixels, own

    def __call__(self, folder: str) -> None:
        if callable(self._own):
            self._own(folder)
        (Path(folder) / _FILE).write_text(json.dumps(dataclasses.asdict(self.pixels)))
