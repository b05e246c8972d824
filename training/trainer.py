"""A training loop that can stop at any step and go on in another process, bit for bit."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from dropzoo.common.keras_internals import build_for
from dropzoo.training.loop import batches, checkpoints, replicas
from dropzoo.training.loop.options import check_device, check_options, xla_pays
from dropzoo.training.loop.program import Program
from dropzoo.training.loop.run import Run, Settings, evaluate
from dropzoo.training.loop.signals import StopSignals
from dropzoo.training.losses import default_loss
from dropzoo.training.metrics import default_metrics

Loss: TypeAlias = str | keras.losses.Loss | Callable[..., tf.Tensor]
Metrics: TypeAlias = Sequence[str | keras.metrics.Metric | Callable[..., tf.Tensor]]


class Trainer:
    """Trains a Keras model as `model.fit` does, many steps in one `tf.function`, and resumes exactly.

    Each step does what Keras' own `train_step` does after `compile`. So losses, regularisation, metrics, sample
    weights and loss scaling mean the same as in `fit`, and so do callbacks, the history, and the optimizer's own
    arguments: clipping, accumulation, EMA. The trainer adds training on several devices and workers, checkpoints
    of the whole state (including seed generators and live rates), a check of the labels, and an error instead of a
    model full of NaN. With the checkpoints, a run that was stopped anywhere ends with the same weights.

    Args:
        model: A built or unbuilt `keras.Model`. The trainer compiles it, so freeze layers first. Losses and
            metrics receive the model's outputs as they are.
        optimizer: As for `compile`.
        loss: As for `compile`. Models here return logits, but a name such as `"sparse_categorical_crossentropy"`
            means probabilities: pass objects with `from_logits=True`. `None` chooses by the output of the model:
            cross-entropy for `(batch, classes)` and `DiceCrossEntropy` for images; one output is the logit of a
            binary task.
        metrics: As for `compile`; names are resolved as Keras does. `None` means `default_metrics`, `[]` means
            none.
        strategy: A `tf.distribute.MirroredStrategy` or `MultiWorkerMirroredStrategy` under whose scope the model
            was built, or None. The batches of `train` are the global ones, the same on every worker. Each replica
            takes its rows, and all replicas together take the step that one device would take, with `synchronized`
            batch normalisation. Only the chief writes.
        deterministic: Bool. Makes TensorFlow's operations deterministic from the first `fit` on, for the whole
            process (`tf.config.experimental.enable_op_determinism`). Some operations are slower then, and those
            that draw random numbers without a seed raise.
        jit_compile: Bool or `"auto"`. Whether XLA compiles each step. `"auto"` compiles on a GPU, unless there is
            a strategy, a layer that XLA cannot compile, or `deterministic`. It never compiles on a CPU, where
            compiled steps are slower. A resumed run compiles if the run that wrote the checkpoint did.
        steps_per_execution: Int above 0. The number of steps to run on the device for each call from Python.
            Callbacks see only the last of these steps, and rates change once for each call. A resumed run should
            therefore use the same number.
        on_nan: What happens before the error when the loss is not finite. `"stop"`: nothing; `"restore"`: the last
            good checkpoint is put back into the model.
        r_drop: Float, 0 or more. The weight alpha of R-Drop (Liang et al., 2021, arXiv:2106.14448), which passes
            each batch twice and pulls the two predictions together. It needs a model with one output, in logits.
        loss_weights: As for `compile`. The weights of several outputs, for example of auxiliary losses.
        prefetch_to: Str or None. A device, for example `"GPU:0"`, to which the next batches are copied while a
            step runs. Not with a strategy.

    Raises:
        ValueError: If an option is bad, or if `loss` or `metrics` is None and the model's output has no default.

    Example:
    >>> import keras, numpy as np, tensorflow as tf
    >>> from dropzoo import training
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> data = tf.data.Dataset.from_tensor_slices((np.eye(4), np.array([0, 1, 0, 1]))).batch(2)
    >>> history = training.Trainer(model).fit(data, epochs=2, verbose=0)
    >>> list(history.history)
    ['accuracy', 'loss']
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        loss: Loss | Mapping[str, Loss] | Sequence[Loss] | None = None,
        metrics: Metrics | Mapping[str, Any] | None = None,
        strategy: tf.distribute.Strategy | None = None,
        deterministic: bool = False,
        jit_compile: bool | str = "auto",
        steps_per_execution: int = 1,
        on_nan: str = "stop",
        r_drop: float = 0.0,
        loss_weights: Mapping[str, float] | Sequence[float] | None = None,
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
                raise ValueError(
                    "`loss` and `metrics` must be given: the model does not have exactly one output of known shape"
                )
            task = "classification" if output.rank == 2 else "segmentation"
            if loss is None:
                loss = default_loss(task, output.classes)
            if metrics is None:
                metrics = default_metrics(task, output.classes, getattr(loss, "ignore_class", None))
        with replicas.scope(strategy):
            optimizer, metrics = (replicas.remade(strategy, thing) for thing in (optimizer, metrics))
            model.compile(optimizer, loss, loss_weights=loss_weights, metrics=metrics, jit_compile=False)
        self.model = model
        self.strategy = strategy
        self.deterministic = deterministic
        self.steps_per_execution = steps_per_execution
        self.on_nan = on_nan
        self._jit_compile, self._r_drop, self._prefetch_to = jit_compile, r_drop, prefetch_to
        self._described = checkpoints.describe(model)  # described now, because the rates change during the run
        self._program: Program | None = None

    def fit(
        self,
        train: tf.data.Dataset | batches.Epochs,
        validation_data: tf.data.Dataset | batches.Epochs | None = None,
        epochs: int = 1,
        callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None = None,
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int | None = None,
        class_weight: dict[int, float] | None = None,
        verbose: int | str = "auto",
    ) -> keras.callbacks.History:
        """Trains until `epochs` epochs are done, including the epochs before a resume.

        If `checkpoint_dir` holds checkpoints, the run goes on from the newest. It ends with the weights that it
        would have had without the stop (to the bit with `deterministic=True`) if it sees the same batches.
        `train.at_epoch(epoch)` returns the batches of one epoch; a dataset without this method must give the same
        batches in every pass. A stop within an epoch (`model.stop_training`, Ctrl-C, SIGTERM) saves the position
        there. Callbacks start anew after a resume: `EarlyStopping` counts from zero.

        Args:
            train: A `tf.data.Dataset` of `(x, y)` or `(x, y, sample_weight)`, or an object whose `at_epoch(epoch)`
                returns one.
            validation_data: Data of the same form, which are evaluated after each epoch, or None.
            epochs: Int. The total number of epochs.
            callbacks: A Keras callback, a list of callbacks, or None.
            checkpoint_dir: Folder for a checkpoint after each epoch, or None. The newest three checkpoints stay,
                and the one with the lowest validation loss (or training loss). All workers share one folder.
            checkpoint_every: Int above 0 or None. A checkpoint is also written each time that this many steps of
                an epoch are done.
            class_weight: Dict from labels to weights, or None. Other labels have the weight 1. In masks, each
                pixel has the weight of its label.
            verbose: As for Keras' `fit`.

        Returns:
            Keras' `History`, including the epochs before a resume.

        Raises:
            ValueError: For unusable data or arguments, or a checkpoint of another model or run.
            FloatingPointError: Once the loss is not finite.
            OSError: If a checkpoint cannot be written; older ones are whole.
            RuntimeError: If another worker is gone.
        """
        if self.deterministic:
            tf.config.experimental.enable_op_determinism()
        directory = checkpoints.folder(checkpoint_dir, checkpoint_every, self.on_nan)
        first = batches.dataset(train, "train")
        self._build(first)
        saved = checkpoints.restore(directory, self.model, self._described) if directory else None
        checkpoint = saved[0] if saved else None
        # Epoch and step as one number, because the workers can only compare numbers.
        if not replicas.same_everywhere(
            self.strategy, checkpoint.epoch * 10**9 + checkpoint.step if checkpoint else 0
        ):
            raise ValueError(f"The workers found different checkpoints: all must share {checkpoint_dir}")
        # If the data do not know their length, the first epoch shows it. Rate schedules need it.
        steps = max(int(first.cardinality()), 0) or (checkpoint.steps if checkpoint else None)
        callback_list = keras.callbacks.CallbackList(
            replicas.callbacks_here(self.strategy, callbacks),
            add_history=True,
            add_progbar=verbose != 0 and replicas.is_chief(self.strategy),
            verbose=verbose,
            epochs=epochs,
            steps=steps,
            model=self.model,
        )
        settings = Settings(
            train=train,
            validation_data=validation_data,
            class_weight=class_weight,
            directory=directory,
            checkpoint_every=checkpoint_every,
            strategy=self.strategy,
            steps_per_execution=self.steps_per_execution,
            prefetch_to=self._prefetch_to,
            on_nan=self.on_nan,
            described=self._described,
        )
        program = self._compiled(checkpoint.jit_compile if checkpoint else None)
        signals = StopSignals(alone=not replicas.multi_worker(self.strategy))
        Run(self.model, program, settings, callback_list, signals, steps, saved).train(epochs)
        return self.model.history

    def evaluate(self, dataset: tf.data.Dataset | batches.Epochs) -> dict[str, float | np.ndarray]:
        """Returns the loss and the metrics over a dataset.

        Args:
            dataset: A `tf.data.Dataset` of `(x, y)` or `(x, y, sample_weight)`, or an object whose
                `at_epoch(epoch)` returns one.

        Returns:
            Dict from names to floats; metrics with several values give arrays.

        Raises:
            ValueError: For unusable data.
        """
        found = batches.dataset(dataset, "dataset")
        self._build(found)
        callbacks = keras.callbacks.CallbackList(model=self.model)
        logs = evaluate(self.model, self._program or self._compiled(), found, "dataset", callbacks)
        return {name: float(value) if value.ndim == 0 else value for name, value in logs.items()}

    def _build(self, data: tf.data.Dataset) -> None:
        """Makes every variable, since a checkpoint can only be put into variables that exist."""
        with replicas.scope(self.strategy):
            build_for(self.model, data.element_spec)

    def _compiled(self, resumed: bool | None = None) -> Program:
        """Returns the program, compiled as asked for; `resumed` is what the checkpoint says, if there is one."""
        wanted = self._jit_compile
        if wanted == "auto":
            wanted = resumed if resumed is not None else xla_pays(self.model, self.strategy, self.deterministic)
        elif resumed not in (None, wanted):
            warnings.warn(
                f"The run began with jit_compile={resumed} and goes on with {wanted}: not the same bit for bit",
                stacklevel=3,
            )
        if self._program is None or self._program.jit_compile != wanted:
            self._program = Program(self.model, self.strategy, bool(wanted), self._r_drop)
        return self._program
