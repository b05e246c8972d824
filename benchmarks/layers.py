"""What a dropout layer costs, against Keras' own in the same process.

    python benchmarks/layers.py

Each line is the median of interleaved repeats. `copy` is `x * c`, the least that a layer can cost. `step` is the
training step of a CNN of six convolutions with dropout after each (32x32x3, batch 64), in Keras' `fit` and in the
Trainer. `memory` is the peak of a forward and a backward pass in a process of its own. The rows against timm need
timm and PyTorch. Results: benchmarks/results/layers.csv and layers.png.
"""

import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from _rivals import PlainDropBlock2D, timm_drop_block
from _shared import cnn, write_csv
from dropzoo import layers
from dropzoo.training.loop.mixing import Mixed, Mixing
from dropzoo.training.loop.program import Program

RESULTS = Path(__file__).parent / "results"
MIDDLE = (32, 64, 64, 64)  # 33.5 MB of float32
Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Case:
    name: str
    ours: Callable[..., keras.Layer]
    rival: Callable[..., keras.Layer]
    rate: float = 0.3
    shape: tuple[int, ...] = MIDDLE
    dtype: str = "float32"
    jit_compile: bool = False
    repeats: int = 15


DROPOUT = ("Dropout", layers.Dropout, keras.layers.Dropout)
CASES = [
    Case(*DROPOUT),
    Case(*DROPOUT, rate=0.5),
    Case(*DROPOUT, rate=0.25),
    Case(*DROPOUT, rate=0.1),
    Case(*DROPOUT, dtype="bfloat16"),
    Case(*DROPOUT, dtype="float16"),
    Case(*DROPOUT, shape=(64, 28, 28, 32)),
    Case(*DROPOUT, shape=(8, 256, 256, 64), repeats=7),
    Case(*DROPOUT, shape=(64, 512)),
    Case(*DROPOUT, jit_compile=True, repeats=3),
    Case("SpatialDropout2D", layers.SpatialDropout2D, keras.layers.SpatialDropout2D),
    Case("DropBlock2D", layers.DropBlock2D, PlainDropBlock2D, rate=0.1),
    Case("DropBlock2D", layers.DropBlock2D, PlainDropBlock2D, rate=0.1, jit_compile=True, repeats=7),
    Case("GaussianDropout", layers.GaussianDropout, keras.layers.GaussianDropout),
    Case("AlphaDropout", layers.AlphaDropout, keras.layers.AlphaDropout),
]


def forward(function: Function) -> Function:
    return function


def forward_and_backward(function: Function) -> Function:
    def run(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return y, tape.gradient(y, x)  # both, or the forward pass is optimised away

    return run


def interleaved(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, np.ndarray]:
    """Returns the milliseconds of each function in every round; two earlier rounds trace and warm up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(values) for name, values in times.items()}


def time_timm(direction: Callable[[Function], Function], **options: Any) -> dict[str, np.ndarray]:
    """Times our DropBlock against timm's, in the faster of its memory formats."""
    rivals = timm_drop_block(MIDDLE, 0.1, direction is forward_and_backward, **options)
    if not rivals:
        return {}
    x, layer = tf.random.normal(MIDDLE), layers.DropBlock2D(0.1)
    ours = tf.function(direction(lambda x: layer(x, training=True)))
    times = interleaved({"dropzoo": lambda: ours(x), **rivals}, 15)
    return {"dropzoo": times["dropzoo"], "rival": min((times[name] for name in rivals), key=np.median)}


def time_layer(case: Case, direction: Callable[[Function], Function]) -> dict[str, np.ndarray]:
    x = tf.cast(tf.random.normal(case.shape), case.dtype)
    functions: dict[str, Callable[[], Any]] = {}
    for name, make in (("dropzoo", case.ours), ("rival", case.rival)):
        layer = make(case.rate, dtype=case.dtype)
        run = direction(lambda x, layer=layer: layer(x, training=True))
        functions[name] = functools.partial(tf.function(run, jit_compile=case.jit_compile), x)
    copy = tf.function(direction(lambda x: x * tf.cast(1.0001, x.dtype)), jit_compile=case.jit_compile)
    return interleaved(functions | {"copy": lambda: copy(x)}, case.repeats)


def network(make: Callable[[], keras.Layer] | None) -> keras.Model:
    model = cnn(make)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)
    return model


def time_step(by: Callable[[keras.Model], Function], **others: Callable[[], keras.Layer]) -> dict[str, Any]:
    """Times a step of the network without dropout, with ours, Keras' and `others`; `by` makes a model's step."""
    x, y = tf.random.normal((64, 32, 32, 3)), tf.random.uniform((64,), 0, 10, tf.int32)
    makers = {
        "none": None,
        "dropzoo": lambda: layers.Dropout(0.3),
        "rival": lambda: keras.layers.Dropout(0.3),
        **others,
    }
    functions: dict[str, Callable[[], Any]] = {}
    for name, make in makers.items():
        model = network(make)
        functions[name] = functools.partial(tf.function(by(model)), (x, y))
    return interleaved(functions, 101)


def trainer_step(model: keras.Model) -> Function:
    program = Program(model, None, jit_compile=False, r_drop=0.0, mixing=Mixing(0.0, 0.0, model))
    return lambda batch: program._train_step(Mixed(batch), None)


class Copy(keras.layers.Layer):
    """A layer that copies its input by the same means as our dropout, and drops nothing."""

    def call(self, inputs: Any) -> Any:
        @tf.custom_gradient
        def copy(x: Any) -> Any:
            return _compiled_copy(x), copy

        return copy(inputs)


@tf.function(jit_compile=True, reduce_retracing=True)
def _compiled_copy(x: Any) -> Any:
    return x * 1.0001


def peak_memory(which: str) -> float:
    """Returns the peak MiB of a process that runs ten convolutions with dropout, forward and backward."""
    command = [sys.executable, __file__, "--memory", which]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def print_memory(which: str) -> None:
    make = {"dropzoo": layers.Dropout, "rival": keras.layers.Dropout}.get(which)
    x = tf.random.normal((16, 128, 128, 32))  # 33.5 MB
    stack = [(keras.layers.Conv2D(32, 3, padding="same"), make(0.3) if make else None) for _ in range(10)]

    @tf.function
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            for convolution, dropout in stack:
                x = convolution(x)
                x = x if dropout is None else dropout(x, training=True)
            loss = tf.reduce_mean(x**2)
        return tape.gradient(loss, [w.value for convolution, _ in stack for w in convolution.weights])

    for _ in range(3):
        step(x)
    status = Path("/proc/self/status").read_text()  # not getrusage, which remembers the parent's peak
    print(next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")))


def draw(rows: list[dict[str, Any]]) -> None:
    rows = [row for row in rows if row["direction"] != "memory"]
    names = [
        f"{r['layer']} {r['rate']}, {r['shape']}, {r['dtype']}{', XLA' * r['xla']}, {r['direction']}" for r in rows
    ]
    figure, axes = plt.subplots(figsize=(9, 0.28 * len(rows) + 1.2), layout="constrained")
    ratio = [row["rival_over_dropzoo"] for row in rows]
    bars = axes.barh(names, ratio, color=["#1b6ca8" if value >= 1 else "#b5482a" for value in ratio])
    axes.bar_label(bars, [f" {value:.1f}" for value in ratio], fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(
        xscale="log", xlim=(0.7, 2000), xlabel="times faster than Keras (DropBlock: the usual max-pooling form)"
    )
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    figure.savefig(RESULTS / "layers.png", dpi=120)


def main() -> None:
    rows = []

    def add(found: dict[str, Any], unit: str = "ms", **row: Any) -> None:
        middle = {name: float(np.median(values)) for name, values in found.items()}
        rows.append(row | {"unit": unit} | {name: round(value, 3) for name, value in middle.items()})
        rows[-1]["rival_over_dropzoo"] = round(middle["rival"] / middle["dropzoo"], 2)
        print(", ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)

    for case in CASES:
        shape = "x".join(map(str, case.shape))
        for direction in (forward, forward_and_backward):
            row = {"layer": case.name, "rate": case.rate, "shape": shape, "dtype": case.dtype}
            add(time_layer(case, direction), **row, xla=case.jit_compile, direction=direction.__name__)
    for options in ({"couple_channels": False}, {}):
        for direction in (forward, forward_and_backward):
            name = "DropBlock2D against timm" + (", which has one mask for all channels" if not options else "")
            row = {"layer": name, "rate": 0.1, "shape": "x".join(map(str, MIDDLE)), "dtype": "float32"}
            if times := time_timm(direction, **options):
                add(times, **row, xla=False, direction=direction.__name__)
            else:
                print(f"{name}: skipped, needs the packages timm and torch")
    row = {"layer": "Dropout", "rate": 0.3, "dtype": "float32", "xla": False}
    steps = {
        "step": time_step(lambda model: model.train_step, copy=Copy),
        "step of the Trainer": time_step(trainer_step),
    }
    for direction, times in steps.items():
        add(times, **row, shape="six convolutions", direction=direction)
        # The ratio is taken within a round, so that a load that slows the machine for a while slows both.
        tax = {name: 100 * (np.median(times[name] / times["none"]) - 1) for name in times if name != "none"}
        print(f"a {direction} with dropout takes longer by, %:", {n: round(value, 1) for n, value in tax.items()})
        rows[-1] |= {f"{name}_longer_percent": round(value, 1) for name, value in tax.items()}
    memory = {name: peak_memory(name) for name in ("none", "dropzoo", "rival")}
    add(memory, "MiB", **row, shape="ten convolutions", direction="memory")
    write_csv(RESULTS / "layers.csv", rows)
    draw(rows)


if __name__ == "__main__":
    print_memory(sys.argv[2]) if sys.argv[1:2] == ["--memory"] else main()
