"""Draws the masks of images from their objects: polygons, run lengths, and files of a single object each."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dropzoo.training.data.files.table import Drawn, Runs, Starts


def draw(mask: Drawn, read: Callable[[Path], np.ndarray], apart: bool = False) -> np.ndarray:
    """Returns objects as ids, `(height, width)`.

    Args:
        mask: The objects.
        read: Function that returns where the object is in the file of a mask, `(height, width)` of bool.
        apart: Bool. Whether the ids are the numbers of the objects, counted from 1, and not their classes.
    """
    height, width = mask.size
    image = Image.new("I", (width, height))
    pen = ImageDraw.Draw(image)
    for place, (label, shape) in enumerate(mask.shapes, 1):
        number = place if apart else label
        if isinstance(shape, tuple):
            for corners in shape:
                if len(corners) >= 6:
                    pen.polygon(list(corners), fill=number)
        else:
            image.paste(number, mask=Image.fromarray(_inside(shape, mask.size, read)))
    ids = np.asarray(image)
    return ids.astype(np.uint8 if ids.max(initial=0) < 256 else np.int32)


def _inside(shape: Runs | Starts | Path, size: tuple[int, int], read: Callable[[Path], np.ndarray]) -> np.ndarray:
    """Returns where an object is, `(height, width)` of bool."""
    height, width = size
    if isinstance(shape, Path):
        found = read(shape)
        if found.shape != size:
            raise ValueError(
                f"The mask of an object must have its image's height and width. Received: {shape} of "
                f"{found.shape[0]}x{found.shape[1]} for an image of {height}x{width}"
            )
        return found
    if isinstance(shape, Runs):
        flat = np.repeat(np.arange(len(shape.counts)) % 2 == 1, shape.counts)
        by_rows = False
    else:
        flat, by_rows = np.zeros(height * width, bool), shape.by_rows
        for start, end in zip(*ends_of(shape.text), strict=True):
            flat[start:end] = True
    return flat.reshape(size) if by_rows else np.ascontiguousarray(flat.reshape(width, height).T)


def ends_of(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first pixel of each run, counted from 0, and the pixel behind its last one."""
    numbers = np.array(text.split(), np.int64)
    starts = numbers[::2] - 1
    return starts, starts + numbers[1::2]


def counts_of(mask: Drawn) -> dict[int, int] | None:
    """Returns the number of pixels of each class without drawing it, or None where it must be drawn.

    Run lengths of one class need no drawing, and they are those of tables with a hundred thousand images.
    """
    size = mask.size[0] * mask.size[1]
    if not mask.shapes:
        return {0: size}
    texts = [shape.text for _, shape in mask.shapes if isinstance(shape, Starts)]
    labels = {label for label, _ in mask.shapes}
    if len(texts) < len(mask.shapes) or len(labels) > 1:
        return None
    starts, ends = (np.concatenate(each) for each in zip(*map(ends_of, texts), strict=True))
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    covered = np.concatenate([[0], ends[:-1]])  # up to here, earlier runs have all pixels of later starts
    inside = int(np.maximum(ends - np.maximum(starts, covered), 0).sum())
    return {number: count for number, count in ((0, size - inside), (labels.pop(), inside)) if count}
