"""The seconds of the search over sites, beside an epoch of training."""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import tensorflow as tf
from calibrating.data import Row, images_of, network, read_idx

from dropzoo import serving, training


def search(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    yield "seconds", lambda: search_seconds(name, arguments)


def search_seconds(name: str, arguments: argparse.Namespace) -> Row:
    model = network(name, arguments)
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
