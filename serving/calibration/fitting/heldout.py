"""Held-out images and labels, which are checked once, split in two by their content, and read batch by batch."""

import hashlib
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from dropzoo.serving.calibration.fitting.forms import Pairs
from dropzoo.serving.calibration.temperature import is_coins

VOID = -1
"""The label of positions that do not count."""
_VALUES = 1 << 24  # at most this many numbers in the samples of a batch


class Batch(NamedTuple):
    """A batch of held-out images.

    Attributes:
        inputs: The inputs of the model: an array with the batch axis first, or a structure of such arrays.
        labels: Int array `(batch, positions)`; `(batch, positions, labels)` for several labels; float array
            `(batch, positions, outputs)` for regression. An image with one answer has one position. Positions that
            do not count are `VOID`.
        keys: Uint64 array `(batch,)`, a number for the content of each image.
    """

    inputs: Any
    labels: np.ndarray
    keys: np.ndarray


class HeldOut:
    """Held-out images with their labels.

    Args:
        pairs: The images and labels, as `pairs_of` returns them: the same ones each time, in any order.
        kind: The output kind.
        output_shape: The shape of the model's output, with the batch.
        ignore_class: Int, the label of positions that do not count; None if all count. An image without any other
            label is left out.

    Raises:
        ValueError: If there are no images, they do not fit the labels, or the labels do not fit the output.
    """

    def __init__(
        self,
        pairs: Pairs,
        kind: str,
        output_shape: tuple[int | None, ...],
        ignore_class: int | None = None,
    ) -> None:
        self._pairs, self._kind, self._output_shape, self._ignored = pairs, kind, output_shape, ignore_class
        self.classes = 1 if kind == "regression" else output_shape[-1] or 1
        self.keys = np.zeros(0, np.uint64)
        self._holds = np.zeros((0, self.classes), bool)

    def scan(self) -> None:
        """Reads everything once, checks the labels, and notes which images hold each class."""
        keys, holds = [], []
        for batch in self._read():
            keys.append(batch.keys)
            if self._kind != "regression":
                each = [truth_of(batch.labels, k, self.classes).any(1) for k in range(self.classes)]
                holds.append(np.stack(each, 1))
        if not keys or not sum(map(len, keys)):
            raise ValueError("Calibration needs held-out images. Received: none")
        self.keys = np.concatenate(keys)
        self._holds = np.concatenate(holds) if holds else np.ones((len(self.keys), self.classes), bool)

    def split(self, share: float, seed: int) -> tuple[set[int], set[int]]:
        """Returns the keys of a share of the images, chosen by their content, and those of the others.

        Args:
            share: Float in [0, 1].
            seed: Int.
        """
        distinct = np.unique(self.keys)
        mixed = np.random.default_rng(seed).permutation(len(distinct))
        count = max(round(share * len(distinct)), 1 if share else 0)  # nothing can be fitted on no image
        chosen = distinct[mixed]
        return set(chosen[:count].tolist()), set(chosen[count:].tolist())

    def count(self, part: Collection[int]) -> int:
        """Returns the number of images in a part; copies of an image are in the same part."""
        return int(np.isin(self.keys, np.fromiter(part, np.uint64, len(part))).sum())

    def images_with(self, k: int, part: Collection[int] | None = None) -> int:
        """Returns the number of images that hold a class, in a part or in all.

        Args:
            k: Int, the number of the class in the output.
            part: Keys of images; None for all.
        """
        here = slice(None) if part is None else np.isin(self.keys, np.fromiter(part, np.uint64, len(part)))
        return int(self._holds[here, k].sum())

    def batches(self, part: Collection[int], values: int) -> Iterator[Batch]:
        """Yields the images of a part, in batches whose samples fit in memory.

        Args:
            part: Keys of images.
            values: Int above 0, how many numbers the predictor returns for each position.

        Raises:
            ValueError: If the images are not those that were read first.
        """
        chosen, known = np.fromiter(part, np.uint64, len(part)), np.unique(self.keys)
        for batch in self._read():
            if not np.isin(batch.keys, known).all():
                raise ValueError(
                    "The dataset must give the same images each time it is read: no random augmentation, and no "
                    "random crops"
                )
            rows = np.flatnonzero(np.isin(batch.keys, chosen))
            most = max(1, _VALUES // (values * batch.labels.shape[1]))
            for first in range(0, len(rows), most):
                some = rows[first : first + most]
                inputs = keras.tree.map_structure(lambda x, some=some: x[some], batch.inputs)
                yield Batch(inputs, batch.labels[some], batch.keys[some])

    def _read(self) -> Iterator[Batch]:
        """Yields all images in the order in which they come."""
        seen = 0
        for inputs, labels in self._pairs():
            arrays = keras.tree.map_structure(np.asarray, inputs)
            flat, count = keras.tree.flatten(arrays), len(labels)
            if any(len(x) != count for x in flat):
                raise ValueError(f"Each image needs one label. Received: {len(flat[0])} images, {count} labels")
            checked = check_labels(np.asarray(labels), self._kind, self._output_shape, seen, self._ignored)
            seen += count
            keys = np.array([_key(x[i] for x in flat) for i in range(count)], np.uint64)
            if self._ignored is not None and not (some := (checked != VOID).any(1)).all():
                arrays, checked = keras.tree.map_structure(lambda x, some=some: x[some], arrays), checked[some]
                keys = keys[some]
            yield Batch(arrays, checked, keys)


def truth_of(labels: np.ndarray, k: int, classes: int) -> np.ndarray:
    """Returns the positions of a class as a bool array `(batch, positions)`.

    Args:
        labels: Labels as in `Batch`, not of a regression.
        k: Int, the number of the class in the output.
        classes: Int, the number of outputs. A single output is about the second of two classes.
    """
    if labels.ndim == 3:
        return labels[..., k] == 1
    return labels == (1 if classes == 1 else k)


def check_labels(
    labels: np.ndarray,
    kind: str,
    output_shape: tuple[int | None, ...],
    first: int = 0,
    ignore_class: int | None = None,
) -> np.ndarray:
    """Returns labels in the form that `Batch` describes, or raises a ValueError if they do not fit the output.

    Args:
        labels: Array with the batch first.
        kind: The output kind.
        output_shape: The shape of the model's output, with the batch.
        first: Int, how many images came before these, for the error.
        ignore_class: Int, the label of positions that do not count, which become `VOID`; None if all count.
    """
    classes, middle = output_shape[-1], output_shape[1:-1]
    if (
        labels.shape[1:]
        and labels.shape[-1] == 1
        and len(labels.shape) == len(output_shape)
        and kind != "regression"
    ):
        labels = labels[..., 0] if kind != "multi_label" or classes != 1 else labels
    each = kind in ("multi_label", "regression")
    if not each and len(labels.shape) == len(output_shape) and (classes or 1) > 1 and labels.shape[-1] == classes:
        labels = _of_one_hot(labels)
    if kind == "regression" and labels.ndim == len(output_shape) - 1 and classes == 1:
        labels = labels[..., None]
    wanted = (*middle, classes) if each else middle
    fits = labels.ndim == len(wanted) + 1 and all(
        n in (None, m) for n, m in zip(wanted, labels.shape[1:], strict=True)
    )
    if not fits:
        what = {"multi_label": "0 or 1 for each label", "regression": "a value for each output"}
        shape = ", ".join(["images", *("any" if n is None else str(n) for n in wanted)])
        raise ValueError(
            f"`labels` must be {what.get(kind, 'the number of a class')}, of the shape ({shape}). "
            f"Received: the shape {labels.shape}"
        )
    if not np.isfinite(labels).all():
        raise ValueError("`labels` must be finite. Received: NaN or infinity")
    if kind == "regression":
        return labels.reshape(len(labels), -1, classes or 1).astype(np.float64)
    whole = np.rint(labels).astype(np.int64)
    void = np.zeros(whole.shape, bool) if ignore_class is None else whole == ignore_class
    top = 2 if is_coins(kind, classes or 1) else classes or 1
    bad = ((whole < 0) | (whole >= top) | (whole != labels)) & ~void
    whole[void] = VOID
    if bad.any():
        image = first + int(np.flatnonzero(bad.reshape(len(bad), -1).any(1))[0])
        received = f"Received: {labels[bad].ravel()[0]} for image {image}"
        if each:
            raise ValueError(f"`labels` must be 0 or 1 for each of the {classes} labels. {received}")
        raise ValueError(
            f"`labels` must be whole numbers from 0 to {top - 1}, because the model has {top} classes. "
            f"{received}. If pixels of this label do not count, pass it as `ignore_class`"
        )
    return whole.reshape(len(whole), -1, classes or 1) if each else whole.reshape(len(whole), -1)


def _of_one_hot(labels: np.ndarray) -> np.ndarray:
    """Returns the numbers of the classes of one-hot labels; raises a ValueError for labels of another form."""
    fits = np.isin(labels, (0, 1)).all(-1) & (labels.sum(-1) == 1)
    if not fits.all():
        raise ValueError(
            "`labels` must be the numbers of classes, or one-hot: 1 for one class and 0 for the others. Received: "
            f"{labels[~fits][0]}. For the likeliest class, pass np.argmax(labels, -1)"
        )
    return labels.argmax(-1)


def _key(parts: Iterator[np.ndarray]) -> int:
    """A number for the content of an image."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if part.dtype.kind in "OSU":  # texts: the bytes of an array may hold their addresses or their padding
            texts = [text if isinstance(text, bytes) else str(text).encode() for text in part.ravel().tolist()]
            digest.update(b"".join(len(text).to_bytes(8, "little") + text for text in texts))
        else:
            digest.update(np.ascontiguousarray(part).tobytes())
    return int.from_bytes(digest.digest(), "little")
