"""Calibration: do the guarantees hold, what do they cost, and is a setting of the search ever worse than one pass?

    python benchmarks/calibration.py
    python benchmarks/calibration.py --what guarantees sets --data fashion_mnist --fashion FOLDER

The models are the reference models, and the images are their test images: `digits` (355), `fashion_mnist` (10,000,
if its files are there) and `digit_scenes` (`--scenes` new scenes of test digits). Nothing is trained except the
one epoch that the search is timed against.

- `guarantees`: for each guarantee and level, the mean risk on new images over `--splits` random splits into
  held-out and new images. It must be at most the level plus two standard errors over the splits, and should be at
  least 0.8 of the level; the column `aim` says where this does not apply because all images are kept. For `error`,
  which holds with a confidence of 0.9, this says less than the promise.
- `sets`: the mean size of class sets, beside the mean size of MAPIE's (`pip install mapie`) from the same
  probabilities.
- `outer`: the area of outer masks from samples, divided by the area of masks with the same guarantee from one pass
  with one threshold for all images, in images that hold the class. The note has the area in the other images.
- `search`: seconds for the search over sites, and for one epoch of training on the data's training images.
- `overfitted`: the NLL of the chosen setting minus that of one pass, both with and both without a temperature, for
  small CNNs that were trained on 300 noisy digits for `--epochs` epochs with dropout. One pass is overconfident
  there.
- `latency`: seconds of `predict_mc` of an export with a calibration (temperature and a promise) divided by those
  without one, batches of 8; and seconds of an export of five members divided by those of five exports of one.
- `settings`: NLL and ECE on test images of the setting that the search chose on validation images, minus those of
  one pass with its temperature, in standard errors of the difference; clean images and corrupted ones.

Results: benchmarks/results/calibration.csv. Rows that are in the file are measured again only with `--again`.
Predictions are kept in `--cache`.
"""

import argparse
import csv
import functools
import gzip
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from _shared import write_csv
from dropzoo import models, serving, training
from dropzoo.serving.calibration import bounds, grids
from dropzoo.serving.calibration.answers import by_size
from dropzoo.serving.calibration.figures import expected_calibration_error
from dropzoo.training.data.digits import digits_by_split, draw_scene

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "calibration.csv"
LEVELS = (0.05, 0.1, 0.2)
DATA = ("digits", "fashion_mnist", "digit_scenes")
WHAT = ("guarantees", "sets", "outer", "search", "settings", "overfitted", "latency")
CLASSES = (2, 5, 9)  # the digits 1, 4 and 8 of digit_scenes
HELD_OUT = 0.75  # of the images of a split

Row = dict[str, Any]
Pair = tuple[np.ndarray, np.ndarray]  # images and labels


def reference(name: str) -> keras.Model:
    """The reference model of a data set, with its dropout from training."""
    kind = {"digit_scenes": "unet"}.get(name, "simple_cnn")
    folder = ROOT / "saved_models" / f"{name}_{'unet' if kind == 'unet' else 'cnn'}"
    plan = json.loads((folder / "reference.json").read_text())["dropout"]
    return models.build_model(kind, weights=name, dropout=plan)


def images_of(name: str, arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The test images and their labels."""
    if name == "fashion_mnist":
        return read_idx(Path(arguments.fashion), "t10k")
    digits, labels = digits_by_split()["test"]
    if name == "digits":
        return digits[..., None].astype("float32"), labels
    pairs = [draw_scene(digits, labels, seed=[arguments.scene_seed, index]) for index in range(arguments.scenes)]
    images, masks = (np.stack(each) for each in zip(*pairs, strict=True))
    return (images[..., None] / 255).astype("float32"), masks.astype(int)


def read_idx(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of Fashion-MNIST's own files."""
    with gzip.open(folder / f"{split}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)
    with gzip.open(folder / f"{split}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return (images / 255).astype("float32"), labels.astype(int)


def predictions(name: str, arguments: argparse.Namespace) -> dict[str, np.ndarray]:
    """Labels, and mean probabilities of one pass and of samples, which are computed once."""
    path = Path(arguments.cache) / f"{name}-{arguments.samples}-{arguments.scenes}-{arguments.scene_seed}.npz"
    if path.exists():
        return dict(np.load(path))
    images, labels = images_of(name, arguments)
    model = reference(name)
    found = {"labels": labels}
    for column, predictor in (
        ("one_pass", serving.Ensemble([model])),
        ("samples", serving.MonteCarlo(model, arguments.samples)),
    ):
        batches = [predictor(images[i : i + 64])["mean"].numpy() for i in range(0, len(images), 64)]
        found[column] = np.concatenate(batches)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **found)
    return found


def splits(count: int, arguments: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for seed in range(arguments.splits):
        order = np.random.default_rng(seed).permutation(count)
        yield order[: round(HELD_OUT * count)], order[round(HELD_OUT * count) :]


def judged(risks: list[float], level: float) -> Row:
    """The mean risk, its standard error over splits, and whether it is low and close enough to the level."""
    mean, error = float(np.mean(risks)), float(np.std(risks, ddof=1) / np.sqrt(len(risks)))
    return {
        "level": level,
        "value": round(mean, 5),
        "standard_error": round(error, 5),
        "must": bool(mean <= level + 2 * error),
        "aim": bool(mean >= 0.8 * level),
    }


def guarantees(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    found = predictions(name, arguments)
    labels = found["labels"]
    for column in ("one_pass", "samples"):
        p = found[column]
        doubts = (1 - p.max(-1)).reshape(len(p), -1).mean(1)
        losses = (p.argmax(-1) != labels).reshape(len(p), -1).mean(1)
        curves = {k: mask_curves(p, labels, k, usual_size(k)) for k in CLASSES} if labels.ndim > 1 else {}
        for level in LEVELS:
            if labels.ndim == 1:
                yield f"set {column} {level}", lambda p=p, a=level: set_risk(p, labels, a, arguments)
            for k, each in curves.items():
                yield f"miss {column} {level} class {k}", lambda e=each, a=level: miss_risk(e, a, arguments)
                yield f"false {column} {level} class {k}", lambda e=each, a=level: false_risk(e, a, arguments)
            binary = labels.ndim == 1
            yield (
                f"error {column} {level}",
                lambda d=doubts, x=losses, a=level, b=binary: error_risk(d, x, a, b, arguments),
            )


def set_risk(p: np.ndarray, labels: np.ndarray, level: float, arguments: argparse.Namespace) -> Row:
    true = p[np.arange(len(p)), labels]
    return judged(
        [
            float((true[new] < bounds.conformal_threshold(true[old], level)).mean())
            for old, new in splits(len(p), arguments)
        ],
        level,
    )


def usual_size(k: int) -> float:
    """A quarter of the median share that a class takes up of the scenes, in scenes of training digits."""
    digits, labels = digits_by_split()["train"]
    shares = [float((draw_scene(digits, labels, seed=[0, index])[1] == k).mean()) for index in range(200)]
    return 0.25 * float(np.median([share for share in shares if share]))


def mask_curves(p: np.ndarray, labels: np.ndarray, k: int, floor: float) -> dict[str, np.ndarray]:
    """The loss curves of one class, for images that hold the class and for images in which the model sees it."""
    grid = grids.probability_grid()
    curves: dict[str, list[np.ndarray]] = {"miss": [], "area": [], "elsewhere": [], "bound": [], "false": []}
    scores = np.concatenate(
        [by_size(tf.constant(some), [floor]).numpy() for some in np.array_split(p[..., k : k + 1], 20)]
    )
    for values, score, mask, likeliest in zip(p[..., k], scores, labels == k, p.argmax(-1) == k, strict=True):
        flat, truth = values.ravel(), mask.ravel()
        size = grids.count_at_least(flat, grid)
        area = (grids.count_at_least(score.ravel(), grid) / len(flat)).astype("float32")
        curves["area" if truth.any() else "elsewhere"].append(area)
        if truth.any():
            curves["miss"].append(grids.missed_share(score.ravel(), truth, grid).astype("float32"))
        if likeliest.any():
            false = (size - grids.count_at_least(flat[truth], grid)) / np.maximum(size, 1)
            curves["false"].append(false.astype("float32"))
            curves["bound"].append(grids.false_share(flat, truth, grid).astype("float32"))
    return {name: np.array(each) for name, each in curves.items()}


def miss_risk(curves: dict[str, np.ndarray], level: float, arguments: argparse.Namespace) -> Row:
    miss, risks = curves["miss"], []
    for old, new in splits(len(miss), arguments):
        place = bounds.risk_control(miss[old].sum(0, dtype=float), len(old), level)
        risks.append(float(miss[new, place].mean()))
    return judged(risks, level)


def false_risk(curves: dict[str, np.ndarray], level: float, arguments: argparse.Namespace) -> Row:
    bound, false, risks = curves["bound"], curves["false"], []
    for old, new in splits(len(bound), arguments):
        place = bounds.risk_control(bound[old].sum(0, dtype=float)[::-1], len(old), level)
        risks.append(float(false[new, bound.shape[1] - 1 - place].mean()))
    return judged(risks, level)


def error_risk(
    doubts: np.ndarray, losses: np.ndarray, level: float, binary: bool, arguments: argparse.Namespace
) -> Row:
    """The error rate of the images that are kept, on average over splits; 0 in a split that keeps none."""
    risks, kept = [], []
    for old, new in splits(len(doubts), arguments):
        third = len(old) // 3
        first, then = old[:third], old[third:]
        start = bounds.best_start(doubts[first], losses[first], level)
        found = bounds.selective_threshold(doubts[then], losses[then], level, 0.9, binary, start)
        keep = doubts[new] < (-1.0 if found is None else found)
        risks.append(float(losses[new][keep].mean()) if keep.any() else 0.0)
        kept.append(float(keep.mean()))
    row = judged(risks, level) | {"kept": round(float(np.mean(kept)), 4)}
    # Where all images are kept, the level cannot be reached: nothing is wasted, and the aim does not apply.
    return row | ({"aim": "all are kept"} if not row["aim"] and row["kept"] > 0.995 else {})


def sets(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    found = predictions(name, arguments)
    if found["labels"].ndim > 1:
        return
    for column in ("one_pass", "samples"):
        for level in LEVELS:
            yield (
                f"size {column} {level}",
                lambda c=column, a=level: set_sizes(found[c], found["labels"], a, arguments),
            )


def set_sizes(p: np.ndarray, labels: np.ndarray, level: float, arguments: argparse.Namespace) -> Row:
    """The mean size of sets over a few splits, ours and MAPIE's."""
    ours, theirs = [], []
    few = argparse.Namespace(splits=min(arguments.splits, 20))
    for old, new in splits(len(p), few):
        true = p[old, labels[old]]
        ours.append(float((p[new] >= bounds.conformal_threshold(true, level)).sum(1).mean()))
        theirs.append(mapie_size(p[old], labels[old], p[new], level))
    row = {"level": level, "value": round(float(np.mean(ours)), 5)}
    if theirs[0] is None:
        return row | {"note": "MAPIE is not installed"}
    other = float(np.mean([each for each in theirs if each is not None]))
    return row | {"other": round(other, 5), "must": bool(row["value"] <= other + 0.002)}


def mapie_size(p: np.ndarray, labels: np.ndarray, new: np.ndarray, level: float) -> float | None:
    """The mean size of MAPIE's sets (LAC) from the same probabilities; None without MAPIE."""
    try:
        from mapie.classification import SplitConformalClassifier
    except ImportError:
        return None
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """A classifier whose features are its probabilities."""

        def __init__(self) -> None:
            self.classes_, self.n_features_in_ = np.arange(p.shape[1]), p.shape[1]

        def fit(self, x: np.ndarray, y: np.ndarray) -> "Given":
            return self

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            return x / x.sum(1, keepdims=True)

        def predict(self, x: np.ndarray) -> np.ndarray:
            return x.argmax(1)

        def __sklearn_is_fitted__(self) -> bool:
            return True

    conformal = SplitConformalClassifier(Given(), confidence_level=1 - level, conformity_score="lac", prefit=True)
    conformal.conformalize(p.astype(float), labels)
    _, found = conformal.predict_set(new.astype(float))
    return float(found[..., 0].sum(1).mean())


def outer(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    found = predictions(name, arguments)
    if found["labels"].ndim == 1:
        return
    curves = {
        "one_pass": {k: mask_curves(found["one_pass"], found["labels"], k, 1.0) for k in CLASSES},
        "samples": {k: mask_curves(found["samples"], found["labels"], k, usual_size(k)) for k in CLASSES},
    }
    for level in LEVELS:
        fresh = "" if arguments.scene_seed == 1 else f", scenes of seed {arguments.scene_seed}"
        yield f"area {level}{fresh}", lambda a=level: area_ratio(curves, a, arguments)


def area_ratio(
    curves: dict[str, dict[int, dict[str, np.ndarray]]], level: float, arguments: argparse.Namespace
) -> Row:
    areas: dict[str, list[float]] = {"one_pass": [], "samples": []}
    elsewhere: dict[str, list[float]] = {"one_pass": [], "samples": []}
    for column, by_class in curves.items():
        for each in by_class.values():
            for old, new in splits(len(each["miss"]), argparse.Namespace(splits=min(arguments.splits, 50))):
                place = bounds.risk_control(each["miss"][old].sum(0, dtype=float), len(old), level)
                areas[column].append(float(each["area"][new, place].mean()))
                elsewhere[column].append(float(each["elsewhere"][:, place].mean()))
    ratio = float(np.mean(areas["samples"]) / np.mean(areas["one_pass"]))
    note = ", ".join(f"{column} {np.mean(each):.4f}" for column, each in elsewhere.items())
    row: Row = {"level": level, "value": round(ratio, 4), "must": bool(ratio <= 0.95), "aim": bool(ratio <= 0.85)}
    return row | {"note": f"share of images without the class: {note}"}


def search(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    yield "seconds", lambda: search_seconds(name, arguments)


def search_seconds(name: str, arguments: argparse.Namespace) -> Row:
    model = reference(name)
    images, labels = images_of(name, arguments)
    mc = serving.MonteCarlo(model, arguments.samples)
    few = slice(0, 2000 if name == "fashion_mnist" else 200)
    seconds = {}
    for sites in ("as_is", "search"):
        start = time.perf_counter()
        cal = serving.calibrate(mc, images[few], labels[few], sites=sites, verbose=0)
        seconds[sites] = time.perf_counter() - start
    train = epoch_data(name, arguments)
    keras_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", keras_loss)
    model.fit(train.take(2), verbose=0)  # traces
    start = time.perf_counter()
    model.fit(train, verbose=0)
    epoch = time.perf_counter() - start
    value = seconds["search"] - seconds["as_is"]
    chosen = ", ".join(f"{site} {rate:.3g}" for site, rate in cal.sites.items()) or "one pass"
    return {"value": round(value, 1), "other": round(epoch, 1), "must": bool(value < epoch), "note": chosen}


def epoch_data(name: str, arguments: argparse.Namespace) -> tf.data.Dataset:
    if name == "fashion_mnist":
        return tf.data.Dataset.from_tensor_slices(read_idx(Path(arguments.fashion), "train")).batch(64)
    return training.load_data(name, batch_size=32).train.at_epoch(0)


def settings(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    for kind in ("clean", "gaussian_noise"):
        for figure in ("nll", "ece"):
            yield f"{figure} {kind}", lambda k=kind, f=figure: difference(name, k, f, arguments)


def difference(name: str, kind: str, figure: str, arguments: argparse.Namespace) -> Row:
    """The figure of the chosen setting minus that of one pass with its temperature, on images not used before."""
    rows = _differences(name, kind, arguments)
    mean, error = rows[figure]
    return {
        "value": round(mean, 5),
        "standard_error": round(error, 5),
        "must": bool(mean <= error),
        "aim": bool(mean < 0),
        "note": rows["note"],
    }


def overfitted(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    for seed in range(3) if name == "digits" else ():
        for tempers in (True, False):
            case = f"nll {'with' if tempers else 'without'} temperature, seed {seed}"
            yield case, lambda s=seed, t=tempers: overfitted_difference(s, t, arguments.epochs, arguments.samples)


def overfitted_difference(seed: int, tempers: bool, epochs: int, samples: int) -> Row:
    """The NLL on test digits of the setting that the search chose, minus that of one pass."""
    model, (images, labels), (new, truth) = overfitted_network(seed, epochs)
    mc = serving.MonteCarlo(model, samples)
    options: dict[str, Any] = {"temperature": tempers, "verbose": 0}
    chosen = serving.calibrate(mc, images, labels, sites="search", **options)
    one = serving.calibrate(model, images, labels, **options)
    losses = {}
    for column, cal in (("chosen", chosen), ("one", one)):
        p = serving.MonteCarlo(model, calibration=cal)(new)["mean"].numpy()
        losses[column] = -np.log(np.maximum(p[np.arange(len(truth)), truth], 1e-12))
    each = losses["chosen"] - losses["one"]
    mean, error = float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each)))
    sites = ", ".join(f"{site} {rate:.3g}" for site, rate in chosen.sites.items()) or "one pass"
    row: Row = {"value": round(mean, 5), "standard_error": round(error, 5), "must": mean <= error}
    return row | {"aim": mean < 0, "other": round(float(losses["one"].mean()), 5), "note": sites}


@functools.cache
def overfitted_network(seed: int, epochs: int) -> tuple[keras.Model, Pair, Pair]:
    """A CNN that was trained on 300 noisy digits, 800 held-out ones, and the test digits."""
    random = np.random.default_rng(seed)
    splits_of = digits_by_split()

    def noisy(split: str) -> Pair:
        images, labels = splits_of[split]
        worse = np.clip(images + 0.35 * random.normal(size=images.shape), 0, 1)
        return worse[..., None].astype("float32"), labels

    images, labels = noisy("train")
    keras.utils.set_random_seed(seed)
    plan = {"module?": "spatial_dropout2d:0.1", "dense1": 0.5}
    shape: dict[str, Any] = {"input_shape": (8, 8, 1), "num_classes": 10, "filters": (16, 32, 64), "dense": 128}
    model = models.build_model("simple_cnn", dropout=plan, **shape)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, epochs * 10)
    model.compile(keras.optimizers.AdamW(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images[:300], labels[:300], epochs=epochs, verbose=0)
    return model, (images[300:1100], labels[300:1100]), noisy("test")


def latency(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    yield "with a calibration", lambda: latency_of_calibration(name, arguments)
    yield "five members", lambda: latency_of_members(name, arguments)


def latency_of_calibration(name: str, arguments: argparse.Namespace) -> Row:
    model = reference(name)
    images, labels = (each[:200] for each in images_of(name, arguments))
    mc = serving.MonteCarlo(model, arguments.samples)
    guarantee = {"set": 0.1} if labels.ndim == 1 else {"miss": 0.2}
    options: dict[str, Any] = {} if labels.ndim == 1 else {"classes": CLASSES}
    cal = serving.calibrate(mc, images, labels, guarantee=guarantee, verbose=0, **options)
    with tempfile.TemporaryDirectory() as folder:
        loaded = [
            tf.saved_model.load(str(serving.export_model(model, f"{folder}/m", arguments.samples, **each)))
            for each in ({"sampling": cal.facts.sampling}, {"calibration": cal})
        ]
        plain, calibrated = ([each.signatures["predict_mc"]] for each in loaded)
        ratio, error = paired_ratio(calibrated, plain, images[:8])
    row: Row = {"value": round(ratio, 4), "standard_error": round(error, 4)}
    return row | {"must": bool(ratio - 2 * error <= 1.05), "samples": arguments.samples}


def latency_of_members(name: str, arguments: argparse.Namespace) -> Row:
    members = [reference(name) for _ in range(5)]
    images, _ = images_of(name, arguments)
    with tempfile.TemporaryDirectory() as folder:
        one = tf.saved_model.load(str(serving.export_model(members[0], f"{folder}/m", 0)))
        five = tf.saved_model.load(str(serving.export_model(serving.Ensemble(members), f"{folder}/m")))
        passes = [one.signatures["serving_default"]] * 5
        ratio, error = paired_ratio([five.signatures["serving_default"]], passes, images[:8])
    row: Row = {"value": round(ratio, 4), "standard_error": round(error, 4)}
    return row | {"must": bool(ratio - 2 * error <= 1.1), "aim": ratio < 1}


def paired_ratio(first: list[Any], second: list[Any], images: np.ndarray, rounds: int = 60) -> tuple[float, float]:
    """The median of the ratio of the seconds of two lists of calls, which take turns, and its standard error."""
    batch, ratios = tf.constant(images), []
    for turn in range(rounds + 5):
        seconds = []
        for calls in (first, second) if turn % 2 else (second, first):
            start = time.perf_counter()
            for call in calls:
                for value in call(images=batch).values():
                    value.numpy()
            seconds.append(time.perf_counter() - start)
        a, b = seconds if turn % 2 else reversed(seconds)
        ratios.append(a / b)
    kept = np.array(ratios[5:])
    spread = np.median(np.abs(kept - np.median(kept))) * 1.4826
    return float(np.median(kept)), float(1.25 * spread / np.sqrt(len(kept)))


_MEASURED: dict[tuple[str, str], dict[str, Any]] = {}


def _differences(name: str, kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    if (name, kind) in _MEASURED:
        return _MEASURED[name, kind]
    model = reference(name)
    images, labels = images_of(name, arguments)
    images, labels = images[:3000], labels[:3000]
    half = len(images) // 2
    chosen = serving.calibrate(
        serving.MonteCarlo(model, arguments.samples), images[:half], labels[:half], sites="search", verbose=0
    )
    one = serving.calibrate(model, images[:half], labels[:half], verbose=0)
    new = images[half:] if kind == "clean" else training.corrupt(images[half:], kind, 3)
    new, truth = np.asarray(new), labels[half:]
    rows = {}
    for column, cal in (("chosen", chosen), ("one", one)):
        predictor = serving.MonteCarlo(model, calibration=cal)
        p = np.concatenate([predictor(new[i : i + 50])["mean"].numpy() for i in range(0, len(new), 50)])
        rows[column] = p
    each = {
        c: -np.log(np.maximum(np.take_along_axis(p, truth[..., None], -1)[..., 0], 1e-12)) for c, p in rows.items()
    }
    losses = (each["chosen"] - each["one"]).reshape(len(truth), -1).mean(1)
    random = np.random.default_rng(0)
    resampled = [_ece_gap(rows, truth, random.integers(0, len(truth), len(truth))) for _ in range(50)]
    note = ", ".join(f"{site} {rate:.3g}" for site, rate in chosen.sites.items()) or "one pass"
    _MEASURED[name, kind] = {
        "nll": (float(losses.mean()), float(losses.std(ddof=1) / np.sqrt(len(losses)))),
        "ece": (_ece_gap(rows, truth, np.arange(len(truth))), float(np.std(resampled))),
        "note": note,
    }
    return _MEASURED[name, kind]


def _ece_gap(rows: dict[str, np.ndarray], truth: np.ndarray, chosen: np.ndarray) -> float:
    found = {}
    for column, p in rows.items():
        q = p[chosen]
        found[column] = expected_calibration_error(q.max(-1).ravel(), (q.argmax(-1) == truth[chosen]).ravel())
    return found["chosen"] - found["one"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Calibration: guarantees, their cost, and the search.")
    parser.add_argument("--what", nargs="+", choices=WHAT, default=WHAT)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--scene-seed", type=int, default=1, help="other scenes: `outer` names it in the case")
    parser.add_argument("--epochs", type=int, default=100, help="of the overfitted networks")
    parser.add_argument("--fashion", default=str(ROOT.parent / "shared" / "data" / "fashion_mnist"))
    parser.add_argument("--cache", default=str(Path(tempfile.gettempdir()) / "dropzoo-calibration"))
    parser.add_argument("--again", action="store_true", help="measure rows again that are in the results")
    arguments = parser.parse_args()
    rows = list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []
    for name in arguments.data:
        if name == "fashion_mnist" and not Path(arguments.fashion).exists():
            print(f"{name}: skipped, since {arguments.fashion} does not exist")
            continue
        for what in arguments.what:
            for case, measure in globals()[what](name, arguments):
                same = [row for row in rows if (row["data"], row["what"], row["case"]) == (name, what, case)]
                if same and not arguments.again:
                    continue
                rows = [row for row in rows if row not in same]
                rows.append({"data": name, "what": what, "case": case, **measure(), "samples": arguments.samples})
                print(rows[-1], flush=True)
                write_csv(RESULTS, rows)


if __name__ == "__main__":
    main()
