"""What a training step costs, against Keras' `fit` in the same process.

    python benchmarks/training.py [CASE ...]

Each row compares the trainer with `fit`, each at the `steps_per_execution` that is best for it: milliseconds a
step, as medians of interleaved epochs. `first step` (from `compile` to the end of the first step) and `memory`
(the peak) are measured in processes of their own. The rows on workers compare two local workers with one process
on the same global batch; the exchange of gradients costs the same for the small batch as for the large one. The
rows against PyTorch need PyTorch. With arguments (beginnings of the names of cases, or `processes`, `workers`,
`torch`), only those rows are measured again. Results: benchmarks/results/training.csv.
"""

import csv
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import _shared
from _rivals import torch_unet_step
from dropzoo import layers
from dropzoo.models import build_model
from dropzoo.training import Trainer, multi_worker_strategy
from dropzoo.training.loop.replicas import scope
from dropzoo.training.loop.workers import run_workers

RESULTS = Path(__file__).parent / "results" / "training.csv"
ROUNDS = 9


def lenet(dropout: Callable[[], keras.layers.Layer] | None) -> tuple[keras.Model, tf.data.Dataset]:
    return build_model("lenet5"), dataset((28, 28, 1), 32, 192)


def cnn(dropout: Callable[[], keras.layers.Layer] | None, batch: int = 64) -> tuple[keras.Model, tf.data.Dataset]:
    return _shared.cnn(dropout), dataset((32, 32, 3), batch, 10)


def unet(dropout: Callable[[], keras.layers.Layer] | None) -> tuple[keras.Model, tf.data.Dataset]:
    plan = {"*_conv?": dropout()} if dropout else None
    options = {"depth": 4, "filters": 32, "normalization": None, "dropout": plan}
    model = build_model("unet", input_shape=(128, 128, 1), num_classes=1, **options)
    return model, dataset((128, 128, 1), 4, 3, (128, 128))


def dataset(shape: tuple[int, ...], batch: int, steps: int, labels: tuple[int, ...] = ()) -> tf.data.Dataset:
    rng = np.random.default_rng(0)
    x = rng.random((batch * steps, *shape), "float32")
    y = rng.integers(0, 2, (batch * steps, *labels)).astype("int32")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch, drop_remainder=True).prefetch(2)


def ours() -> keras.layers.Layer:
    return layers.Dropout(0.1)


def theirs() -> keras.layers.Layer:
    return keras.layers.Dropout(0.1)


# By name: the builder, whether there is dropout, and the values of `steps_per_execution` to try.
CASES: dict[str, tuple[Callable[..., Any], bool, tuple[int, ...]]] = {
    "lenet5 28x28, batch 32": (lenet, False, (1, 32, 192)),
    "cnn of 6 convolutions, dropout everywhere, batch 64": (cnn, True, (1, 10)),
    "unet 128x128, dropout everywhere, batch 4": (unet, True, (1, 3)),
    "unet 128x128, no dropout, batch 4": (unet, False, (1, 3)),
}


def loss_of(model: keras.Model) -> keras.losses.Loss:
    binary = model.output_shape[-1] == 1
    return (keras.losses.BinaryCrossentropy if binary else keras.losses.SparseCategoricalCrossentropy)(
        from_logits=True
    )


def trained_by_us(build: Callable[..., Any], drops: bool, steps: int) -> Callable[[], Any]:
    model, data = build(ours if drops else None)
    trainer = Trainer(model, "adam", loss_of(model), ["accuracy"], steps_per_execution=steps)
    return lambda: trainer.fit(with_channel(data, model), verbose=0)


def trained_by_keras(build: Callable[..., Any], drops: bool, steps: int, jit: Any = False) -> Callable[[], Any]:
    model, data = build(theirs if drops else None)
    model.compile("adam", loss_of(model), metrics=["accuracy"], jit_compile=jit, steps_per_execution=steps)
    return lambda: model.fit(with_channel(data, model), shuffle=False, verbose=0)


def with_channel(data: tf.data.Dataset, model: keras.Model) -> tf.data.Dataset:
    """Returns data whose binary masks have an axis of channels, as Keras' own loss takes them."""
    return data.map(lambda x, y: (x, y[..., None])) if model.output_shape[-1] == 1 else data


def interleaved(
    functions: dict[str, Callable[[], Any]], steps: int, rounds: int, pause: float = 0.0
) -> dict[str, list[float]]:
    """Returns the milliseconds a step of each function in every round; one earlier round traces and warms up.

    During a pause of `pause` seconds, the threads of the function before stop their busy waiting for more work.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            time.sleep(pause)
            start = time.perf_counter()
            function()
            if number:
                times[name].append(1e3 * (time.perf_counter() - start) / steps)
    return times


def time_case(name: str) -> dict[str, Any]:
    build, drops, sizes = CASES[name]
    steps = len(build(None)[1])
    functions = {f"dropzoo {size}": trained_by_us(build, drops, size) for size in sizes}
    functions |= {f"keras {size}": trained_by_keras(build, drops, size) for size in sizes}
    if build is lenet:  # elsewhere Keras' dropout under XLA takes a second a layer
        functions[f"keras {sizes[-1]}, XLA"] = trained_by_keras(build, drops, sizes[-1], True)
    times = interleaved(functions, steps, 2 * ROUNDS if build is lenet else ROUNDS)
    middle = {key: statistics.median(values) for key, values in times.items()}
    print({key: round(value, 3) for key, value in middle.items()}, flush=True)
    best = {
        who: min((k for k in middle if k.startswith(who)), key=middle.__getitem__) for who in ("dropzoo", "keras")
    }
    # The ratio is taken within a round, so that a load that slows the machine for a while slows both.
    ratio = statistics.median(k / d for k, d in zip(times[best["keras"]], times[best["dropzoo"]], strict=True))
    return row(
        name,
        "ms a step",
        middle[best["dropzoo"]],
        middle[best["keras"]],
        ratio,
        f"{best['dropzoo']}, {best['keras']}",
    )


def row(case: str, unit: str, mine: Any, rival: Any, ratio: float | None = None, note: str = "") -> dict[str, Any]:
    if ratio is None and mine and rival:
        ratio = rival / mine
    rounded = {key: None if n is None else round(n, 3) for key, n in (("dropzoo", mine), ("rival", rival))}
    found = {"case": case, "unit": unit, **rounded, "rival_over_dropzoo": ratio and round(ratio, 2), "note": note}
    print(found, flush=True)
    return found


def own_processes(rounds: int = 3) -> list[dict[str, Any]]:
    """Measures the U-Net with dropout everywhere: the time to its first step, and its peak of memory."""
    found: dict[str, list[dict[str, float]]] = {"dropzoo": [], "keras": []}
    for _ in range(rounds):
        for who, values in found.items():
            command = [sys.executable, __file__, "--first", who]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            values.append(json.loads(output.splitlines()[-1]))
    rows = []
    for what, unit in (("first step", "s"), ("memory", "MiB")):
        mine, rival = ([one[what] for one in found[who]] for who in ("dropzoo", "keras"))
        ratio = statistics.median(b / a for a, b in zip(mine, rival, strict=True))
        middle = statistics.median(mine), statistics.median(rival)
        rows.append(row(f"{what}, unet 128x128, dropout everywhere, batch 4", unit, *middle, ratio))
    return rows


def print_first(who: str) -> None:
    build, drops, _ = CASES["unet 128x128, dropout everywhere, batch 4"]
    build(None)  # so that the time leaves out what TensorFlow does only once
    start = time.perf_counter()
    ended: list[float] = []
    see = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ended.append(time.perf_counter() - start)
    )
    model, data = build(ours if who == "dropzoo" else theirs)
    loss, data = loss_of(model), with_channel(data.take(3), model)
    if who == "dropzoo":
        Trainer(model, "adam", loss, ["accuracy"]).fit(data, callbacks=[see], verbose=0)
    else:
        model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
        model.fit(data, callbacks=[see], verbose=0)
    status = Path("/proc/self/status").read_text()  # not getrusage, which remembers the parent's peak
    peak = next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"first step": ended[0], "memory": peak}))


def workers(batch: int, rounds: int = 3) -> dict[str, Any]:
    """Compares two workers with one process, on the CNN and the same global batch."""
    found: dict[int, list[float]] = {2: [], 1: []}
    for _ in range(rounds):
        for count, values in found.items():
            target = Path(f"/tmp/dropzoo-workers-{os.getpid()}.json")
            command = [sys.executable, __file__, "--worker", str(target), str(batch)]
            status = run_workers(command, 2) if count == 2 else subprocess.run(command, check=True).returncode
            if status:
                raise RuntimeError(f"A worker ended with status {status}")
            values.append(json.loads(target.read_text()))
            target.unlink()
    ratio = statistics.median(one / two for two, one in zip(found[2], found[1], strict=True))
    middle = statistics.median(found[2]), statistics.median(found[1])
    case = f"two local workers, cnn of 6 convolutions, batch {batch}"
    return row(case, "ms a step", *middle, ratio, "rival: one process")


def print_worker(target: str, batch: str) -> None:
    strategy = multi_worker_strategy() if "TF_CONFIG" in os.environ else None
    with scope(strategy):
        model, data = cnn(ours, int(batch))
    trainer = Trainer(model, "adam", loss_of(model), ["accuracy"], strategy=strategy, steps_per_execution=10)
    times = interleaved({"": lambda: trainer.fit(data, verbose=0)}, len(data), 7)[""]
    if strategy is None or strategy.cluster_resolver.task_id == 0:
        Path(target).write_text(json.dumps(statistics.median(times)))


def torch_rows() -> list[dict[str, Any]]:
    """Compares the U-Net with PyTorch's, in the faster of its memory formats."""
    rows = []
    for name in list(CASES)[2:]:
        build, drops, sizes = CASES[name]
        if importlib.util.find_spec("torch") is None:
            rows.append(row(f"{name}, against PyTorch", "ms a step", None, None, None, "skipped: no PyTorch here"))
            continue
        steps = sizes[-1]
        functions = {"dropzoo": trained_by_us(build, drops, steps)}
        for channels_last in (False, True):
            step, parameters = torch_unet_step(0.1 if drops else None, channels_last)
            if parameters != build(None)[0].count_params():
                raise RuntimeError("The two networks differ")
            key = f"PyTorch, {'channels last' if channels_last else 'contiguous'}"
            functions[key] = lambda step=step, steps=steps: [step() for _ in range(steps)]
        times = interleaved(functions, steps, 2 * ROUNDS, pause=0.3)
        best = min(list(times)[1:], key=lambda key: statistics.median(times[key]))
        ratio = statistics.median(t / d for t, d in zip(times[best], times["dropzoo"], strict=True))
        middle = statistics.median(times["dropzoo"]), statistics.median(times[best])
        rows.append(row(f"{name}, against PyTorch", "ms a step", *middle, ratio, best))
    return rows


def main(wanted: list[str]) -> None:
    rows: dict[str, dict[str, Any]] = {}
    if wanted and RESULTS.exists():  # the rows of other cases stay
        with RESULTS.open(newline="") as file:
            rows = {row["case"]: row for row in csv.DictReader(file)}

    def add(*more: dict[str, Any]) -> None:
        rows.update((row["case"], row) for row in more)
        _shared.write_csv(RESULTS, list(rows.values()))

    for name in CASES:
        if not wanted or any(name.startswith(word) for word in wanted):
            add(time_case(name))
    if not wanted or "processes" in wanted:
        add(*own_processes())
    if not wanted or "workers" in wanted:
        add(*(workers(batch) for batch in (64, 256)))
    if not wanted or "torch" in wanted:
        add(*torch_rows())


if __name__ == "__main__":
    special = {"--first": print_first, "--worker": print_worker}
    if sys.argv[1:2] and sys.argv[1] in special:
        special[sys.argv[1]](*sys.argv[2:])
    else:
        main(sys.argv[1:])
