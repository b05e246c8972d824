"""What uncertainty costs and what it is worth: one pass, Monte-Carlo dropout, an ensemble, test-time augmentation.

    python benchmarks/uncertainty.py
    python benchmarks/uncertainty.py --data fashion_mnist --manual-dir ~/Downloads/fashion_mnist --limit 20000

Five CNNs with dropout are trained alike; they differ only in their seeds, 0 to 4. `deterministic` is the first of
them with its dropout off, and `Monte Carlo` is the same model with its dropout on. `augmentation` is the same
model on the image and its mirror image. Mirrored digits are no longer digits, so on `digits` its row shows
what a wrong augmentation does. `ensemble` is the mean of all five with their dropout off.

The figures are accuracy, NLL in nats, ECE over 15 equal bins, Brier score, and the AUROC of error detection by
entropy. They are measured on the test set, and as means over the corruption suite, with five severities each, on
the first `--corrupted` test images. `ms_per_image` is the median of interleaved calls with 64 images. `training_s`
is the sum over the models that the method needs. This is one run, so a difference of less than about two standard
errors (`accuracy_se`) says nothing.

Results: benchmarks/results/uncertainty.csv, where the rows of other data sets stay.
"""

import argparse
import csv
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from _shared import write_csv
from dropzoo import models, serving, training
from dropzoo.runs.evaluation import corrupted, log_probabilities, score
from dropzoo.runs.scores import Scores

RESULTS = Path(__file__).parent / "results" / "uncertainty.csv"
FIGURES = ("accuracy", "nll", "ece", "brier", "error_auroc")
MEMBERS, ROUNDS = 5, 9


def train(data: training.Data, seed: int, epochs: int) -> tuple[keras.Model, float]:
    """Returns a trained model, and the seconds that its training took."""
    keras.utils.set_random_seed(seed)
    model = models.build_model(
        "simple_cnn",
        input_shape=data.info.input_shape,
        num_classes=data.info.num_classes,
        filters=(32, 64),
        dense=128,
        dropout={"module?": "spatial_dropout2d:0.1", "dense1": 0.5},
    )
    start = time.perf_counter()
    training.Trainer(model, keras.optimizers.Adam(1e-3)).fit(data.train, epochs=epochs, verbose=0)
    return model, time.perf_counter() - start


def milliseconds(methods: dict[str, Callable[[Any], Any]], images: tf.Tensor) -> dict[str, float]:
    """Returns the milliseconds per image. The methods take turns; two earlier rounds trace and warm up."""
    times: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(ROUNDS + 2):
        for name, method in methods.items():
            start = time.perf_counter()
            np.asarray(method(images)["mean"])
            if turn >= 2:
                times[name].append(1e3 * (time.perf_counter() - start) / len(images))
    return {name: float(np.median(each)) for name, each in times.items()}


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    options = {"manual_dir": arguments.manual_dir, "limit": arguments.limit}
    data = training.load_data(arguments.data, batch_size=64, validation_split=0.0, **options)
    trained = [train(data, seed, arguments.epochs) for seed in range(MEMBERS)]
    members, seconds = [model for model, _ in trained], [each for _, each in trained]
    first = members[0]
    methods: dict[str, Any] = {
        "deterministic": serving.Ensemble([first]),
        "Monte Carlo, T = 10": serving.MonteCarlo(first, 10),
        "Monte Carlo, T = 30": serving.MonteCarlo(first, 30),
        f"ensemble of {MEMBERS}": serving.Ensemble(members),
        "augmentation, mirrored": serving.TestTimeAugmentation(first),
    }
    images = tf.concat([x for x, _ in data.test.take(2)], 0)[:64]
    cost = milliseconds(methods, images)
    few = data.test.unbatch().take(arguments.corrupted).batch(64).cache()
    scores, rows = Scores(data.info), []
    for name, method in methods.items():
        predict = log_probabilities(first, method)
        clean = score(predict, data.test, scores.reset()).figures()
        worse = [
            score(predict, corrupted(few, kind, severity), scores.reset()).figures()
            for kind in training.list_corruptions()
            for severity in range(1, 6)
        ]
        mean = {key: fmean(each[key] for each in worse) for key in FIGURES}
        for images_are, found, count in (("clean", clean, clean["count"]), ("corrupted", mean, worse[0]["count"])):
            row: dict[str, Any] = {"data": arguments.data, "images": images_are, "count": count, "method": name}
            row |= {key: round(found[key], 4) for key in FIGURES}
            row["accuracy_se"] = round((row["accuracy"] * (1 - row["accuracy"]) / count) ** 0.5, 4)
            row["ms_per_image"] = round(cost[name], 3)
            row["training_s"] = round(sum(seconds) if name.startswith("ensemble") else seconds[0], 1)
            rows.append(row)
            print(", ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost and quality of uncertainty.")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--manual-dir")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--limit", type=int, help="number of training images to use, from the first")
    parser.add_argument("--corrupted", type=int, default=500, help="test images of each corruption and severity")
    arguments = parser.parse_args()
    kept = list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []
    rows = [row for row in kept if row["data"] != arguments.data] + measure(arguments)
    write_csv(RESULTS, rows)


if __name__ == "__main__":
    main()
