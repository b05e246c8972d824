"""A run to be killed: `_killed.py NAME DATA DIRECTORY [REPORT]`. Started again, it goes on; REPORT gets the end.

Prints a line after each step and in validation, so that the other process knows how far it is. The runs of `RUNS`
together have every option of the recipe that a step depends on.
"""

import sys
from pathlib import Path

import keras
import numpy as np

from dropzoo.runs.config import RunConfig

EPOCHS = 3
LINES = 6  # of an epoch: four steps, two batches of validation
RUNS = {
    "masks": dict(
        model="unet",
        options={"depth": 2, "filters": 2},
        dropout={"decoder*": 0.1, "bottleneck*": 0.3},
        rate_schedule={"bottleneck*": "linear:0.0,0.3"},
        augment="flip_horizontal,rotation=10,crop=8,foreground=0.5,elastic=1,noise=0.05,gamma=0.3,blur=0.5",
        optimizer="adamw:weight_decay=0.05",
        learning_rate_schedule="one_cycle",
        warmup=1.0,
        clip_norm=1.0,
        ema=0.9,
        balance="weights",
        label_smoothing=0.1,
        deep_supervision=True,
        ignore_class=255,
        cache="none",
    ),
    "labels": dict(
        model="simple_cnn",
        options={"filters": (2, 4), "dense": 4},
        dropout=0.2,
        augment="flip_vertical,brightness=0.1,contrast=0.1",
        optimizer="sgd:momentum=0.9,nesterov=True",
        learning_rate_schedule="polynomial",
        mixup=0.2,
        cutmix=1.0,
        balance="sampling",
        precision="mixed_bfloat16",
        cache="memory",
    ),
}


class Say(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print("step", batch, flush=True)

    def on_test_batch_end(self, batch, logs=None):
        print("step of validation", batch, flush=True)


def run(name, folder, directory, report=None):
    splits = {"test_split": 0.0, "validation_split": 0.25, "batch_size": 6}
    config = RunConfig(data=folder, epochs=EPOCHS, learning_rate=0.01, **splits, **RUNS[name])
    data = config.load_data()
    model = config.build(data.info)
    trainer = config.trainer(model, data.info, deterministic=True, steps_per_execution=2)
    history = trainer.fit(
        data.train,
        validation_data=data.validation,
        epochs=EPOCHS,
        checkpoint_dir=directory,
        checkpoint_every=1,
        callbacks=[*config.rate_callbacks(), Say()],
        class_weight=config.class_weight(data.train, data.info),
        verbose=0,
    ).history
    if report:
        trained = trainer.model
        values = [
            variable.numpy().astype("float64") for variable in (*trained.variables, *trained.optimizer.variables)
        ]
        np.savez(Path(report), history["loss"], history["val_loss"], *values)


if __name__ == "__main__":
    run(*sys.argv[1:])
