"""Is the fraction that is dropped the rate? Single units over 1e8 draws, and blocks on maps of many sizes.

    python benchmarks/exactness.py

Prints the realised fraction and its distance from the rate in standard errors. The rows on blocks stand beside
those of the usual max-pooling form (`PlainDropBlock2D` in benchmarks/_rivals.py). Results:
benchmarks/results/exactness.csv.
"""

import csv
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from _rivals import PlainDropBlock2D
from dropzoo import layers

COUNT, CALLS = 10_000_000, 10


def single_units(rate: float) -> tuple[float, float]:
    layer, ones = layers.Dropout(rate, seed=0), tf.ones(COUNT)
    run = tf.function(lambda: tf.math.count_nonzero(layer(ones, training=True)))
    dropped = 1 - sum(int(run()) for _ in range(CALLS)) / (COUNT * CALLS)
    return dropped, (dropped - rate) / np.sqrt(rate * (1 - rate) / (COUNT * CALLS))


def blocks(layer: keras.Layer, rate: float, size: tuple[int, int]) -> tuple[float, float]:
    """Takes the standard error over maps: they are independent of each other, and the units of one map are not."""
    maps = max(256, 4_000_000 // (size[0] * size[1]))
    dropped = np.mean(layer(tf.ones((maps, *size, 1)), training=True) == 0, axis=(1, 2, 3))
    return dropped.mean(), (dropped.mean() - rate) / (dropped.std() / np.sqrt(maps) + 1e-12)


def main() -> None:
    rows = []

    def add(layer: str, rate: float, size: str, found: tuple[float, float]) -> None:
        rows.append([layer, rate, size, f"{found[0]:.7f}", f"{found[1]:.2f}"])
        print(", ".join(map(str, rows[-1])), flush=True)

    print("layer, rate, map, realised, standard errors off")
    for rate in (0.001, 0.05, 0.1, 0.3, 0.5, 0.9, 0.999):
        add("Dropout", rate, "1e8 units", single_units(rate))
    for size in ((3, 3), (7, 7), (14, 14), (24, 8), (28, 28), (56, 56), (112, 112)):
        name = f"{size[0]}x{size[1]}"
        add("DropBlock2D 7x7", 0.1, name, blocks(layers.DropBlock2D(0.1, seed=0), 0.1, size))
        if min(size) >= 7:  # it fails on smaller maps
            add("max-pooling form 7x7", 0.1, name, blocks(PlainDropBlock2D(0.1), 0.1, size))
    with open(Path(__file__).parent / "results" / "exactness.csv", "w", newline="") as file:
        csv.writer(file).writerows([["layer", "rate", "map", "realised", "standard_errors_off"], *rows])


if __name__ == "__main__":
    main()
