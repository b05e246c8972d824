"""Times Dropout and SpatialDropout2D against those of Keras on one backend, with and without the gradient.

    KERAS_BACKEND=torch python benchmarks/backends.py

Calls are eager, on 32 feature maps of 64 x 64 x 32. It prints the CPU time of a call in ms, the median of seven
interleaved repeats.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from dropzoo import layers

REPEATS = 7


def gradient(layer: keras.Layer, x: Any) -> Callable[[], Any]:
    """Returns a function that runs a layer and its gradient."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        slope = jax.grad(lambda v: layer(v, training=True).sum())
        return lambda: slope(x)
    if backend == "torch":

        def run() -> Any:
            leaf = x.clone().requires_grad_(True)
            layer(leaf, training=True).sum().backward()
            return leaf.grad

        return run
    import tensorflow as tf

    def watched() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(layer(x, training=True))
        return tape.gradient(y, x)

    return watched


def main() -> None:
    x = keras.ops.convert_to_tensor(np.random.default_rng(0).random((32, 64, 64, 32), "float32"))
    runs: dict[str, Callable[[], Any]] = {}
    for name in ("Dropout", "SpatialDropout2D"):
        for home, module in (("dropzoo", layers), ("keras", keras.layers)):
            layer = getattr(module, name)(0.3, seed=1)
            runs[f"{home} {name}"] = lambda layer=layer: layer(x, training=True)
            runs[f"{home} {name} with gradient"] = gradient(layer, x)
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(REPEATS + 1):  # the first one compiles
        for name, run in runs.items():
            start = time.process_time()
            keras.ops.convert_to_numpy(run())
            if repeat:
                spent[name].append((time.process_time() - start) * 1000)
    print(f"{keras.backend.backend()}, CPU time in ms")
    for name, each in spent.items():
        print(f"{name:45s} {statistics.median(each):8.1f}")


if __name__ == "__main__":
    main()
