"""Images of nuclei with the networks that have not seen them, from the runs of nuclei_intervals.py."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from nuclei_intervals import FOLDS, held_out

from dropzoo.runs.loading import load_run


def parts(arguments: argparse.Namespace) -> Iterator[tuple[keras.Model, np.ndarray, np.ndarray]]:
    """The network, the images and the masks of each part."""
    for fold in range(FOLDS):
        model, config, _ = load_run(Path(arguments.nuclei) / f"fold{fold}")
        images, masks = (np.stack(each) for each in zip(*held_out(config), strict=True))
        yield model, images, masks.astype(int)
