"""A run to be killed: `_killed.py DIRECTORY [REPORT]`. Started again, it goes on; REPORT gets the end.

Prints a line after each step and in validation, so that the other process knows how far it is.
"""

import sys
from pathlib import Path

import keras
import numpy as np

from _trainer_runs import Shuffled, dataset, dropout_model
from dropzoo.training.trainer import Trainer

EPOCHS = 20
LINES = 6  # of an epoch: four steps, two batches of validation


class Say(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print("step", batch, flush=True)

    def on_test_batch_end(self, batch, logs=None):
        print("step of validation", batch, flush=True)


def run(directory, report=None):
    model = dropout_model()
    trainer = Trainer(model, keras.optimizers.Adam(0.01), deterministic=True, steps_per_execution=2)
    history = trainer.fit(
        Shuffled(),
        validation_data=dataset(24),
        epochs=EPOCHS,
        checkpoint_dir=directory,
        checkpoint_every=1,
        callbacks=[Say()],
        verbose=0,
    ).history
    if report:
        values = [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]
        np.savez(Path(report), history["loss"], history["val_loss"], *values)


if __name__ == "__main__":
    run(*sys.argv[1:])
