"""Latency and size of exports in ONNX Runtime against TensorFlow: a U-Net of 128 x 128 pixels with 10 samples.

Run `python benchmarks/runtimes.py [threads]` after `pip install '.[onnx]'`; it writes
benchmarks/results/runtimes.csv. Times are medians; the runtimes take turns, so that both see the same machine.
"""

import csv
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from dropzoo import models, serving

SIZE, SAMPLES, REPEATS = 128, 10, 25
PLANS = {
    "paper": "paper",
    "spatial": {"decoder*_conv2": "spatial_dropout2d:0.2"},
    "dropout": {"decoder*_conv2": 0.2},
}


def main(threads: int = 2) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    rows = [row for plan in PLANS for row in measured(plan, threads)]
    path = Path(__file__).parent / "results" / "runtimes.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def measured(plan: str, threads: int) -> list[dict[str, object]]:
    """Rows for one dropout plan: for each answer the times and sizes."""
    import onnxruntime

    keras.utils.set_random_seed(0)
    model = models.build_model("unet", input_shape=(None, None, 1), filters=16, dropout=PLANS[plan])
    x = np.random.default_rng(0).random((1, SIZE, SIZE, 1), "float32")
    with tempfile.TemporaryDirectory() as folder:
        saved = serving.export_model(model, f"{folder}/unet", SAMPLES)
        file = serving.export_model(model, f"{folder}/unet.onnx", SAMPLES, format="onnx")
        half = serving.export_model(model, f"{folder}/half.onnx", SAMPLES, format="onnx", precision="float16")
        variables = sum(each.stat().st_size for each in (saved / "variables").iterdir())
        sizes = {"variables": variables + (saved / "saved_model.pb").stat().st_size, "onnx": file.stat().st_size}
        sizes["onnx float16"] = half.stat().st_size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        signatures = tf.saved_model.load(str(saved)).signatures
        rows = []
        for answer, signature, name in (
            ("one pass", "serving_default", "probabilities"),
            ("samples", "predict_mc", "mean"),
        ):
            ask = signatures[signature]
            old, new = medians(
                lambda ask=ask: ask(images=tf.constant(x)),
                lambda name=name: session.run([name], {"images": x, "sampled": np.array(name == "mean")}),
            )
            row = {"plan": plan, "answer": answer, "threads": threads, "tensorflow ms": round(1e3 * old, 1)}
            row |= {"onnx runtime ms": round(1e3 * new, 1), "times faster": round(old / new, 2)}
            row |= {f"{kind} KB": round(size / 1024) for kind, size in sizes.items()}
            print(row, flush=True)
            rows.append(row)
        return rows


def medians(*functions: Callable[[], object]) -> list[float]:
    """The median time of each function, in seconds, after a first call that is not counted."""
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(REPEATS):
        for function, seen in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            seen.append(time.perf_counter() - start)
    return [float(np.median(seen)) for seen in times]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
