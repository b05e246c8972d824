"""A training loop that can stop at any step and continue in another process, bit for bit."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from dropzoo.common.checks import check_keras_model, check_tensorflow
from dropzoo.common.keras_internals import build_for, forget_loss
from dropzoo.training.loop import batches, checkpoints, identity, pixels, replicas
from dropzoo.training.loop.compiling import Asked, Settled, check_compile, check_targets, settle
from dropzoo.training.loop.feeds import Feed, unreadable_named
from dropzoo.training.loop.forms import DataLike, feed_of, given
from dropzoo.training.loop.mixing import Mixing
from dropzoo.training.loop.moving import moved
from dropzoo.training.loop.options import check_device, check_options, xla_pays
from dropzoo.training.loop.ordered import Order
from dropzoo.training.loop.program import Program
from dropzoo.training.loop.run import Run, Settings, evaluate
from dropzoo.training.loop.signals import StopSignals

Loss: TypeAlias = str | keras.losses.Loss | Callable[..., tf.Tensor]
Metrics: TypeAlias = Sequence[str | keras.metrics.Metric | Callable[..., tf.Tensor]]


class Trainer:
    """Trains a Keras model like `model.fit`, runs many steps in one `tf.function`, and resumes exactly.

    Each step does what Keras' own `train_step` does after `compile`. So losses, regularisation, metrics, sample
    weights and loss scaling mean the same as in `fit`, and so do callbacks, the history, and the optimizer's own
    arguments: clipping, accumulation, EMA. The trainer adds training on several devices and workers with the same
    steps as on one device, and checkpoints of the complete state (including seed generators and dropout rates). It
    stops with an error after the first step whose loss is not finite. A run that was stopped at any step and
    resumed from a checkpoint ends with the same weights as a run that was not stopped.

    A compiled model is trained with the settings of its `compile`; arguments that you pass here replace them. If
    there is no loss, the targets in the first batches determine the loss of each output:

    - Whole numbers below the number of output units are classes.
    - Vectors of 0 and 1 that sum to 1 are one-hot.
    - Other vectors of 0 and 1 are labels that do not exclude each other. If the output goes through a sigmoid,
      one-hot vectors are such labels too.
    - For a single output unit, 0 and 1 are a binary task.
    - Other vectors that sum to 1 are probabilities of the classes, if the output goes through a softmax.
    - Other floats are a regression, if the output goes through neither a softmax nor a sigmoid.

    Masks of class numbers get `DiceCrossEntropy` if the model returns logits. `fit` prints the loss and the
    reason; if the targets are ambiguous, it raises an error. With these losses, and with others that take only
    class labels, a label that does not fit raises an error. With a custom loss, targets may be anything, as in
    `keras.Model.fit`.

    Args:
        model: A built or unbuilt `keras.Model`. Freeze layers before you make the trainer. Losses and metrics get
            the unchanged outputs of the model.
        optimizer: As for `compile`. None means the optimizer of a compiled model, otherwise Adam.
        loss: As for `compile`: one loss, or a list or dict of losses for the outputs. dropzoo's models return
            logits, but a loss name such as `"sparse_categorical_crossentropy"` expects probabilities, so pass loss
            objects with `from_logits=True`. If the graph of the model shows a mismatch, a warning is raised. None
            means the loss that the model was compiled with, or a default; `[]` means only those that the model
            adds (`add_loss`).
        metrics: As for `compile`, where a name means the same as in Keras. None means those of a compiled model,
            otherwise the usual ones for the loss: accuracy, the mean IoU of masks, the mean absolute error of a
            regression, and none for a custom loss. `[]` means none.
        strategy: A `tf.distribute.MirroredStrategy` or `MultiWorkerMirroredStrategy` under whose scope the model
            was built, or None. The batches of `train` are global batches, and every worker must get the same ones.
            Each replica processes its rows, and all replicas together make the same step as a single device; for
            this, the trainer sets `synchronized=True` on batch normalisation. Only the chief writes files.
        deterministic: Bool. Makes TensorFlow's operations deterministic from the first `fit` on, for the whole
            process (`tf.config.experimental.enable_op_determinism`). Some operations are then slower, and those
            that draw random numbers without a seed raise an error.
        jit_compile: Bool or `"auto"`. Whether XLA compiles each step. `"auto"` compiles on a GPU, unless there is
            a strategy, a layer that XLA cannot compile, or `deterministic`. It does not compile on a CPU, where
            compiled steps are slower. With `"auto"`, a resumed run does what the run that wrote the checkpoint
            did.
        steps_per_execution: Int above 0. The number of steps to run on the device for each call from Python.
            Callbacks are called, and rates change, once for each call. To end with the same weights, a resumed run
            must use the same number.
        on_nan: Str. What happens if the loss is not finite. `"stop"` raises an error, and the weights may be NaN;
            `"restore"` first restores the last good checkpoint, and then raises the error, so `fit` needs a
            `checkpoint_dir`.
        r_drop: Float, 0 or more. The weight alpha of R-Drop (Liang et al., 2021, arXiv:2106.14448), which passes
            each batch through the model twice and penalises differences between the two predictions. It needs a
            model with one output, which must be logits.
        loss_weights: As for `compile`. The weights of several outputs, for example of auxiliary losses.
        prefetch_to: Str or None. A device, for example `"GPU:0"`, to which the next batches are copied while a
            step runs. It cannot be used with a strategy.
        task: Str or None. The output kind, instead of a loss: `"multi_class"`, `"binary"`, `"multi_label"` or
            `"regression"`, see `serving.MonteCarlo`; `"classification"` and `"segmentation"` mean `"binary"` for a
            single output unit, otherwise `"multi_class"`. For several outputs, a list, or a dict by their names.
        weighted_metrics: As for `compile`: metrics that are weighted by `sample_weight` or `class_weight`.
        input_range: Pair of floats `(black, white)` or None. The values of a black and of a white pixel in the
            training images, such as `(0, 255)`. None means the range of `load_data` or, for other data, the one
            that the first batches show. It is stored in the model and in its `.keras` file, so that exports and
            servers scale images to this range.
        mixup: Float, 0 or more. Trains classifiers on weighted means of two images, and on the labels of both,
            with weights from Beta(mixup, mixup) (Zhang et al., 2017, arXiv:1710.09412); 0.2 is usual. It works
            with any loss. Training metrics use the label with the larger weight.
        cutmix: Float, 0 or more. The same, but a box of one image is replaced by this box of the other image, and
            the weights are the shares of the area (Yun et al., 2019, arXiv:1905.04899); 1.0 is usual. With both,
            each batch gets one of them.

    Raises:
        ValueError: If an argument is invalid.

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
        optimizer: str | keras.optimizers.Optimizer | None = None,
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
        *,
        task: str | Mapping[str, str] | Sequence[str] | None = None,
        weighted_metrics: Metrics | Mapping[str, Any] | None = None,
        input_range: tuple[float, float] | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        check_keras_model(model)
        check_tensorflow("`Trainer`")
        check_options(jit_compile, steps_per_execution, on_nan, r_drop, batches.output(model) is not None)
        check_device(prefetch_to, strategy)
        asked = Asked(optimizer, loss, loss_weights, metrics, weighted_metrics, task).with_compiled(model)
        self._asked = dataclasses.replace(asked, optimizer="adam" if asked.optimizer is None else asked.optimizer)
        replicas.prepare(strategy, model, self._asked.optimizer, jit_compile)
        batches.check_r_drop(model, r_drop)
        self._mixing = Mixing(mixup, cutmix, model)
        self.model = model
        self.strategy = strategy
        self.deterministic = deterministic
        self.steps_per_execution = steps_per_execution
        self.on_nan = on_nan
        self._images = pixels.Images(model, input_range)
        self._jit_compile, self._r_drop, self._prefetch_to = jit_compile, r_drop, prefetch_to
        # The layers are described now, because the rates change during the run.
        self._described = [*identity.describe(model), *self._mixing.described]
        self._described += [f"trainer.r_drop: {r_drop}"] * bool(r_drop)
        self._settled: Settled | None = None
        self._said: set[str] = set()
        self._program: Program | None = None
        self._compile(settle(self._asked, model, None))

    def fit(
        self,
        train: DataLike | None = None,
        validation_data: DataLike | None = None,
        epochs: int = 1,
        callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None = None,
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int | None = None,
        class_weight: dict[int, float] | None = None,
        verbose: int | str = "auto",
        *,
        x: Any = None,
        y: Any = None,
        sample_weight: Any = None,
        batch_size: int | None = None,
        shuffle: bool = True,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
    ) -> keras.callbacks.History:
        """Trains for `epochs` epochs in total, including the epochs before a resume.

        If `checkpoint_dir` contains checkpoints, the run resumes from the newest. If it then sees the same
        batches, it ends with the same weights as a run without the stop (bit for bit with `deterministic=True`).
        If training is stopped within an epoch (by `model.stop_training`, Ctrl-C or SIGTERM), the position in the
        epoch is saved. Callbacks are not saved: after a resume, `EarlyStopping` counts from zero.

        The data may have any form that `keras.Model.fit` takes, with or without targets and sample weights, and
        each of these may be a structure of arrays for several inputs or outputs. A resumed run always sees the
        same batches from an object whose `at_epoch(epoch)` returns the `tf.data.Dataset` of an epoch. From other
        data, it sees the same batches under conditions:

        - another `tf.data.Dataset`, if each pass gives the same batches;
        - arrays `(x, y)`, if they are the same: their order depends only on the epoch and on a seed in the
          checkpoint;
        - a `keras.utils.PyDataset`, if a batch depends only on its index and on the calls of `on_epoch_begin`
          and `on_epoch_end`: the calls of past epochs are repeated;
        - a generator, if it yields the same batches each time it is created: past batches are read and skipped.

        Args:
            train: The training data: a `tf.data.Dataset`, an object with `at_epoch`, a `PyDataset`, a generator of
                batches, or arrays `(x, y)` or `(x, y, sample_weight)`.
            validation_data: Data of the same forms, which are evaluated after each epoch, or None.
            epochs: Int above 0. The total number of epochs.
            callbacks: A Keras callback, a list of callbacks, or None.
            checkpoint_dir: Folder for a checkpoint after each epoch, or None. It keeps the three newest
                checkpoints, and the one with the lowest validation loss (or training loss). All workers share one
                folder.
            checkpoint_every: Int above 0 or None. If it is given, checkpoints are also written within an epoch,
                one after every `checkpoint_every` steps.
            class_weight: Dict from labels to weights, or None. Other labels have the weight 1. In masks, each
                pixel has the weight of its label.
            verbose: 0, 1, 2 or `"auto"`, as for `keras.Model.fit`. Unless it is 0, `fit` also prints the loss that
                it has chosen.
            x: Arrays of inputs, instead of `train`, as in `keras.Model.fit`.
            y: Arrays of targets, with `x`.
            sample_weight: Arrays of weights, with `x`.
            batch_size: Int above 0 or None. The size of the batches that are cut from arrays. None means 32 or, if
                `steps_per_epoch` is given, the size that gives this number of batches.
            shuffle: Bool. Whether each epoch shuffles the rows of arrays, or the batches of a `PyDataset`.
            steps_per_epoch: Int above 0 or None. The number of batches of an epoch; None means all batches of the
                data. A generator needs it. If it is given, an epoch begins where the previous one ended, except
                for an object with `at_epoch`.
            validation_steps: Int above 0 or None. The number of batches of `validation_data` to evaluate.

        Returns:
            A `keras.callbacks.History`, including the epochs before a resume.

        Raises:
            ValueError: For invalid data or arguments, if the targets do not determine the loss, or for a
                checkpoint of another model or run.
            FloatingPointError: If the loss is not finite.
            OSError: If a checkpoint cannot be written; older ones stay intact.
            RuntimeError: If another worker is gone.
        """
        if self.deterministic:
            tf.config.experimental.enable_op_determinism()
        directory = checkpoints.folder(checkpoint_dir, checkpoint_every, self.on_nan)
        order = Order(steps_per_epoch, shuffle, replicas.seed(self.strategy), batch_size)
        feed = feed_of(given(train, x, y, sample_weight, validation_data), "train", order)
        validation = None
        if validation_data is not None:
            once = Order(validation_steps, batch_size=batch_size)
            validation = feed_of(validation_data, "validation_data", once)
        told = verbose != 0 and replicas.is_chief(self.strategy)
        self._build(feed, directory)
        if told:
            self._say(self._settled.words if self._settled else "")
            self._say(feed.resumes if directory else "")
        described = [*self._described, *feed.described]
        saved = None
        if directory:
            may_differ = moved(callbacks, self.model, described)
            saved = checkpoints.restore(directory, self.model, described, may_differ)
        checkpoint = saved[0] if saved else None
        if checkpoint is not None and checkpoint.described is not None:
            described = checkpoint.described  # the rates may have moved since
        replicas.check_checkpoint(self.strategy, checkpoint)
        order.seed = checkpoint.seed if checkpoint else order.seed
        known = feed.input_range or (checkpoint.input_range if checkpoint else None)
        self._images.know(known, feed.bits, feed.value_range)
        feed.prepare = lambda data: batches.ahead(
            batches.weighted(data, class_weight, self.model), self._prefetch_to
        )
        # If the data do not know their length, the first epoch shows it. Rate schedules need it.
        steps = feed.steps or (checkpoint.steps if checkpoint else None)
        callback_list = keras.callbacks.CallbackList(
            replicas.callbacks_here(self.strategy, callbacks),
            add_history=True,
            add_progbar=told,
            verbose=verbose,
            epochs=epochs,
            steps=steps,
            model=self.model,
        )
        settings = Settings(
            train=feed,
            validation=validation,
            order=order,
            directory=directory,
            checkpoint_every=checkpoint_every,
            strategy=self.strategy,
            steps_per_execution=self.steps_per_execution,
            on_nan=self.on_nan,
            described=described,
            images=self._images,
        )
        program = self._compiled(checkpoint.jit_compile if checkpoint else None)
        signals = StopSignals(alone=not replicas.multi_worker(self.strategy))
        Run(self.model, program, settings, callback_list, signals, steps, saved).train(epochs)
        return self.model.history

    def goes_on_from(self, checkpoint_dir: str | Path) -> None:
        """Lets the next `fit` continue from the checkpoint of a run with other settings.

        Use it to train a finished run for more epochs, with a longer learning-rate schedule: pass the same folder
        to `fit` as `checkpoint_dir`. The model and the optimizer must have the same variables as in that run; the
        settings of the layers, the optimizer and the data may differ. The result differs from that of a run that
        had these settings from the start.

        Args:
            checkpoint_dir: Folder of the checkpoints of the other run.
        """
        checkpoints.accept_other_settings(Path(checkpoint_dir))

    @property
    def input_range(self) -> tuple[float, float] | None:
        """The values of a black and of a white pixel in the training images; None until they are known."""
        return self._images.range

    def evaluate(
        self, dataset: DataLike, *, batch_size: int | None = None, steps: int | None = None
    ) -> dict[str, float | np.ndarray]:
        """Returns the loss and the metrics over data.

        Args:
            dataset: Data in one of the forms that `fit` takes.
            batch_size: Int above 0 or None. The size of the batches that are cut from arrays. None means 32 or, if
                `steps` is given, the size that gives this number of batches.
            steps: Int above 0 or None. The number of batches to evaluate; None for all.

        Returns:
            Dict from names to floats; metrics with several values give arrays.

        Raises:
            ValueError: For unusable data.
        """
        feed = feed_of(dataset, "dataset", Order(steps, batch_size=batch_size))
        self._build(feed, None)
        callbacks = keras.callbacks.CallbackList(model=self.model)
        try:
            with unreadable_named(feed):
                logs = evaluate(self.model, self._program or self._compiled(), feed, callbacks)
        finally:
            feed.end()
        return {name: float(value) if value.ndim == 0 else value for name, value in logs.items()}

    def _build(self, feed: Feed, directory: Path | None) -> None:
        """Compiles the model if it is not compiled yet, and builds all variables, which checkpoints need."""
        if directory is not None:
            identity.warn_of_own_optimizers(self.model)
        with replicas.scope(self.strategy):
            if self._settled is None:
                self._compile(settle(self._asked, self.model, feed))
            check_targets(self.model, feed)
            try:
                build_for(self.model, feed.spec)
            except (RuntimeError, NotImplementedError):
                if directory is not None or not batches.has_own_step(self.model):
                    raise  # a model with its own `train_step` may have no `call`, and makes its variables there

    def _compile(self, settled: Settled | None) -> None:
        """Compiles the model with the settings; does nothing for None, before the data are known."""
        if settled is None:
            return
        asked, self._settled = self._asked, settled
        # A compiled model stays as it is: its own `compile` may take other arguments.
        if not settled.as_is or self.strategy is not None:
            self._compile_anew(asked, settled)
        self._described += identity.describe(self.model.optimizer)

    def _compile_anew(self, asked: Asked, settled: Settled) -> None:
        """Compiles the model, with copies of the optimizer and the metrics for the strategy, if any."""
        check_compile(self.model)
        with replicas.scope(self.strategy):
            if settled.loss is None:
                forget_loss(self.model)
            optimizer, metrics, weighted = (
                replicas.remade(self.strategy, thing)
                for thing in (asked.optimizer, settled.metrics, asked.weighted_metrics)
            )
            self.model.compile(
                optimizer,
                settled.loss,
                loss_weights=asked.loss_weights,
                metrics=metrics or None,  # Keras 3.10 refuses an empty list for several outputs
                weighted_metrics=weighted or None,
                jit_compile=False,
            )

    def _say(self, words: str) -> None:
        """Prints a sentence, once."""
        if words and words not in self._said:
            print(f"Trainer: {words}.")
            self._said.add(words)

    def _compiled(self, resumed: bool | None = None) -> Program:
        """Returns the program, compiled as asked for; `resumed` is what the checkpoint says, if there is one."""
        wanted = self._jit_compile
        if wanted == "auto":
            wanted = resumed if resumed is not None else xla_pays(self.model, self.strategy, self.deterministic)
        elif resumed not in (None, wanted):
            warnings.warn(
                f"The run began with jit_compile={resumed} and continues with {wanted}, so the result is not "
                f"identical bit for bit",
                stacklevel=3,
            )
        if self._program is None or self._program.jit_compile != wanted:
            checks = self._settled.checks if self._settled else None
            self._program = Program(self.model, self.strategy, bool(wanted), self._r_drop, self._mixing, checks)
        return self._program
