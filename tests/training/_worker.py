"""One worker of a run on several, or the only one: `_worker.py RESULT STRATEGY RATE DIRECTORY [STOP]`.

STRATEGY is "one", "mirrored" (two logical CPUs) or "workers" (by TF_CONFIG). The weights go to RESULT, with the
history, the masks of the first dropout layer and what callbacks wrote. STOP is a signal that the process gets
after so many executions: "11:9" kills it. Runs without dropout have batch normalisation, but
for one called "plain".
"""

import os
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from _trainer_runs import StopAt, dataset
from dropzoo import layers
from dropzoo.training import multi_worker_strategy
from dropzoo.training.trainer import Trainer


class Signal(StopAt):
    def __init__(self, spec):
        executions, number = map(int, spec.split(":"))
        super().__init__(executions)
        self.number = number

    def on_train_batch_end(self, batch, logs=None):
        self.steps -= 1
        if self.steps == 0:
            os.kill(os.getpid(), self.number)


def run(result, strategy=None, rate=0.0, directory=None, stop=()):
    with strategy.scope() if strategy else tf.init_scope():
        keras.utils.set_random_seed(3)
        normalised = Path(result).name != "plain" and not rate
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(4, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(0.01)),
                *([keras.layers.BatchNormalization(momentum=0.9)] if normalised else []),
                keras.layers.Flatten(),
                layers.Dropout(rate, seed=1),
                keras.layers.Dense(10),
            ]
        )
    trainer = Trainer(model, keras.optimizers.Adam(0.01), strategy=strategy, steps_per_execution=3)
    history = trainer.fit(
        dataset(59, 12),  # the last batch of an epoch is uneven
        validation_data=dataset(25),
        epochs=10,
        callbacks=[keras.callbacks.CSVLogger(f"{result}.csv"), *map(Signal, stop)],
        checkpoint_dir=directory,
        verbose=0,
    ).history

    def mask():
        return model.layers[-2](tf.ones((2, 400)), training=True)

    @tf.function(autograph=False)
    def draw():
        return strategy.run(mask)

    masks = [value.numpy() for value in strategy.experimental_local_results(draw())] if strategy else [mask()]
    curves = [history[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")]
    values = {f"weight{index}": weight.numpy() for index, weight in enumerate(model.weights)}
    np.savez(Path(f"{result}.npz"), curves=curves, masks=np.stack(masks), **values)


if __name__ == "__main__":
    result, which, rate, directory, *stop = sys.argv[1:]
    strategy = None
    if which == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    elif which == "workers":
        strategy = multi_worker_strategy(timeout=10)
    run(result, strategy, float(rate), None if directory == "-" else directory, stop)
