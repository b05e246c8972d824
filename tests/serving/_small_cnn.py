"""A small network and its images, for the tests of Monte-Carlo dropout."""

import keras
import numpy as np

from dropzoo import models

SAMPLINGS = ("balanced", "independent", "fixed")
SITES = {"module1": 0.3, "dense1": 0.3}


def images(batch: int = 5, size: tuple[int, ...] = (8, 8), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((batch, *size, 1), "float32")


def small_cnn(dropout=SITES, *, weights_seed: int = 1, scale: float = 3.0, **options) -> keras.Model:
    keras.utils.set_random_seed(weights_seed)
    shape = {"input_shape": (8, 8, 1), "filters": (8,), "dense": (16,), "num_classes": 4}
    model = models.build_model("simple_cnn", dropout=dropout, **{**shape, **options})
    for weight in model.trainable_weights:  # sure of its answers, as trained models are
        weight.assign(weight * scale)
    return model
