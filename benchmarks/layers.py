"""Time of one dropout layer in a TensorFlow graph, against Keras' own in the same process.

    python benchmarks/layers.py

Median of interleaved repeats; `copy` is `x * c`, the floor. The result goes to benchmarks/results/layers.csv.
"""

import csv
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from dropzoo import layers

SHAPE, RATE, REPEATS = (32, 64, 64, 64), 0.3, 15  # 33.5 MB of float32
CASES: dict[str, tuple[Any, Any]] = {
    "Dropout": (layers.Dropout(RATE), keras.layers.Dropout(RATE)),
    "SpatialDropout2D": (layers.SpatialDropout2D(RATE), keras.layers.SpatialDropout2D(RATE)),
    "GaussianDropout": (layers.GaussianDropout(RATE), keras.layers.GaussianDropout(RATE)),
    "AlphaDropout": (layers.AlphaDropout(RATE), keras.layers.AlphaDropout(RATE)),
}


def forward(function: Callable[[Any], Any]) -> Any:
    return tf.function(function)


def forward_and_backward(function: Callable[[Any], Any]) -> Any:
    def run(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return y, tape.gradient(y, x)  # both, or the forward pass is optimised away

    return tf.function(run)


def main() -> None:
    x = tf.random.normal(SHAPE)
    functions = {}
    for direction in (forward, forward_and_backward):
        functions[direction.__name__, "copy", "floor"] = direction(lambda x: x * 1.0001)
        for name, (ours, theirs) in CASES.items():
            functions[direction.__name__, name, "dropzoo"] = direction(lambda x, f=ours: f(x, training=True))
            functions[direction.__name__, name, "keras"] = direction(lambda x, f=theirs: f(x, training=True))
    times: dict[tuple[str, str, str], list[float]] = {key: [] for key in functions}
    for repeat in range(REPEATS + 2):  # the first two trace and warm up
        for key, function in functions.items():
            start = time.perf_counter()
            function(x)
            if repeat >= 2:
                times[key].append(1e3 * (time.perf_counter() - start))
    median = {key: float(np.median(values)) for key, values in times.items()}
    path = Path(__file__).parent / "results" / "layers.csv"
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["direction", "layer", "shape", "rate", "dropzoo_ms", "keras_ms", "keras_over_dropzoo", "copy_ms"]
        )
        for direction in ("forward", "forward_and_backward"):
            for name in CASES:
                ours, theirs = (median[direction, name, who] for who in ("dropzoo", "keras"))
                floor = median[direction, "copy", "floor"]
                shape = "x".join(map(str, SHAPE))
                row = [f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.2f}", f"{floor:.2f}"]
                writer.writerow([direction, name, shape, RATE, *row])
    print(path.read_text())


if __name__ == "__main__":
    main()
