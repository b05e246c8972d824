"""The models and images of the benchmark, their predictions, and random splits of them."""

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from calibrating import injected, nuclei

from dropzoo import models, serving, training
from dropzoo.training.data.digits import digits_by_split, draw_scene

ROOT = Path(__file__).parents[2]
LEVELS = (0.05, 0.1, 0.2)
CLASSES = {"digit_scenes": (2, 5, 9), "nuclei": (1,)}  # the digits 1, 4 and 8; the nuclei
HELD_OUT = 0.75  # of the images of a split

Row = dict[str, Any]
Pair = tuple[np.ndarray, np.ndarray]  # images and labels


def network(name: str, arguments: argparse.Namespace) -> keras.Model:
    """The network of a data set: its reference model, with the dropout from its training."""
    if name == "cifar10_jpeg":
        return injected.network(arguments)
    kind = "unet" if name in ("digit_scenes", "dsb2018_nuclei") else "simple_cnn"
    folder = ROOT / "saved_models" / f"{name}_{'unet' if kind == 'unet' else 'cnn'}"
    plan = json.loads((folder / "reference.json").read_text())["dropout"]
    return models.build_model(kind, weights=name, dropout=plan)


def images_of(name: str, arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The test images and their labels."""
    if name == "fashion_mnist":
        return read_idx(Path(arguments.fashion), "t10k")
    if name == "cifar10_jpeg":
        return injected.images_of(arguments, "test")
    if name == "dsb2018_nuclei":
        test = training.load_data(arguments.dsb2018, batch_size=1).test.as_numpy_iterator()
        images, masks = (np.concatenate(each) for each in zip(*test, strict=True))
        return images, masks.astype(int)
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
    found: dict[str, list[np.ndarray]] = {"labels": [], "one_pass": [], "samples": []}
    all_parts = (
        nuclei.parts(arguments) if name == "nuclei" else [(network(name, arguments), *images_of(name, arguments))]
    )
    for model, images, labels in all_parts:
        found["labels"].append(labels)
        for column, predictor in (
            ("one_pass", serving.Ensemble([model])),
            ("samples", serving.MonteCarlo(model, arguments.samples)),
        ):
            found[column] += [predictor(x)["mean"].numpy() for x in batches(images)]
    joined = {column: np.concatenate(each) for column, each in found.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **joined)
    return joined


def batches(images: np.ndarray) -> Iterator[np.ndarray]:
    """The images in batches of 50."""
    return (images[i : i + 50] for i in range(0, len(images), 50))


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
