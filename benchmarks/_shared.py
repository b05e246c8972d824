"""Functions that several benchmarks share: a network to time, and a writer of results."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from dropzoo.models import build_model


def cnn(dropout: Callable[[], keras.layers.Layer] | None) -> keras.Model:
    """Builds a CNN of six convolutions and a dense layer for 32x32, with dropout after each of them or without."""
    return build_model(
        "simple_cnn",
        input_shape=(32, 32, 3),
        filters=(32, 64, 128),
        convs_per_module=2,
        dense=256,
        normalization=None,
        dropout={"*_conv?": dropout(), "dense1": dropout()} if dropout else None,
    )


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes one line per row; the columns are those of all rows together."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
