"""A network of keras.applications that was trained without dropout, and gets dropout afterwards."""

import argparse
from pathlib import Path

import keras
import numpy as np

from dropzoo import models

_PLAN = {"after:Add": 0.1, "before:Dense": 0.5}
_EPOCHS = 40


def network(arguments: argparse.Namespace) -> keras.Model:
    """MobileNetV2, trained once on the training images of `cifar10_jpeg`, with dropout that retrofit adds."""
    file = Path(arguments.cache) / "mobilenet_cifar10_jpeg.keras"
    if not file.exists():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((32, 32, 3))
        scaled = keras.layers.Rescaling(2.0, -1.0)(inputs)
        base = keras.applications.MobileNetV2((32, 32, 3), 0.5, False, None, scaled, pooling="avg")
        model = keras.Model(inputs, keras.layers.Dense(10, name="logits")(base.output))
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.9  # Keras' 0.999 is for longer trainings: inference would be at chance here
        images, labels = images_of(arguments, "train")
        steps = _EPOCHS * -(-len(images) // 64)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        test = images_of(arguments, "test")
        model.fit(images, labels, batch_size=64, epochs=_EPOCHS, validation_data=test, verbose=2)
        file.parent.mkdir(parents=True, exist_ok=True)
        model.save(file)
    return models.retrofit(keras.models.load_model(file), _PLAN)


def images_of(arguments: argparse.Namespace, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The images of a split in random order, in [0, 1], and their labels."""
    found = keras.utils.image_dataset_from_directory(
        Path(arguments.cifar) / split, image_size=(32, 32), batch_size=None, seed=0, verbose=False
    )
    images, labels = (np.stack(each) for each in zip(*found.as_numpy_iterator(), strict=True))
    return (images / 255).astype("float32"), labels.astype(int)
