"""The checks of the arguments of `export_model`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from dropzoo.common.checks import check_pair, unknown
from dropzoo.common.images import sides_of
from dropzoo.common.pixels import Pixels
from dropzoo.common.words import count_of
from dropzoo.serving.montecarlo.outputs import Output

#: The names of the classes, labels or values, as `export_model` takes them: a list for a single output, or a dict.
ClassNames = Sequence[str] | Mapping[str, Sequence[str]] | None


def check_samples(num_samples: int, sampling: str, seed: int) -> None:
    """Raises a ValueError if the arguments for the samples are bad or do not go together."""
    if not isinstance(num_samples, int) or num_samples < 0:
        raise ValueError(f"`num_samples` must be an int of at least 0. Received: num_samples={num_samples!r}")
    if not num_samples and (sampling, seed) != ("fixed", 0):
        raise ValueError(
            "`sampling` and `seed` are for Monte-Carlo samples, but num_samples=0 asks for none. "
            f"Received: sampling={sampling!r}, seed={seed!r}"
        )


def check_resize(
    specs: Mapping[str, tf.TensorSpec], pixels: Sequence[Pixels | None], resize: int | tuple[int, int] | None
) -> tuple[int, int] | None:
    """Returns `resize` as a pair, or None; raises a ValueError if the model takes no images of this size.

    Args:
        specs: The shape of each input, with the batch, by its name.
        pixels: The images that each input takes; None for inputs that are not images.
        resize: The argument of `export_model`.
    """
    if resize is None:
        return None
    size = check_pair(resize, "resize")
    pairs = zip(specs.values(), pixels, strict=True)
    images = [(tuple(spec.shape), each or Pixels()) for spec, each in pairs if len(spec.shape) == 4]
    if not images:
        shapes = ", ".join(str(tuple(spec.shape)) for spec in specs.values())
        raise ValueError(f"`resize` needs a model of images. Received: a model with the input {shapes}")
    for shape, each in images:
        sides = sides_of(shape, each.channels_first(shape))
        if any(n not in (None, wanted) for n, wanted in zip(sides, size, strict=True)):
            raise ValueError(f"`resize` must be the model's size, {sides}. Received: resize={resize!r}")
    return size


def check_names(outputs: Sequence[Output], class_names: ClassNames) -> list[list[str] | None]:
    """Returns the names of the classes, labels or values of each output; None for an output without names."""
    if class_names is None:
        return [None] * len(outputs)
    if isinstance(class_names, Mapping):
        names = [output.name for output in outputs]
        if wrong := [name for name in class_names if name not in names]:
            raise unknown("output in `class_names`", wrong[0], names)
        return [_names_of(output, class_names.get(output.name)) for output in outputs]
    if len(outputs) > 1:
        raise ValueError(
            "For a model with several outputs, `class_names` must be a dict with a list for each output. "
            f"Received: class_names={class_names!r} for {', '.join(output.name for output in outputs)}"
        )
    return [_names_of(outputs[0], class_names)]


def _names_of(output: Output, names: Sequence[str] | None) -> list[str] | None:
    if names is None:
        return None
    if isinstance(names, str):
        raise ValueError(f"`class_names` must be a list of names. Received: class_names={names!r}")
    count = output.shape[-1]
    if count == 1 and output.kind in ("multi_class", "binary"):  # one unit tells two classes apart
        count = 2
    if count is not None and len(names) != count:
        raise ValueError(f"`class_names` must have {count_of(count, 'name')}. Received: {len(names)}")
    return list(map(str, names))


def check_path(path: Path, overwrite: bool) -> Path:
    """Returns the folder of the version to write; it has the next free number if the path has no number."""
    if path.is_symlink() or path.is_file():
        raise ValueError(f"{path} is a file or a link, so an export cannot replace it; choose another path")
    if not path.name.isdigit():
        if overwrite:
            raise ValueError(f"overwrite=True needs the path of the version to replace, such as {path / '1'}")
        taken = [int(p.name) for p in path.iterdir() if p.name.isdigit()] if path.exists() else []
        return path / str(max(taken, default=0) + 1)
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists already; choose another version, or pass overwrite=True")
    if path.exists() and any(path.iterdir()) and not (path / "saved_model.pb").is_file():
        raise ValueError(
            f"{path} holds no export (there is no saved_model.pb in it), so overwrite=True would delete other "
            "files: choose another version, or move the folder away"
        )
    return path
