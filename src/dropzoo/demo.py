"""The demo: trains, evaluates, samples and exports two models on real digits, and writes a report on them."""

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from dropzoo import serving
from dropzoo.pages.demo import Section, write_report
from dropzoo.runs.config import RunConfig
from dropzoo.runs.data import judged_images
from dropzoo.runs.evaluation import evaluate
from dropzoo.runs.files import read_history
from dropzoo.runs.run import train_run
from dropzoo.runs.ways import judge

NUM_SAMPLES = 20
#: The runs of the demo. There are few training images, and enough epochs to fit them, so that the networks without
#: dropout are too sure of themselves. `benchmarks/demo.py` repeats them with ten seeds.
RUNS = {
    "cnn": RunConfig(
        model="simple_cnn",
        data="digits",
        dropout={"module?_conv?": 0.1, "module?": 0.1, "dense*": 0.3},
        options={"filters": [64, 128], "dense": [256]},
        epochs=60,
        limit=300,
        learning_rate=2e-3,
    ),
    "unet": RunConfig(
        model="unet",
        data="digit_scenes",
        dropout={"bottleneck_conv?": 0.3},
        options={"depth": 3, "filters": 12},
        epochs=35,
        limit=60,
        batch_size=4,
        learning_rate=3e-3,
    ),
}
# Loads an export where neither this package nor Keras can be imported, and saves its answers.
_FRESH_PROCESS = """
import sys
sys.modules["dropzoo"] = sys.modules["keras"] = None
import numpy as np, tensorflow as tf
path, images, answers = sys.argv[1:]
model = tf.saved_model.load(path)
x = tf.constant(np.load(images))
out = {**model.signatures["serving_default"](images=x), **model.signatures["predict_mc"](images=x)}
np.savez(answers, **{name: value.numpy() for name, value in out.items()})
"""


def run_demo(out: Path, say: Callable[[str], None] = print) -> Path:
    """Trains, evaluates, samples, exports and reloads both models, and writes the report.

    A demo that was stopped continues where it stopped.

    Args:
        out: Path of the demo's folder.
        say: Function that prints a line.

    Returns:
        The path of the report.

    Raises:
        ValueError: If `out` holds something else.
        RuntimeError: If an export does not load in a fresh process.
    """
    start = time.perf_counter()
    if out.is_dir() and any(out.iterdir()) and not (out / "runs").is_dir():
        raise ValueError(f"{out} holds something that is not a demo; choose another folder with --out")
    sections = [_run(name, config, out, say) for name, config in RUNS.items()]
    report = write_report(out / "report.html", sections, out)
    say(f"Done in {time.perf_counter() - start:.0f} s. Open {report}")
    return report


def _run(name: str, config: RunConfig, out: Path, say: Callable[[str], None]) -> Section:
    trained: dict[str, keras.Model] = {}
    histories = {}
    for title, dropout in {"without dropout": None, "with dropout": config.dropout}.items():
        folder = out / "runs" / f"{name}_{title.replace(' ', '_')}"
        say(f"\n{name} {title}: training in {folder}")
        run = dataclasses.replace(config, dropout=dropout)
        trained[title], _ = train_run(run, folder, say=say, verbose=0, steps_per_execution=8)
        histories[title] = read_history(folder)
    data = config.load_data()
    test = judged_images(data)
    model = trained["with dropout"]

    say(f"{name}: evaluating one pass and {NUM_SAMPLES} samples, with and without a temperature")
    train = {title: evaluate(each, data.train.at_epoch(0), data.info) for title, each in trained.items()}
    scores = {
        f"{title}, {way}".replace(", one pass", "").replace("samples", f"{NUM_SAMPLES} samples"): found
        for title, each in trained.items()
        for way, found in judge(each, data, NUM_SAMPLES).items()
    }
    monte_carlo = serving.MonteCarlo(model, num_samples=NUM_SAMPLES)

    export = out / "saved_models" / name / "1"
    say(f"{name}: exporting to {export} and loading it in a process without this package")
    serving.export_model(model, export, num_samples=NUM_SAMPLES, class_names=data.info.class_names, overwrite=True)
    difference = _check_export(model, export, next(iter(test))[0].numpy()[:4], out)
    say(f"  the largest difference between the export's and the model's probabilities is {difference:.1e}")

    images, labels, answers, searched = _most_uncertain(monte_carlo, test, count=8 if name == "cnn" else 4)
    return Section(config, model, histories, train, scores, images, labels, answers, searched, export, difference)


def _most_uncertain(
    monte_carlo: serving.MonteCarlo, dataset: tf.data.Dataset, count: int
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], int]:
    """Returns `count` test images with labels and answers: the first ones, then as many of the most uncertain.

    The last value is the number of images that were searched: those of the first six batches.
    """
    batches = [(x.numpy(), y.numpy()) for x, y in dataset.take(6)]
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    parts = [monte_carlo(x) for x, _ in batches]
    answers = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    score = answers["mutual_information"].reshape(len(images), -1).mean(1)
    hardest = np.argsort(-score)[: count // 2]
    chosen = np.concatenate([np.setdiff1d(np.arange(count), hardest)[: count - len(hardest)], hardest])
    found = {name: value[chosen] for name, value in answers.items()}
    return images[chosen], labels[chosen], found, len(images)


def _check_export(model: keras.Model, export: Path, images: np.ndarray, out: Path) -> float:
    """Asks the export in a fresh process; returns the largest difference from the model's own probabilities."""
    given, answers = out / "images.npy", out / "answers.npz"
    np.save(given, images)
    command = [sys.executable, "-c", _FRESH_PROCESS, *map(str, (export, given, answers))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The export {export} does not load in a fresh process:\n{done.stderr[-2000:]}")
    with np.load(answers) as file:
        probabilities = file["probabilities"]
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(model(images, training=False)))
    given.unlink()
    answers.unlink()
    return float(abs(probabilities - expected).max())
