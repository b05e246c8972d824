"""A training loop that can stop at any step and go on in another process, bit for bit."""

import math
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from dropzoo.training import _batches as batches
from dropzoo.training import checkpoints
from dropzoo.training.losses import default_loss
from dropzoo.training.metrics import default_metrics


class Trainer:
    """Trains a Keras model as `model.fit` does, step by step in a `tf.function`, and resumes exactly.

    The step is Keras' own `train_step` after `compile`, so losses, regularisation, metrics, sample weights
    and loss scaling mean what they mean there, and so do callbacks and the history. What is added:
    checkpoints of the whole state (seed generators and live rates too), so that a run stopped anywhere ends
    with the same weights, a check of the labels, and an error rather than a model full of NaN.

    Args:
        model: compiled here, so freeze layers before. Losses and metrics get what it returns.
        optimizer: as for `compile`.
        loss: as for `compile`. Models here return logits, which a name like
            `"sparse_categorical_crossentropy"` takes for probabilities: pass objects with `from_logits=True`.
            `None` reads the task off the model's output: cross-entropy for `(batch, classes)`,
            `DiceCrossEntropy` for images; one output is the logit of a binary task.
        metrics: as for `compile`; names are resolved as Keras does. `None`: `default_metrics`, `[]`: none.
        strategy: None. One device only so far.
        deterministic: makes TensorFlow's operations deterministic from the first `fit` on, for the whole
            process (`tf.config.experimental.enable_op_determinism`): some are slower, and those that draw
            random numbers without a seed raise.
        jit_compile: compile the step with XLA.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> data = tf.data.Dataset.from_tensor_slices((np.eye(4), np.array([0, 1, 0, 1]))).batch(2)
    >>> history = Trainer(model).fit(data, epochs=2, verbose=0)
    >>> list(history.history)
    ['accuracy', 'loss']
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: Any = "adam",
        loss: Any = None,
        metrics: Any = None,
        strategy: None = None,
        deterministic: bool = False,
        jit_compile: bool = False,
    ) -> None:
        if strategy is not None:
            raise ValueError(f"`strategy` must be None: one device only is supported so far. Received: {strategy}")
        if loss is None or metrics is None:
            output = batches.output(model)
            if output is None:
                raise ValueError(
                    "`loss` and `metrics` must be given: the model has no single output of known shape"
                )
            task = "classification" if output.rank == 2 else "segmentation"
            loss = default_loss(task, output.classes) if loss is None else loss
            metrics = default_metrics(task, output.classes) if metrics is None else metrics
        model.compile(optimizer=optimizer, loss=loss, metrics=metrics, jit_compile=jit_compile)
        self.model = model
        self.deterministic = deterministic
        # Counted inside the step: a KeyboardInterrupt falls between Python lines, not into the step.
        self._step = tf.Variable(0, dtype="int64")
        # Keras converts what layers need by itself, and keeps AutoGraph away from the step.
        options = {"reduce_retracing": True, "jit_compile": jit_compile, "autograph": False}
        self._train_step = tf.function(self._one_step, **options)
        self._test_step = tf.function(model.test_step, **options)

    def fit(
        self,
        train: Any,
        validation_data: Any = None,
        epochs: int = 1,
        callbacks: list[keras.callbacks.Callback] | None = None,
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int | None = None,
        class_weight: dict[int, float] | None = None,
        verbose: Any = "auto",
    ) -> keras.callbacks.History:
        """Trains until `epochs` epochs are done, counting those of a run resumed from `checkpoint_dir`.

        With a `checkpoint_dir` that holds checkpoints the run continues from the newest, and ends with the
        weights it would have had without the stop (to the bit with `deterministic=True`) if it sees the same
        batches: `train.at_epoch(epoch)` gives those of one epoch; without it every pass has to be the same.
        Stopping within an epoch (`model.stop_training`, Ctrl-C) saves the position there. Callbacks start
        anew: `EarlyStopping` counts from zero.

        Args:
            train: a `tf.data.Dataset` of `(x, y)` or `(x, y, sample_weight)`, or an object whose
                `at_epoch(epoch)` is one.
            validation_data: the same, evaluated after each epoch.
            epochs: the total.
            callbacks: Keras callbacks.
            checkpoint_dir: gets a checkpoint after each epoch; the newest three stay.
            checkpoint_every: also save after so many steps of an epoch.
            class_weight: label to weight, per pixel for masks; 1 where not named.
            verbose: as for Keras' `fit`.

        Returns:
            Keras' `History`, with the epochs of the run before the stop.

        Raises:
            ValueError: for unusable data or arguments, or a checkpoint of another model.
            FloatingPointError: once the loss is not finite.
        """
        if self.deterministic:
            tf.config.experimental.enable_op_determinism()
        model, directory = self.model, None if checkpoint_dir is None else Path(checkpoint_dir)
        if checkpoint_every is not None and (directory is None or checkpoint_every < 1):
            raise ValueError(
                "`checkpoint_every` must be a positive number of steps, with a `checkpoint_dir`. "
                f"Received: checkpoint_every={checkpoint_every}, checkpoint_dir={checkpoint_dir}"
            )
        first = batches.dataset(train, "train")
        # Every variable must exist before a checkpoint can be put into it.
        model._symbolic_build(data_batch=first.element_spec)
        position = checkpoints.restore(directory, model) if directory else None
        start, skip = (position.epoch, position.step) if position else (0, 0)

        # Where the data do not say it, the first epoch tells; schedules over the whole run need it.
        steps = max(int(first.cardinality()), 0) or (position.steps if position else None)
        callback_list = keras.callbacks.CallbackList(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=epochs,
            steps=steps,
            model=model,
        )
        model.stop_training = False
        callback_list.on_train_begin()
        history, last_path = model.history, None
        if position:
            history.history, history.epoch, last_path = position.history, list(range(start)), position.path

        # The epoch, and the value of `_step` at its start: one assignment moves both, so that wherever an
        # interrupt falls, what is saved is a position that was.
        mark = (start, -skip)
        self._step.assign(0)

        def save() -> Path | None:
            epoch, base = mark
            if directory is None:
                return None
            return checkpoints.save(directory, model, epoch, int(self._step) - base, steps, history.history)

        epoch_logs, unchecked = None, True
        try:
            for epoch in range(start, epochs):
                step = skip if epoch == start else 0
                if step == 0:
                    model.reset_metrics()
                callback_list.on_epoch_begin(epoch)
                for batch in batches.rest_of_epoch(train, epoch, step, class_weight, model):
                    if unchecked:
                        batches.check_labels(batch, model)
                        unchecked = False
                    callback_list.on_train_batch_begin(step)
                    logs = self._train_step(batch)
                    callback_list.on_train_batch_end(step, logs)
                    step += 1
                    # Keras' loss is the mean over the epoch so far: once not finite, it stays so.
                    if not math.isfinite(mean := float(logs.get("loss", 0.0))):
                        raise FloatingPointError(
                            f"The loss is {mean} at step {step} of epoch {epoch + 1}. "
                            f"Last good checkpoint: {last_path}"
                        )
                    if model.stop_training or (checkpoint_every and step % checkpoint_every == 0):
                        last_path = save()
                    if model.stop_training:
                        break
                if step == 0:
                    raise ValueError("`train` is empty: it gives no batch")
                stopped_within = model.stop_training
                if not stopped_within:
                    callback_list.params["steps"] = steps = steps or step
                epoch_logs = model.get_metrics_result()
                if validation_data is not None:
                    epoch_logs |= self._validate(validation_data, callback_list)
                callback_list.on_epoch_end(epoch, epoch_logs)
                if not stopped_within:
                    mark = (epoch + 1, int(self._step))
                    last_path = save()
                if model.stop_training:
                    break
        except KeyboardInterrupt:
            if directory:
                print(f"\nInterrupted. Saved to {save()}")
            raise
        model.optimizer.finalize_variable_values(model.trainable_weights)
        callback_list.on_train_end(epoch_logs)
        return model.history

    def evaluate(self, dataset: Any) -> dict[str, float]:
        """The loss and the metrics over a dataset, by name."""
        found = batches.dataset(dataset, "dataset")
        self.model._symbolic_build(data_batch=found.element_spec)
        logs = self._evaluate(found, "dataset", keras.callbacks.CallbackList(model=self.model))
        return {name: float(value) if value.ndim == 0 else value for name, value in logs.items()}

    def _one_step(self, batch: Any) -> dict[str, tf.Tensor]:
        logs = self.model.train_step(batch)
        self._step.assign_add(1)
        return logs

    def _evaluate(self, dataset: tf.data.Dataset, name: str, callbacks: Any) -> dict[str, Any]:
        self.model.reset_metrics()
        callbacks.on_test_begin()
        logs = None
        for step, batch in enumerate(dataset):
            callbacks.on_test_batch_begin(step)
            logs = self._test_step(batch)
            callbacks.on_test_batch_end(step, logs)
        if logs is None:
            raise ValueError(f"`{name}` is empty: it gives no batch")
        callbacks.on_test_end(logs)
        return {name: value.numpy() for name, value in logs.items()}

    def _validate(self, validation_data: Any, callbacks: Any) -> dict[str, Any]:
        # Evaluation uses the training metrics' variables; a stop in its midst must find them as they were.
        variables = self.model.metrics_variables
        values = [variable.numpy() for variable in variables]
        try:
            dataset = batches.dataset(validation_data, "validation_data")
            logs = self._evaluate(dataset, "validation_data", callbacks)
        finally:
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return {f"val_{name}": value for name, value in logs.items()}
