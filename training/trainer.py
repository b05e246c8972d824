"""A training loop that can stop at any step and go on in another process, bit for bit."""

import math
import warnings
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from dropzoo.training.loop import batches, checkpoints, replicas
from dropzoo.training.loop.program import Program, check_device, check_options, xla_pays
from dropzoo.training.loop.signals import StopSignals
from dropzoo.training.losses.dice import default_loss
from dropzoo.training.metrics.iou import default_metrics


class Trainer:
    """Trains a Keras model as `model.fit` does, many steps in one `tf.function`, and resumes exactly.

    The step is Keras' own `train_step` after `compile`, so losses, regularisation, metrics, sample weights
    and loss scaling mean what they mean there, and so do callbacks, the history, and what the optimizer does
    by its own arguments: clipping, accumulation, EMA. What is added: several devices and workers, checkpoints
    of the whole state (seed generators and live rates too), so that a run stopped anywhere ends with the same
    weights, a check of the labels, and an error rather than a model full of NaN.

    Args:
        model: compiled here, so freeze layers before. Losses and metrics get what it returns.
        optimizer: as for `compile`.
        loss: as for `compile`. Models here return logits, which a name like
            `"sparse_categorical_crossentropy"` takes for probabilities: pass objects with `from_logits=True`.
            `None` reads the task off the model's output: cross-entropy for `(batch, classes)`,
            `DiceCrossEntropy` for images; one output is the logit of a binary task.
        metrics: as for `compile`; names are resolved as Keras does. `None`: `default_metrics`, `[]`: none.
        strategy: a `tf.distribute.MirroredStrategy` or `MultiWorkerMirroredStrategy` under whose scope the
            model was built. The batches of `train` are the global ones, the same on every worker: each replica
            takes its rows, and all together take the step that one device would, batch normalisation
            `synchronized`. Only the chief writes.
        deterministic: makes TensorFlow's operations deterministic from the first `fit` on, for the whole
            process (`tf.config.experimental.enable_op_determinism`): some are slower, and those that draw
            random numbers without a seed raise.
        jit_compile: compile each step with XLA. `"auto"`: on a GPU, unless there is a strategy, a layer that XLA
            cannot compile, or `deterministic`; never on a CPU, where steps are slower with it. A resumed run
            does as its checkpoint did.
        steps_per_execution: so many steps run on the device for each call from Python. Callbacks see the last
            one, and rates change, at each execution; so a resumed run should keep it.
        on_nan: what to do once the loss is not finite, before the error: `"stop"`: nothing, `"restore"`: put the
            last good checkpoint back into the model.
        loss_weights: as for `compile`, of several outputs: of auxiliary losses, say.
        r_drop: the weight alpha of R-Drop (Liang et al., 2021, arXiv:2106.14448), which passes each batch twice
            and draws the two predictions together. For models of one output, in logits.
        prefetch_to: a device, `"GPU:0"` say, that the next batches go to while a step runs. Not with a strategy.

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
        strategy: Any = None,
        deterministic: bool = False,
        jit_compile: bool | str = "auto",
        steps_per_execution: int = 1,
        on_nan: str = "stop",
        r_drop: float = 0.0,
        loss_weights: Any = None,
        prefetch_to: str | None = None,
    ) -> None:
        output = batches.output(model)
        check_options(jit_compile, steps_per_execution, on_nan, r_drop, output is not None)
        check_device(prefetch_to, strategy)
        replicas.prepare(strategy, model, optimizer, jit_compile)
        if loss is None or metrics is None or r_drop:
            batches.check_logits(model, r_drop)
        if loss is None or metrics is None:
            if output is None:
                raise ValueError("`loss` and `metrics` must be given: the model has no one output of known shape")
            task = "classification" if output.rank == 2 else "segmentation"
            loss = default_loss(task, output.classes) if loss is None else loss
            metrics = (
                default_metrics(task, output.classes, getattr(loss, "ignore_class", None))
                if metrics is None
                else metrics
            )
        with replicas.scope(strategy):
            optimizer, metrics = (replicas.remade(strategy, thing) for thing in (optimizer, metrics))
            model.compile(optimizer, loss, loss_weights=loss_weights, metrics=metrics, jit_compile=False)
        self.model = model
        self.strategy = strategy
        self.deterministic = deterministic
        self.steps_per_execution = steps_per_execution
        self.on_nan = on_nan
        self._jit_compile, self._r_drop, self._prefetch_to = jit_compile, r_drop, prefetch_to
        self._described = checkpoints.describe(model)  # as the run begins: rates move on
        self._program: Program | None = None

    def fit(
        self,
        train: Any,
        validation_data: Any = None,
        epochs: int = 1,
        callbacks: list[keras.callbacks.Callback] | keras.callbacks.Callback | None = None,
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int | None = None,
        class_weight: dict[int, float] | None = None,
        verbose: Any = "auto",
    ) -> keras.callbacks.History:
        """Trains until `epochs` epochs are done, counting those of a resumed run.

        With a `checkpoint_dir` that holds checkpoints the run continues from the newest, and ends with the
        weights it would have had without the stop (to the bit with `deterministic=True`) if it sees the same
        batches: `train.at_epoch(epoch)` gives those of one epoch; without it every pass has to be the same.
        Stopping within an epoch (`model.stop_training`, Ctrl-C, SIGTERM) saves the position there. Callbacks
        start anew: `EarlyStopping` counts from zero.

        Args:
            train: a `tf.data.Dataset` of `(x, y)` or `(x, y, sample_weight)`, or an object whose
                `at_epoch(epoch)` is one.
            validation_data: the same, evaluated after each epoch.
            epochs: the total.
            callbacks: Keras callbacks, or one.
            checkpoint_dir: gets a checkpoint after each epoch; the newest three stay, and the one with the
                lowest (validation) loss. One folder for all workers.
            checkpoint_every: also save after so many steps of an epoch.
            class_weight: label to weight, per pixel for masks; 1 where not named.
            verbose: as for Keras' `fit`.

        Returns:
            Keras' `History`, with the epochs of the run before the stop.

        Raises:
            ValueError: for unusable data or arguments, or a checkpoint of another model or run.
            FloatingPointError: once the loss is not finite.
            OSError: if a checkpoint cannot be written; those before are whole.
            RuntimeError: if another worker is gone.
        """
        if self.deterministic:
            tf.config.experimental.enable_op_determinism()
        model, strategy, chief = self.model, self.strategy, replicas.is_chief(self.strategy)
        directory = checkpoints.folder(checkpoint_dir, checkpoint_every, self.on_nan)
        first = batches.dataset(train, "train")
        self._build(first)
        position = checkpoints.restore(directory, model, self._described) if directory else None
        start, skip = (position.epoch, position.step) if position else (0, 0)
        if not replicas.same_everywhere(strategy, start * 10**9 + skip):
            raise ValueError(f"The workers found different checkpoints: all must share {checkpoint_dir}")
        program = self._compiled(position.jit_compile if position else None)

        # Where the data do not say it, the first epoch tells; schedules over the whole run need it.
        steps = max(int(first.cardinality()), 0) or (position.steps if position else None)
        signals = StopSignals(alone=not replicas.multi_worker(strategy))
        callback_list = keras.callbacks.CallbackList(
            [*replicas.callbacks_here(strategy, callbacks), signals],
            add_history=True,
            add_progbar=verbose != 0 and chief,
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

        # The epoch, and the value of `program.steps` at its start: one assignment moves both, so that wherever
        # an interrupt falls, what is saved is a position that was.
        mark = (start, -skip)
        program.steps.assign(0)

        def save() -> Path | None:
            epoch, base = mark
            if directory is None:
                return None
            run = epoch, int(program.steps) - base, steps, history.history, self._described, program.jit_compile
            return checkpoints.save(directory, model, *run, write=chief)

        epoch_logs = None
        try:
            with signals, replicas.lost_worker_named(strategy, lambda: last_path):
                for epoch in range(start, epochs):
                    step, more = skip if epoch == start else 0, True
                    if step == 0:
                        model.reset_metrics()
                    callback_list.on_epoch_begin(epoch)
                    rest = batches.rest_of_epoch(train, epoch, step, class_weight, model)
                    left = int(rest.cardinality())  # below 0 where it is not known
                    box = [iter(batches.ahead(rest, self._prefetch_to))]
                    while more and left != 0:
                        size = self._size(step, checkpoint_every, left)
                        callback_list.on_train_batch_begin(step)
                        done, loss, norm, asked, logs = program.run(box[0], size, signals.received, left > 0)
                        more, left = done == size, left - done
                        step += done
                        if done:
                            callback_list.on_train_batch_end(step - 1, logs)
                        if not math.isfinite(loss):
                            self._give_up(f"{loss} at step {step} of epoch {epoch + 1}", norm, last_path)
                        signals.check(asked)
                        if model.stop_training or (checkpoint_every and done and step % checkpoint_every == 0):
                            last_path = save()
                        if model.stop_training:
                            break
                    batches.discard(box, rest)
                    if step == 0:
                        raise ValueError("`train` is empty: it gives no batch")
                    stopped_within = model.stop_training
                    if not stopped_within:
                        callback_list.params["steps"] = steps = steps or step
                    epoch_logs = program.logs()
                    if validation_data is not None:
                        epoch_logs |= self._validate(validation_data, callback_list)
                    callback_list.on_epoch_end(epoch, epoch_logs)
                    if not stopped_within:
                        mark = (epoch + 1, int(program.steps))
                        last_path = save()
                    if model.stop_training:
                        break
        except (KeyboardInterrupt, SystemExit):
            if directory:
                print(f"\nInterrupted. Saved to {save()}")
            raise
        model.optimizer.finalize_variable_values(model.trainable_weights)
        callback_list.on_train_end(epoch_logs)
        return model.history

    def evaluate(self, dataset: Any) -> dict[str, float]:
        """The loss and the metrics over a dataset, by name."""
        found = batches.dataset(dataset, "dataset")
        self._build(found)
        logs = self._evaluate(found, "dataset", keras.callbacks.CallbackList(model=self.model))
        return {name: float(value) if value.ndim == 0 else value for name, value in logs.items()}

    def _build(self, data: tf.data.Dataset) -> None:
        """Makes every variable, which must exist before a checkpoint can be put into it."""
        with replicas.scope(self.strategy):
            self.model._symbolic_build(data_batch=data.element_spec)

    def _compiled(self, resumed: bool | None = None) -> Program:
        wanted = self._jit_compile
        if wanted == "auto":
            wanted = resumed if resumed is not None else xla_pays(self.model, self.strategy, self.deterministic)
        elif resumed not in (None, wanted):
            warnings.warn(
                f"The run was compiled with jit_compile={resumed} and goes on with {wanted}: not bit for bit",
                stacklevel=3,
            )
        if self._program is None or self._program.jit_compile != wanted:
            self._program = Program(self.model, self.strategy, bool(wanted), self._r_drop)
        return self._program

    def _size(self, step: int, every: int | None, left: int) -> int:
        """The steps of the next execution: those end at fixed steps of an epoch, wherever it was resumed."""
        ends = [left] * (left > 0) + [n - step % n for n in (self.steps_per_execution, every) if n]
        return min(ends)

    def _give_up(self, what: str, norm: float, last: Path | None) -> None:
        rate = float(self.model.optimizer.learning_rate)
        done = ""
        if self.on_nan == "restore" and last:
            checkpoints.restore(last.parent, self.model)
            done = ", put back into the model"
        raise FloatingPointError(
            f"The loss is {what}, the learning rate {rate:.4g}, the gradient norm {norm:.4g}. "
            f"Last good checkpoint: {last}{done}"
        )

    def _evaluate(self, dataset: tf.data.Dataset, name: str, callbacks: Any) -> dict[str, Any]:
        self.model.reset_metrics()
        callbacks.on_test_begin()
        logs, program, box = None, self._program or self._compiled(), [iter(dataset)]
        for step, batch in enumerate(box[0]):
            callbacks.on_test_batch_begin(step)
            logs = program.test(batch)
            callbacks.on_test_batch_end(step, logs)
        batches.discard(box, dataset)
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
