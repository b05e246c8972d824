"""What Monte-Carlo dropout costs, against T passes of `model(x, training=True)` in the same process.

    python benchmarks/monte_carlo.py

The rival is one `tf.function` with a loop of T passes that sums the softmaxes and their squares. It uses the model
as it is, masks from the layers' own seeds, and BatchNorm in training mode, as that recipe does. Times are medians
of interleaved repeats.

- `f` is the trunk's share of the multiplications. `f_time` is its share of the time of a sample without a cache:
  `trunk_ms`, measured in a loop within the graph, over `no_cache_ms` / T. `bound` and `bound_time` are
  1 / (f / T + 1 - f) for these two shares, the most that the cache can gain. `cache` is how many times faster T
  samples are with the cache than without it, both without folding. `cache_and_fold` is how many times faster they
  are with both than with neither, and `of_bound` and `of_bound_time` are its ratios to the bounds. Work without
  multiplications (masks, entropies, the call itself) does not count in `f`, which shows on small images.
- `speedup` is the rival's time over ours, both for T samples.
- `error_ratio` is the squared error of the mean with T independent masks over that with T balanced ones.
- `same_accuracy` is the rival's time for T independent samples over our time for the fewest balanced samples whose
  error is no larger; the error is measured for each number of samples.

Results: benchmarks/results/monte_carlo.csv.

    python benchmarks/monte_carlo.py --memory

This measures the peak of memory for one image of 512x512 in a U-Net (depth 4, 8 filters, so that the folded batch
fits; dropout in bottleneck and decoder). Each case runs in a process of its own: the figure is VmHWM after two
calls minus VmHWM after the model was built and one small image was predicted. `folded` runs all T samples as one
batch, without a cache. Results: benchmarks/results/monte_carlo_memory.csv.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from _shared import write_csv
from dropzoo import models, serving, training

COUNTS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 20, 25)  # numbers of balanced samples to try
REFERENCE = 40  # the reference has this many times T samples
REPEATED = 10  # calls of the trunk in one graph
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Case:
    name: str
    model: str
    data: str
    num_samples: int
    dropout: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 8
    few: int = 12  # images that the error is measured on
    enlarge: int = 1  # factor by which height and width are enlarged
    epochs: int = 3
    repeats: int = 9
    seeds: int = 8


CNN = {"filters": (32, 64, 128), "convs_per_module": 2, "dense": 256}
CASES = [
    Case(
        "U-Net, bottleneck and decoder",
        "unet",
        "digit_scenes",
        30,
        {"bottleneck*": 0.3, "decoder*_conv2": 0.2},
        {"depth": 3, "filters": 16},
        batch=4,
        few=4,
    ),
    Case("CNN, head", "simple_cnn", "digits", 50, {"head": 0.5}, CNN, enlarge=16, epochs=1),
    Case("CNN, head", "simple_cnn", "digits", 50, {"head": 0.5}, CNN, enlarge=8, epochs=1),
    Case("CNN, head", "simple_cnn", "digits", 50, {"head": 0.5}, CNN, enlarge=4),
    Case("CNN, every module", "simple_cnn", "digits", 30, {"module*": 0.2, "dense1": 0.5}, CNN, enlarge=4),
    Case("CNN, head", "simple_cnn", "digits", 50, {"head": 0.5}, CNN, batch=32, few=64),
    Case("CNN, every module", "simple_cnn", "digits", 30, {"module*": 0.2, "dense1": 0.5}, CNN, batch=32, few=64),
]


def trained(case: Case) -> tuple[keras.Model, np.ndarray]:
    """Returns a model after a few epochs, and the images of its test set."""
    keras.utils.set_random_seed(0)
    data = training.load_data(case.data, batch_size=32)

    def larger(x: Any) -> Any:
        return tf.repeat(tf.repeat(x, case.enlarge, axis=1), case.enlarge, axis=2)

    images = np.concatenate([larger(x) for x, _ in data.test])
    classes = data.info.num_classes
    shape = {"input_shape": images.shape[1:], "num_classes": classes}
    model = models.build_model(case.model, dropout=case.dropout, **case.options, **shape)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    train = data.train.map(lambda x, y: (larger(x), y)) if case.enlarge > 1 else data.train
    model.fit(train, epochs=case.epochs, verbose=0)
    return model, images


def passes(model: keras.Model, num_samples: int) -> Callable[[Any], Any]:
    """Returns the rival, which makes `num_samples` passes in training mode."""

    @tf.function(autograph=False)
    def run(x: Any) -> Any:
        def one_more(t: Any, total: Any, squares: Any) -> Any:
            p = tf.nn.softmax(model(x, training=True))
            return t + 1, total + p, squares + p * p

        shape = [x.shape[0], *model.output_shape[1:]]
        start = (tf.constant(0), tf.zeros(shape), tf.zeros(shape))
        return tf.while_loop(lambda t, *_: t < num_samples, one_more, start, parallel_iterations=1)

    return run


def repeated(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns a function that makes `REPEATED` calls in one graph, so that calls from Python take no time.

    The input of each call differs a little, or TensorFlow would make only one call.
    """

    @tf.function(autograph=False)
    def run(x: Any) -> Any:
        def once_more(i: Any, seen: Any) -> Any:
            outputs = tf.nest.flatten(function(x + tf.cast(i, x.dtype) * 1e-9))
            return i + 1, seen + tf.add_n([tf.cast(tf.reshape(each, [-1])[0], "float32") for each in outputs])

        return tf.while_loop(lambda i, _: i < REPEATED, once_more, (tf.constant(0), 0.0), parallel_iterations=1)

    return run


def interleaved(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Returns the median milliseconds of each function; two earlier rounds trace and warm up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def errors_of_the_mean(model: keras.Model, images: np.ndarray, num_samples: int, seeds: int) -> dict[Any, float]:
    """Returns the squared error of the mean of T independent samples, and of several numbers of balanced ones."""
    reference = serving.MonteCarlo(model, REFERENCE * num_samples, "independent", seed=10_000)(images)[
        "mean"
    ].numpy()

    def error(count: int, sampling: str) -> float:
        mc = serving.MonteCarlo(model, count, sampling)
        each = [np.mean((mc(images, seed=seed)["mean"].numpy() - reference) ** 2) for seed in range(seeds)]
        return float(np.mean(each))

    independent = error(num_samples, "independent")
    own = independent / (1 + REFERENCE)  # the error of the reference, which is part of all errors
    balanced = {n: error(n, "balanced") - own for n in COUNTS if n < num_samples}
    return balanced | {num_samples: error(num_samples, "balanced") - own, "independent": independent - own}


def measure(case: Case) -> dict[str, Any]:
    model, images = trained(case)
    x = tf.constant(images[: case.batch])
    count = case.num_samples
    mc = serving.MonteCarlo(model, count)
    cut = mc.cut()
    print(f"{case.name}, T = {count}, batch of {case.batch}\n{cut}", flush=True)
    errors = errors_of_the_mean(model, images[: case.few], count, case.seeds)
    enough = [n for n, error in errors.items() if n != "independent" and error <= errors["independent"]]
    fewer = min(enough, default=count)

    functions = {
        "rival": passes(model, count),
        "ours": mc,
        "no_cache": serving.MonteCarlo(model, count, cache=False, fold=1),
        "no_fold": serving.MonteCarlo(model, count, fold=1),
        "independent": serving.MonteCarlo(model, count, "independent"),
        "ours_fewer": serving.MonteCarlo(model, fewer),
        "trunk": repeated(lambda images: mc.stage.trunk.run_trunk([images])),
    }
    calls = {name: partial(function, x) for name, function in functions.items()}
    ms = interleaved(calls, case.repeats)
    ms["trunk"] /= REPEATED
    f_time = ms["trunk"] / (ms["no_cache"] / count)
    bound_time, gained = 1 / (f_time / count + 1 - f_time), ms["no_cache"] / ms["ours"]
    row = {
        "case": case.name,
        "image": "x".join(map(str, images.shape[1:])),
        "batch": case.batch,
        "T": count,
        **{f"{name}_ms": round(value, 2) for name, value in ms.items()},
        "f": round(cut.f, 4),
        "f_time": round(f_time, 4),
        "bound": round(cut.speedup, 2),
        "bound_time": round(bound_time, 2),
        "cache": round(ms["no_cache"] / ms["no_fold"], 2),
        "cache_and_fold": round(gained, 2),
        "of_bound": round(gained / cut.speedup, 2),
        "of_bound_time": round(gained / bound_time, 2),
        "speedup": round(ms["rival"] / ms["ours"], 2),
        "error_independent": float(f"{errors['independent']:.3g}"),
        "error_balanced": float(f"{errors[count]:.3g}"),
        "error_ratio": round(errors["independent"] / errors[count], 2),
        "T_same_accuracy": fewer,
        "same_accuracy": round(ms["rival"] / ms["ours_fewer"], 2),
    }
    print(", ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    return row


MEMORY = {  # the number of samples, and options of MonteCarlo
    "folded": (100, {"fold": 100, "cache": False}),
    "ours": (100, {}),
    "ours, T = 4": (4, {}),
    "ours, T = 1": (1, {}),
}


def take_memory(way: str) -> None:
    """Prints the MiB of one case, which needs a process of its own."""
    dropout = {"bottleneck*": 0.3, "decoder*_conv2": 0.2}
    model = models.build_model("unet", num_classes=2, depth=4, filters=8, dropout=dropout)
    count, options = MEMORY[way]
    serving.MonteCarlo(model, 2, **options | {"fold": 2} if options else {})(np.zeros((1, 32, 32, 1), "float32"))
    mc = serving.MonteCarlo(model, count, **options)
    image = np.random.default_rng(0).random((1, 512, 512, 1), "float32")
    before = peak_mib()
    mc(image)
    mc(image)
    print(peak_mib() - before)


def peak_mib() -> float:
    """Returns the most MiB that this process has held so far."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure_memory() -> None:
    mib = {}
    for way in MEMORY:
        command = [sys.executable, __file__, "--memory", way]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{way}: {done.stderr[-2000:]}")
        mib[way] = float(done.stdout.split()[-1])
        print(f"{way}: {mib[way]:.0f} MiB, {mib[way] / mib['folded']:.3f} of folded", flush=True)
    rows = [{"case": way, "T": MEMORY[way][0], "mib": round(value, 1)} for way, value in mib.items()]
    write_csv(
        RESULTS / "monte_carlo_memory.csv",
        [row | {"of_folded": round(row["mib"] / mib["folded"], 4)} for row in rows],
    )


def main() -> None:
    if sys.argv[1:] == ["--memory"]:
        measure_memory()
    elif sys.argv[1:2] == ["--memory"]:
        take_memory(sys.argv[2])
    else:
        write_csv(RESULTS / "monte_carlo.csv", [measure(case) for case in CASES])


if __name__ == "__main__":
    main()
