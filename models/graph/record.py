"""A record of the images that a model takes, kept with the model and in its `.keras` file.

Keras writes the files of `save_assets`, which layers and models may define, into the `.keras` archive, and calls
`load_assets` when it loads one. Keras' own models define neither. This module gives `keras.Model` a `load_assets`
that reads the record, so that `keras.models.load_model` keeps it too; a class with a `load_assets` of its own uses
that. Without this package, Keras loads the same file and leaves the record out.
"""

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import keras

from dropzoo.common.archives import read_member
from dropzoo.common.checks import unknown
from dropzoo.common.images import channels_first
from dropzoo.common.pixels import Pixels, check_range
from dropzoo.models.graph.inputs import input_pixels, pixels_of
from dropzoo.models.graph.order import channels_first_inputs

_FILE = "dropzoo_images.json"
#: The type of the argument `input_range`: a range for all images, or a dict of ranges by the name of the input.
Ranges = tuple[float, float] | Mapping[str, tuple[float, float]] | None


def remember(model: keras.Model, pixels: Pixels) -> None:
    """Keeps a record of the images that a model takes; `model.save` writes it into the `.keras` file."""
    known = vars(model).get("save_assets")
    if isinstance(known, _Record):
        known.pixels = pixels
    else:
        model.save_assets = _Record(pixels, getattr(model, "save_assets", None))


@contextlib.contextmanager
def remembering(model: keras.Model, pixels: Pixels) -> Iterator[None]:
    """Keeps a record for the block, as `remember` does, and then restores the record from before, if any."""
    before = recorded(model)
    remember(model, pixels)
    try:
        yield
    finally:
        if before is not None:
            remember(model, before)
        else:
            del model.save_assets


def recorded(model: keras.Model) -> Pixels | None:
    """Returns the record that `remember` or `load_model` has kept with a model, or None."""
    known = vars(model).get("save_assets")
    return known.pixels if isinstance(known, _Record) else None


def taken_by(model: keras.Model, said: tuple[float, float] | None = None) -> Pixels:
    """Returns the images that a model of one input takes, by its record, by `said`, or by its graph.

    If nothing is known, the range is assumed to be [0, 1], and `source` is empty.

    Args:
        model: A model of one input.
        said: `(low, high)`, the argument `input_range` of the caller, or None.

    Raises:
        ValueError: If the record has a range other than `said`.
    """
    shown, known = pixels_of(model), recorded(model)
    if known is not None and not known.from_files and said is not None:
        known = None
    if known is not None and said is not None and check_range(said) != known.range:
        raise ValueError(
            f"The model takes pixels from {known.words}. Received: input_range={said!r}. Leave `input_range` out"
        )
    return _with_order(known or _settled(shown, said), model, 0)


def _settled(shown: Pixels | None, said: tuple[float, float] | None) -> Pixels:
    """Returns the images that an input takes, by `said`, by the graph, or as assumed."""
    found = shown or Pixels()
    if said is None or (shown is not None and check_range(said) == shown.range):
        return found
    low, high = check_range(said)
    if shown is not None:
        warnings.warn(
            f"The model takes pixels from {shown.words}. Received: input_range={said!r}, which is used "
            "anyway. Leave `input_range` (--input-range) out unless the model was trained on images in this range",
            stacklevel=4,
        )
    return found.of_range(low, high)


def taken_by_each(
    model: keras.Model, shapes: Mapping[str, Sequence[int | None]], said: Ranges = None
) -> list[Pixels | None]:
    """Returns the images that each input of a model takes, as `taken_by` does; None for other inputs.

    An image has at least three axes besides the batch.

    Args:
        model: A model.
        shapes: Dict from the names of the inputs to their shapes, with the batch, in the model's order.
        said: `(low, high)` for all images, or a dict of such pairs by the name of the input, or None.

    Raises:
        ValueError: If `said` names an input that is not an image, if no input is an image, or as `taken_by` does.
    """
    images = [name for name, shape in shapes.items() if len(shape) > 3]
    named = dict(said) if isinstance(said, Mapping) else dict.fromkeys(images, said)
    if not images and said is not None:
        raise ValueError(f"`input_range` is only for models that take images. Received: input_range={said!r}")
    for name in named:
        if name not in images:
            raise unknown("image input in `input_range`:", name, images)
    if len(shapes) == 1:
        return [taken_by(model, named.get(images[0]))] if images else [None]
    shown = list(input_pixels(model).values())
    found: list[Pixels | None] = []
    for i, name in enumerate(shapes):
        known = shown[i] if len(shown) == len(shapes) else None
        found.append(_with_order(_settled(known, named.get(name)), model, i) if name in images else None)
    return found


def _with_order(pixels: Pixels, model: keras.Model, i: int) -> Pixels:
    """Returns the images of input `i`, with the axis of their channels if their shape suggests a different one."""
    said = channels_first_inputs(model)
    if len(said) <= i or said[i] == channels_first(model.inputs[i].shape):
        return pixels
    channels = pixels.channels and model.inputs[i].shape[1 if said[i] else -1]
    return dataclasses.replace(pixels, first=said[i], channels=channels)


def read_record(path: Path) -> Pixels | None:
    """Returns the record in a `.keras` file, or None if the file has none."""
    text = read_member(path, f"assets/{_FILE}")
    return None if text is None else Pixels(**json.loads(text))


def load_model(path: Path, compile: bool = True) -> keras.Model:
    """Loads a `.keras` file as Keras does, and keeps its record, even if the model loads its assets itself.

    Args:
        path: Path of the file.
        compile: Bool, whether to compile the model as it was when it was saved.
    """
    model = keras.models.load_model(path, compile=compile)
    if (pixels := read_record(path)) is not None:
        remember(model, pixels)
    return model


def _load_assets(model: keras.Model, folder: str | None) -> None:
    """The `load_assets` of Keras' models: keeps the record that the folder holds, if it holds one.

    A base class that comes after `keras.Model`, such as a mixin, still loads its own assets.
    """
    if folder is not None and (file := Path(folder) / _FILE).is_file():
        remember(model, Pixels(**json.loads(file.read_text(encoding="utf-8"))))
    own = getattr(super(keras.Model, model), "load_assets", None)
    if callable(own):
        own(folder)


if not hasattr(keras.Model, "load_assets"):
    keras.Model.load_assets = _load_assets


class _Record:
    """The `save_assets` of a model that has a record: it writes the record beside the model's own files."""

    def __init__(self, pixels: Pixels, own: object) -> None:
        self.pixels, self._own = pixels, own

    def __call__(self, folder: str) -> None:
        if callable(self._own):
            self._own(folder)
        (Path(folder) / _FILE).write_text(json.dumps(dataclasses.asdict(self.pixels)), encoding="utf-8")
