"""Looks at some masks of single objects: if they cover each other, several people may have drawn them."""

import itertools

import numpy as np

from dropzoo.training.data.files.masks import Meaning
from dropzoo.training.data.files.table import Drawn, Table

_LOOKED_AT = 8  # images
_MOST = 8  # people
_ALIKE = 0.4  # IoU; objects that touch or hide each other are far below


def doubt_overlaps(table: Table, meaning: Meaning) -> None:
    """Adds a doubt if the masks of most images cover each other, as those of several people do."""
    masks = [
        sample.files[1:]
        for sample in table.samples
        if isinstance(sample.mask, Drawn) and 2 < len(sample.files) <= _MOST + 1
    ]
    masks = masks[:: max(1, len(masks) // _LOOKED_AT)][:_LOOKED_AT]
    try:
        alike = [_overlap([meaning.inside(file) for file in files]) > _ALIKE for files in masks]
    except ValueError:  # the code that reads the masks reports what is wrong with them
        return
    if len(alike) > 2 and sum(alike) > 0.8 * len(alike):
        table.doubts.append(
            f"Masks of the same image overlap, such as {masks[0][0]} and {masks[0][1]}. They are read as masks of "
            "different objects. If several people drew them, list each mask in a CSV with the columns file and "
            "mask, and pass the CSV as `split_file` (--split-file)"
        )


def _overlap(inside: list[np.ndarray]) -> float:
    """Returns the mean IoU of all pairs of masks."""
    pairs = list(itertools.combinations(inside, 2))
    return float(np.mean([(a & b).sum() / max(1, (a | b).sum()) for a, b in pairs]))
