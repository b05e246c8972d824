"""A run to be killed: `_killed.py DIRECTORY [REPORT]`. Started again, it goes on; REPORT gets the end.

Prints a line when training has begun, so that whoever kills it does not kill TensorFlow's import.
"""

import sys
from pathlib import Path

import keras
import numpy as np

from _trainer_runs import Shuffled, dataset, dropout_model
from dropzoo.training.trainer import Trainer


class Say(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print("step", batch, flush=True)


if __name__ == "__main__":
    model = dropout_model()
    trainer = Trainer(model, keras.optimizers.Adam(0.01), deterministic=True, steps_per_execution=2)
    history = trainer.fit(
        Shuffled(),
        validation_data=dataset(24),
        epochs=40,
        checkpoint_dir=sys.argv[1],
        checkpoint_every=1,
        callbacks=[Say()],
        verbose=0,
    ).history
    if len(sys.argv) > 2:
        values = [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]
        np.savez(Path(sys.argv[2]), history["loss"], history["val_loss"], *values)
