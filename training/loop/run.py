"""One call of `Trainer.fit`: epochs of executions, with the callbacks, checkpoints and validation between them."""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from dropzoo.training.loop import batches, checkpoints, replicas
from dropzoo.training.loop.checkpoints import Checkpoint
from dropzoo.training.loop.feeds import Feed, unreadable_named
from dropzoo.training.loop.ordered import Order
from dropzoo.training.loop.pixels import STEPS, Images
from dropzoo.training.loop.program import Program
from dropzoo.training.loop.signals import StopSignals


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of a run that no step changes.

    Args:
        train: The training data.
        validation: The data to evaluate after each epoch, or None.
        order: The order in which arrays are read, with its seed.
        directory: Folder of the checkpoints, or None.
        checkpoint_every: Int or None. A checkpoint is also written each time that this many steps are done.
        strategy: A `tf.distribute.Strategy` or None.
        steps_per_execution: Int. Steps on the device for each call from Python.
        on_nan: `"stop"` or `"restore"`.
        described: The result of `identity.describe` when the run began.
        images: The training images' range, which the first steps may show.
    """

    train: Feed
    validation: Feed | None
    order: Order
    directory: Path | None
    checkpoint_every: int | None
    strategy: tf.distribute.Strategy | None
    steps_per_execution: int
    on_nan: str
    described: list[str]
    images: Images


class Run:
    """The course of a run from its start, or from a checkpoint, to its end.

    Args:
        model: A compiled model with all its variables.
        program: The compiled loops of the model.
        settings: The arguments of the run.
        callbacks: Keras' list of callbacks. The constructor calls its `on_train_begin`.
        signals: The signals that this process got.
        steps: Int or None. The number of steps of an epoch; None while it is not known.
        saved: The checkpoint from which the run continues, with its file, or None.

    Attributes:
        last: The path of the last checkpoint, or None.
    """

    def __init__(
        self,
        model: keras.Model,
        program: Program,
        settings: Settings,
        callbacks: keras.callbacks.CallbackList,
        signals: StopSignals,
        steps: int | None,
        saved: tuple[Checkpoint, Path] | None,
    ) -> None:
        self.model, self.program, self.settings = model, program, settings
        self.callbacks, self.signals, self.steps = callbacks, signals, steps
        self.last: Path | None = None
        self.start, self.skip = 0, 0
        model.stop_training = False
        callbacks.on_train_begin()
        if saved is not None:
            checkpoint, self.last = saved
            self.start, self.skip = checkpoint.epoch, checkpoint.step
            model.history.history, model.history.epoch = checkpoint.history, list(range(checkpoint.epoch))
        # The epoch, and the value of `program.steps` at its start. One assignment sets both, so that the position
        # is right whenever an interrupt comes.
        self._mark = (self.start, -self.skip)
        program.steps.assign(0)
        program.look.reset()
        self._seen = 0  # steps

    def train(self, epochs: int) -> None:
        """Trains to the end of `epochs` epochs, or until a callback or a signal stops the run."""
        logs = None
        try:
            with (
                self.signals,
                replicas.lost_worker_named(self.settings.strategy, lambda: self.last),
                unreadable_named(self.settings.train, self.settings.validation),
            ):
                for epoch in range(self.start, epochs):
                    logs = self.epoch(epoch)
                    if self.model.stop_training:
                        break
        except (KeyboardInterrupt, SystemExit):
            if self.settings.directory:
                print(f"\nInterrupted. Saved to {self.save()}")
            raise
        finally:
            for feed in (self.settings.train, self.settings.validation):
                if feed is not None:
                    feed.end()
        self.model.optimizer.finalize_variable_values(self.model.trainable_weights)
        self.callbacks.on_train_end(logs)

    def epoch(self, epoch: int) -> dict[str, tf.Tensor | np.ndarray]:
        """Trains on an epoch, or on the rest of it after a resume, validates, and returns the logs."""
        skip = self.skip if epoch == self.start else 0
        if skip == 0:
            self.model.reset_metrics()
        self.callbacks.on_epoch_begin(epoch)
        done = self.executions(epoch, skip)
        stopped_within = self.model.stop_training
        ran_out = self.settings.train.ended and not stopped_within
        if done == 0 and not (ran_out and epoch > self.start):
            raise batches.empty("train")
        if ran_out:
            self._ran_out(epoch, done)
        if done == 0:
            return {}
        if not stopped_within:
            self.callbacks.params["steps"] = self.steps = self.steps or done
        logs = self.program.logs()
        if self.settings.validation is not None:
            logs |= self.validate(self.settings.validation)
        if stopped_within:
            self.callbacks.params["unfinished"] = True  # loggers leave out a point of part of an epoch
        self.callbacks.on_epoch_end(epoch, logs)
        if not stopped_within:
            self._mark = (epoch + 1, int(self.program.steps))
            self.last = self.save()
        return logs

    def executions(self, epoch: int, step: int) -> int:
        """Trains from `step` to the end of an epoch, or to a stop, and returns the steps of the epoch."""
        settings, every = self.settings, self.settings.checkpoint_every
        reading = settings.train.open(epoch, step)
        box, left, more = reading.box, reading.left, True
        while more and left != 0:
            size = self._size(step, left)
            self.callbacks.on_train_batch_begin(step)
            done, loss, norm, asked, logs = self.program.run(
                box[0], size, self.signals.received > 0, reading.counted, (settings.order.seed, epoch, step)
            )
            more, left, step = done == size, left - done, step + done
            if done:
                self.callbacks.on_train_batch_end(step - 1, logs)
            if done and self._seen < STEPS:
                self._seen += done
                settings.images.look(self.program.look)
            if not math.isfinite(loss):
                self._give_up(f"{loss} at step {step} of epoch {epoch + 1}", norm)
            self.signals.check(asked)
            if self.model.stop_training or (every and done and step % every == 0):
                self.last = self.save()
            if self.model.stop_training:
                break
        settings.train.close(reading, step)
        return step

    def _ran_out(self, epoch: int, done: int) -> None:
        """Stops a run whose data end within an epoch, with a warning, as `fit` does."""
        self.model.stop_training = True
        warnings.warn(
            f"`train` ended after {done} of the {self.settings.train.steps} batches of epoch {epoch + 1}, so "
            f"the run stops. Pass a smaller `steps_per_epoch`, or more data",
            stacklevel=2,
        )

    def validate(self, feed: Feed) -> dict[str, np.ndarray]:
        """Returns the logs of the validation, and leaves the training metrics as they are."""
        # Evaluation uses the variables of the training metrics, whose values a checkpoint needs if it is stopped.
        variables = self.model.metrics_variables
        values = [variable.numpy() for variable in variables]
        try:
            logs = evaluate(self.model, self.program, feed, self.callbacks, self.signals.check)
        finally:
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return {f"val_{name}": value for name, value in logs.items()}

    def save(self) -> Path | None:
        """Writes a checkpoint of the position and returns its path, or None without a folder."""
        epoch, first = self._mark
        if self.settings.directory is None:
            return None
        step, history = int(self.program.steps) - first, self.model.history.history
        described, compiled = self.settings.described, self.program.jit_compile
        seed, pixels = self.settings.order.seed, self.settings.images.range
        checkpoint = Checkpoint(epoch, step, self.steps, history, described, compiled, seed, pixels)
        write = replicas.is_chief(self.settings.strategy)
        return checkpoints.save(self.settings.directory, self.model, checkpoint, write)

    def _size(self, step: int, left: int) -> int:
        """Returns the steps of the next execution, which ends at the same steps of an epoch after a resume too."""
        sizes = (self.settings.steps_per_execution, self.settings.checkpoint_every)
        return min([left] * (left > 0) + [size - step % size for size in sizes if size])

    def _give_up(self, what: str, norm: float) -> None:
        """Raises the error for a loss that is not finite, after `on_nan`."""
        rate = float(self.model.optimizer.learning_rate)
        done = ""
        if self.settings.on_nan == "restore" and self.last:
            checkpoints.restore(self.last.parent, self.model)
            done = " (now restored)"
        raise FloatingPointError(
            f"The loss is {what} (learning rate {rate:.4g}, gradient norm {norm:.4g}). Try a smaller learning "
            f"rate, or clip the gradients. Last good checkpoint{done}: {self.last or 'none'}"
        )


def evaluate(
    model: keras.Model,
    program: Program,
    feed: Feed,
    callbacks: keras.callbacks.CallbackList,
    check: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """Returns the loss and the metrics over data.

    Args:
        model: The model of the program.
        program: The compiled loops.
        feed: The data.
        callbacks: Keras' list of callbacks.
        check: Function to call after each batch; it may raise to end the evaluation.
    """
    model.reset_metrics()
    callbacks.on_test_begin()
    reading, logs, step = feed.open(0, 0), None, -1
    last = reading.left if reading.left >= 0 else None
    for step, batch in enumerate(itertools.islice(reading.box[0], last)):
        callbacks.on_test_batch_begin(step)
        logs = program.test(batch)
        callbacks.on_test_batch_end(step, logs)
        check()
    feed.close(reading, step + 1)
    if logs is None:
        raise batches.empty(feed.name)
    callbacks.on_test_end(logs)
    return {name: value.numpy() for name, value in logs.items()}
