"""The chosen setting of small networks that fit few noisy digits, where one pass is overconfident."""

import argparse
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from calibrating.data import Pair, Row

from dropzoo import models, serving
from dropzoo.training.data.digits import digits_by_split


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
