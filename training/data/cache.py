"""Keeps decoded examples: in memory, in a file on disk, or not at all."""

import dataclasses
import hashlib
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from dropzoo.common.checks import check_choice
from dropzoo.training.data.pipeline import Read, Split, as_written

#: The values of `cache`.
CACHES = ("auto", "memory", "disk", "none")
#: With `"auto"`, the most bytes of decoded examples that stay in memory: of a TFDS set, and of a folder.
MOST_IN_MEMORY = 2**29
MOST_OF_FILES = 2**27
_CHUNK = 2**26


def check_cache(cache: bool | str) -> str:
    """Returns one of `CACHES`; True means "memory" and False "none"."""
    if isinstance(cache, bool):
        return "memory" if cache else "none"
    return check_choice(cache, "cache", CACHES)


def size_of(split: Split | None) -> float:
    """Returns the bytes of the decoded examples; infinity if their sizes differ and are not known."""
    if split is None:
        return 0
    sizes = [
        math.prod(spec.shape) * spec.dtype.size if spec.shape.is_fully_defined() else math.inf
        for spec in split.examples.element_spec
    ]
    return split.count * sum(sizes)


def keep(split: Split, cache: str, name: str) -> Split:
    """Returns a split whose examples are decoded once, here.

    Args:
        split: The examples, as they are stored.
        cache: `"memory"`, `"disk"` or `"none"`.
        name: Str. Text that is the same for the same files and sizes; it names the file on disk.

    Raises:
        ValueError: If images of several sizes are to be kept on disk.
    """
    if cache == "none" or not split.count:
        return split
    specs = split.examples.element_spec
    if not all(spec.shape.is_fully_defined() for spec in specs):
        if cache == "disk":
            raise ValueError(
                "`cache='disk'` (--cache disk) needs images of one size. Pass `image_size=(height, width)` "
                "(--image-size), or cache='memory' or 'none' (--cache)"
            )
        # It is filled here, because a cache that is iterated only half-way is too short later, and so is one that
        # several iterators fill at once, as under a strategy.
        stored = split.examples.cache()
        stored.reduce(tf.constant(0), lambda total, *_: total)
        return dataclasses.replace(split, examples=stored, in_memory=True)
    if cache == "disk":
        return _on_disk(split, name)
    tensors = [tf.constant(array) for array in _filled(split, [_empty(split, spec) for spec in specs])]

    def gather(places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.gather(tensors[0], places), tf.gather(tensors[1], places)

    return _gathered(split, gather)


def _empty(split: Split, spec: tf.TensorSpec) -> np.ndarray:
    return np.empty((split.count, *spec.shape), spec.dtype.as_numpy_dtype)


def _filled(split: Split, arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Decodes all examples into arrays."""
    size = max(1, int(_CHUNK * split.count // max(size_of(split), 1)))
    start = 0
    for batch in split.examples.batch(min(size, 1024)).prefetch(1):
        stop = start + len(batch[0])
        for array, part in zip(arrays, batch, strict=True):
            array[start:stop] = part.numpy()
        start = stop
    return arrays


def _gathered(split: Split, gather: Read) -> Split:
    gather = as_written(gather)
    examples = tf.data.Dataset.range(split.count).map(gather, num_parallel_calls=tf.data.AUTOTUNE)
    return dataclasses.replace(split, examples=examples, read=gather, gather=gather, in_memory=True)


def _write(split: Split, paths: list[Path]) -> None:
    """Writes the examples of a split to two files and closes them, because Windows renames no open file."""
    arrays = [
        np.lib.format.open_memmap(
            path, mode="w+", dtype=spec.dtype.as_numpy_dtype, shape=(split.count, *spec.shape)
        )
        for path, spec in zip(paths, split.examples.element_spec, strict=True)
    ]
    _filled(split, arrays)
    for array in arrays:
        array.flush()


def _on_disk(split: Split, name: str) -> Split:
    """Returns a split whose examples are in two files in the temporary folder, which later runs find again."""
    specs = split.examples.element_spec
    folder = Path(os.environ.get("DROPZOO_CACHE", Path(tempfile.gettempdir()) / "dropzoo-cache"))
    key = hashlib.sha256(f"{name} {split.count} {specs}".encode()).hexdigest()[:24]
    paths = [folder / f"{key}.{part}.npy" for part in ("images", "labels")]
    if not all(path.exists() for path in paths):
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = [path.with_suffix(f".{os.getpid()}.unfinished") for path in paths]
        try:
            _write(split, unfinished)
            for path, target in zip(unfinished, paths, strict=True):
                if not target.exists():  # another process may have been faster, and may read it
                    os.replace(path, target)
        finally:
            for path in unfinished:
                path.unlink(missing_ok=True)
    stored = [np.load(path, mmap_mode="r") for path in paths]

    def load(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.ascontiguousarray(stored[0][places]), np.ascontiguousarray(stored[1][places])

    def gather(places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = tf.numpy_function(load, [places], [spec.dtype for spec in specs], stateful=False)
        for tensor, spec in zip(found, specs, strict=True):
            tensor.set_shape(places.shape.concatenate(spec.shape))
        return found[0], found[1]

    return dataclasses.replace(_gathered(split, gather), in_memory=False)
