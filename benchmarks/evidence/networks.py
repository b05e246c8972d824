"""The networks of the experiments, and the data sets as arrays."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dropzoo import models, training

#: Folder of data sets that are not part of the project. Settings on a set that is missing are skipped.
SHARED = Path(__file__).parents[3] / "shared" / "data"
TEST_IMAGES = 4000  # at most so many, the same for all jobs: sampling all of them would outlast the training
MASKS = ("nuclei", "membranes", "digit_scenes")

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    # About 400,000 weights; it fits a few thousand images completely.
    "CNN": ("simple_cnn", {"filters": (32, 64, 128), "dense": (256,)}),
    "small CNN": ("simple_cnn", {"filters": (16, 32, 64), "dense": (128,)}),
    "small CNN without BatchNorm": (
        "simple_cnn",
        {"filters": (16, 32, 64), "dense": (128,), "normalization": None},
    ),
    "CNN with large kernels": ("simple_cnn", {"filters": (32, 64), "dense": (256,), "kernel_size": 5}),
    "CNN with two convolutions": ("simple_cnn", {"filters": (24, 48, 96), "dense": (), "convs_per_module": 2}),
    "CNN with strides": ("simple_cnn", {"filters": (32, 64, 128), "dense": (128,), "downsample": "stride"}),
    "CNN of four modules": ("simple_cnn", {"filters": (16, 32, 64, 128), "dense": (128,), "activation": "elu"}),
    "tiny CNN": ("simple_cnn", {"filters": (4,), "dense": (16,), "normalization": None}),
    "ResNet-20": ("resnet20", {}),
    # Two million weights.
    "U-Net": ("unet", {"depth": 4, "filters": 16}),
    "small U-Net": ("unet", {"depth": 3, "filters": 16}),
}
#: The members of an ensemble that is not of one network.
FAMILIES = {
    "five architectures": (
        *("CNN", "CNN with large kernels", "CNN with two convolutions"),
        *("CNN with strides", "CNN of four modules"),
    )
}


@dataclass(frozen=True)
class Images:
    """The images of a job as arrays: images in [0, 1] and labels, or masks.

    Attributes:
        train: Pair of arrays.
        validation: Pair of arrays.
        test: Pair of arrays.
        classes: Int, the number of classes.
        task: `"classification"` or `"segmentation"`.
    """

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: int
    task: str


def has(data: str) -> bool:
    """Returns whether a data set is there."""
    folder = _FOLDERS.get(data)
    return folder is None or (SHARED / folder).is_dir()


_FOLDERS = {
    "fashion_mnist": "fashion_mnist",
    "cifar10": "cifar10_jpeg",
    "nuclei": "dsb2018_nuclei",
    "membranes": "isbi2012_membranes",
}


def images_of(data: str, count: int, seed: int) -> Images:
    """Returns `count` training images that the seed draws, the validation images and the test images."""
    pool, test, info = _pool(data)
    labels = pool[1]
    kept = _validation(data, len(labels))
    if data == "membranes":  # neighbouring slices are alike, so the validation slices are a block
        order = np.arange(len(labels))
    else:
        order = np.random.default_rng(seed).permutation(len(labels) - kept)
    chosen, held = order[: min(count, len(labels) - kept)], slice(len(labels) - kept, None)
    train = pool[0][chosen], labels[chosen]
    return Images(train, (pool[0][held], labels[held]), test, info.num_classes, info.task)


def _validation(data: str, count: int) -> int:
    """Returns how many training images are kept for validation. They are the last ones, whatever the seed is."""
    return {"fashion_mnist": 1500, "cifar10": 1000, "nuclei": 16, "membranes": 4, "digit_scenes": 100}.get(
        data, count // 5
    )


@functools.lru_cache(maxsize=2)
def _pool(data: str) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], training.DataInfo]:
    """Returns all training images in an order that the data set fixes, the test images, and the facts."""
    folder = _FOLDERS.get(data)
    manual = str(SHARED / folder) if data == "fashion_mnist" else None
    name = data if manual or folder is None else str(SHARED / folder)
    loaded = training.load_data(name, manual_dir=manual, validation_split=0.0, batch_size=100)
    train = _arrays(loaded.train.as_stored())
    mixed = (
        np.arange(len(train[1])) if data == "membranes" else np.random.default_rng(0).permutation(len(train[1]))
    )
    test = _arrays(loaded.test)
    if data == "nuclei":
        test = test[0][:24], test[1][:24]
    if data == "membranes":
        test = test[0][:, :256, :256], test[1][:, :256, :256]
    return (train[0][mixed], train[1][mixed]), (test[0][:TEST_IMAGES], test[1][:TEST_IMAGES]), loaded.info


def _arrays(batches: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    images, labels = (np.concatenate(each) for each in zip(*batches.as_numpy_iterator(), strict=True))
    return images, labels


def build(network: str, dropout: Any, shape: tuple[int, ...], classes: int, seed: int) -> keras.Model:
    """Returns a new model with the weights that the seed gives."""
    name, options = NETWORKS[network]
    size = (None, None, shape[-1]) if name == "unet" else shape
    keras.utils.set_random_seed(seed)
    return models.build_model(name, input_shape=size, num_classes=classes, dropout=dropout, **options)
