"""Small models, data and runs that the tests of the trainer share."""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from dropzoo.training.trainer import Trainer

EPOCHS, STEPS = 3, 4


class Shuffled:
    """48 digits in an order that is a function of the epoch."""

    def at_epoch(self, epoch):
        images, labels = digits(48)
        order = np.random.default_rng(epoch).permutation(len(images))
        return tf.data.Dataset.from_tensor_slices((images[order], labels[order])).batch(12)


@keras.saving.register_keras_serializable(package="tests")
class LiveScale(keras.layers.Layer):
    """A layer with a live rate, as dropout layers have: a property outside the layer's weights."""

    _rate = 0.0

    @property
    def rate(self):
        return self._rate

    @rate.setter
    def rate(self, value):
        self._rate = value

    def call(self, inputs):
        return inputs


class StopAt(keras.callbacks.Callback):
    """Stops, or is interrupted, after one step of the whole run."""

    def __init__(self, step, interrupt=False):
        super().__init__()
        self.steps, self.interrupt = step, interrupt

    def on_train_batch_end(self, batch, logs=None):
        self.steps -= 1
        if self.steps == 0:
            if self.interrupt:
                raise KeyboardInterrupt
            self.model.stop_training = True


def digits(count):
    images, labels = load_digits(return_X_y=True)
    return images[:count].reshape(-1, 8, 8, 1).astype("float32") / 16.0, labels[:count].astype("int32")


def dataset(count=48, batch_size=12):
    return tf.data.Dataset.from_tensor_slices(digits(count)).batch(batch_size)


def dropout_model(units=10):
    """Random draws, running statistics and a live rate, some of them in a nested model."""
    keras.utils.set_random_seed(3)
    block = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.Dropout(0.3), LiveScale()])
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.BatchNormalization()(block(inputs))
    x = keras.layers.Flatten()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.Dense(units)(keras.layers.Dropout(0.5)(x)))


def plain_model(outputs=10):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(0.01)),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(outputs),
        ]
    )


def linear_model():
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])


def train_run(directory=None, callbacks=None, epochs=EPOCHS, **options):
    model = dropout_model()
    trainer = Trainer(model, keras.optimizers.Adam(0.01), deterministic=True)
    fit = {"epochs": epochs, "callbacks": callbacks, "checkpoint_dir": directory, "verbose": 0, **options}
    return model, trainer.fit(Shuffled(), validation_data=dataset(24), **fit)
