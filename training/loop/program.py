"""The functions that run on the devices: many steps in one `tf.function`, which reads the batches in the graph."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import keras
import tensorflow as tf

from dropzoo.common.keras_internals import loss_tracker_of
from dropzoo.layers.draws.xla import gradients_of_weights_only
from dropzoo.training.loop.adam import fused
from dropzoo.training.loop.batches import Batch, has_own_step
from dropzoo.training.loop.labels import REFUSED, LabelChecks, checked, refusals_named
from dropzoo.training.loop.mixing import Mixed, Mixing, of_masks
from dropzoo.training.loop.pixels import Look

# The device on which tf.data leaves a batch. A replica takes its rows there, so that no device gets other rows.
_HOST = "/device:CPU:0"

Logs: TypeAlias = dict[str, tf.Tensor]
Step: TypeAlias = Callable[[Mixed, tf.Tensor | None], tuple[tf.Tensor, tf.Tensor]]


class Execution(NamedTuple):
    """The result of one call of the training loop.

    Attributes:
        done: The number of steps done.
        loss: The loss of the last step.
        norm: The gradient norm of the last step, if its loss is not finite.
        asked: The number of processes that are asked to stop.
        logs: The metrics of the epoch so far, as tensors.
    """

    done: int
    loss: float
    norm: float
    asked: int
    logs: Logs


class Program:
    """The compiled loops of training and evaluation of one model.

    Each replica computes some rows of the batch that a single device would get, and its loss is weighted by its
    share of the rows. So the sum of the gradients does not depend on how the rows are divided.

    Args:
        model: A compiled model.
        strategy: A `tf.distribute.Strategy` or None.
        jit_compile: Bool. Whether XLA compiles each step.
        r_drop: Float, 0 or more. The weight of `r_drop_loss`.
        mixing: The mixing of the examples of a batch.
        checks: The checks of the labels, or None.

    Attributes:
        steps: Variable, int64. The number of training steps so far.
        look: The lowest and the highest pixel in the first training steps.
    """

    def __init__(
        self,
        model: keras.Model,
        strategy: tf.distribute.Strategy | None,
        jit_compile: bool,
        r_drop: float,
        mixing: Mixing,
        checks: LabelChecks | None = None,
    ) -> None:
        self._mixing = mixing
        self._model, self._strategy, self._r_drop, self.jit_compile = model, strategy, r_drop, jit_compile
        self._checks, self.look = checks, Look()
        self._replicas = 1 if strategy is None else strategy.num_replicas_in_sync
        # The device counts the steps, so the number is right whenever an interrupt comes.
        self.steps = tf.Variable(0, dtype="int64")
        self._step = tf.function(self._train_step, jit_compile=True, autograph=False) if jit_compile else None
        # Without AutoGraph, as in Keras, which itself converts the `call` of layers that need it.
        self.train = tf.function(self._train, reduce_retracing=True, autograph=False)
        self._test_step = tf.function(model.test_step, jit_compile=True, autograph=False) if jit_compile else None
        self._tested = tf.function(self._test, reduce_retracing=True, autograph=False)
        # The last logs that the model's own `train_step` returned, if it has one. The run reports these, as `fit`.
        self._given: dict[str, tf.Variable] = {}

    def run(
        self, batches: tf.data.Iterator, steps: int, stop: bool, counted: bool, position: tuple[int, int, int]
    ) -> Execution:
        """Trains `steps` steps, or fewer if the data end or the loss of a step is not finite.

        Args:
            batches: The iterator of a dataset.
            steps: Int above 0.
            stop: Bool. Whether this process is asked to stop.
            counted: Bool. Whether the iterator is known to hold at least `steps` batches.
            position: The seed of the run, the epoch, and the next step within it, from 0.
        """
        at = tf.constant(position, "int64")
        with refusals_named():
            found = self.train(batches, tf.constant(steps, "int64"), tf.constant(int(stop)), counted, at)
        done, loss, norm, asked, logs = found
        return Execution(int(done), float(loss), float(norm), int(asked), logs)

    def test(self, batch: Batch) -> Logs:
        """Evaluates one batch and returns the metrics so far."""
        with refusals_named():
            return self._tested(batch)

    def logs(self) -> Logs:
        """Returns the metrics of the epoch so far."""
        given = {name: value.read_value() for name, value in self._given.items()}
        return given or self._model.get_metrics_result()

    def _train(
        self, iterator: tf.data.Iterator, steps: tf.Tensor, stop: tf.Tensor, counted: bool, position: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, Logs]:
        """Returns the fields of `Execution` as tensors."""

        def run(batch: Batch, done: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            with tf.device(_HOST):
                self.look.at(batch, self.steps + done)
                batch = checked(batch, self._checks, "`train`")
            mixed = self._mixing.apply(batch, position + tf.stack([0, 0, done]))
            return tf.constant(True), *self._on_replicas(self._step or self._train_step, mixed)

        def body(done: tf.Tensor, more: tf.Tensor, loss: tf.Tensor, norm: tf.Tensor) -> tuple[tf.Tensor, ...]:
            if counted:
                more, loss, norm = run(iterator.get_next(), done)
            else:
                batch, end = iterator.get_next_as_optional(), (tf.constant(False), loss, norm)
                more, loss, norm = tf.cond(batch.has_value(), lambda: run(batch.get_value(), done), lambda: end)
            return done + tf.cast(more, done.dtype), more, loss, norm

        def goes_on(done: tf.Tensor, more: tf.Tensor, loss: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
            return more & (done < steps) & tf.math.is_finite(loss)

        start = tf.zeros((), "int64"), tf.constant(True), tf.zeros(()), tf.zeros(())
        with fused(self._model.optimizer):  # around the loop, because the replicas are traced side by side
            done, _, loss, norm = tf.while_loop(goes_on, body, start)
        self.steps.assign_add(done)
        if self._strategy is not None:
            stop = self._strategy.reduce("SUM", self._strategy.run(lambda: tf.identity(stop)), axis=None)
        return done, loss, norm, stop, self.logs()

    def _test(self, batch: Batch) -> Logs:
        with tf.device(_HOST):  # and not within what XLA compiles, which has no assertions
            batch = checked(batch, self._checks, "the data of the evaluation")
        if self._strategy is None:
            return (self._test_step or self._model.test_step)(batch)

        def replica_step() -> None:
            rows = self._rows(batch)
            own = tf.shape(tf.nest.flatten(rows)[0])[0]
            # A batch with fewer examples than replicas leaves some replicas without any, and their mean is NaN.
            tf.cond(own > 0, lambda: tf.group(*tf.nest.flatten(self._model.test_step(rows))), tf.no_op)

        self._strategy.run(replica_step)
        return self._model.get_metrics_result()

    def _on_replicas(self, step: Step, mixed: Mixed) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the loss and the gradient norm of one step, summed over the replicas."""
        if self._strategy is None:
            return step(mixed, None)

        def replica_step() -> tuple[tf.Tensor, tf.Tensor]:
            partner = self._rows(mixed.partner) if mixed.partner else ()  # rows of nothing have no size
            rows = Mixed(self._rows(mixed.batch), partner, mixed.share)
            total, own = (tf.shape(tf.nest.flatten(those.batch)[0])[0] for those in (mixed, rows))
            message = [
                f"{REFUSED} a batch of `train` has",
                total,
                f"examples, fewer than the {self._replicas} replicas. Leave out the last, incomplete batch "
                "(drop_remainder=True), or choose another batch size",
            ]
            with tf.control_dependencies([tf.Assert(total >= self._replicas, message)]):  # fails on all replicas
                return step(rows, tf.cast(own * self._replicas, "float32") / tf.cast(total, "float32"))

        both = self._strategy.run(lambda: tf.stack(replica_step()))  # one exchange for both numbers
        return tuple(tf.unstack(self._strategy.reduce("SUM", both, axis=None)))

    def _rows(self, batch: Batch) -> Batch:
        """Returns the rows of this replica."""
        replica, replicas = tf.distribute.get_replica_context().replica_id_in_sync_group, self._replicas
        with tf.device(_HOST):
            size = tf.shape(tf.nest.flatten(batch)[0])[0]
            first, end = (size * (replica + n) // replicas for n in (0, 1))
            return tf.nest.map_structure(lambda tensor: tensor[first:end], batch)

    def _train_step(self, mixed: Mixed, share: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Does what Keras' `train_step` does, and returns the loss and the gradient norm."""
        model = self._model
        if has_own_step(model):
            return self._own_step(mixed.batch)
        x, y, weights = keras.utils.unpack_x_y_sample_weight(mixed.batch)
        if self._r_drop:
            x, y, weights = keras.tree.map_structure(_twice, (x, y, weights))
        with tf.GradientTape() as tape, gradients_of_weights_only():
            predicted = model(x, **_training_for(model.call))
            loss = self._loss(x, y, predicted, weights)
            if mixed.share is not None:
                loss = mixed.share * loss + (1 - mixed.share) * self._partner_loss(x, mixed, predicted)
            if self._r_drop:
                loss += self._r_drop / self._replicas * r_drop_loss(predicted)
            counted = loss if share is None else loss * tf.cast(share, loss.dtype)
            scaled = model.optimizer.scale_loss(counted)
        weight = tf.shape(tf.nest.flatten(x)[0])[0]
        loss_tracker_of(model).update_state(loss * self._replicas, sample_weight=weight)
        variables = model.trainable_weights
        gradients = tape.gradient(scaled, variables)
        scale = model.optimizer.scale_loss(tf.ones(()))
        norm = tf.cond(
            tf.math.is_finite(counted),
            lambda: tf.zeros(()),
            lambda: tf.cast(tf.linalg.global_norm(gradients), "float32") / scale / self._replicas,
        )
        model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        model.compute_metrics(x, y, predicted, sample_weight=weights)
        return tf.cast(counted, "float32"), norm

    def _loss(self, x: Any, y: Any, predicted: Any, weights: Any) -> tf.Tensor:
        return self._model.compute_loss(x, y, predicted, weights, **_training_for(self._model.compute_loss))

    def _partner_loss(self, x: Any, mixed: Mixed, predicted: Any) -> tf.Tensor:
        """Returns the loss for the targets of the other examples of a mixed batch."""
        if any(leaf.shape.rank > 2 for leaf in tf.nest.flatten(predicted)):
            raise of_masks()
        y, weights = (*mixed.partner, None)[:2]
        if self._r_drop:
            y, weights = keras.tree.map_structure(_twice, (y, weights))
        return self._loss(x, y, predicted, weights)

    def _own_step(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs the model's own `train_step` and keeps the logs that it returns."""
        logs = self._model.train_step(batch)
        for name, value in logs.items() if self._strategy is None else ():
            value = tf.convert_to_tensor(value)
            if name not in self._given:
                with tf.init_scope():
                    self._given[name] = tf.Variable(tf.zeros(value.shape, value.dtype))
            self._given[name].assign(value)
        return tf.cast(logs.get("loss", 0.0), "float32"), tf.constant(float("nan"))


def _training_for(function: Callable[..., Any]) -> dict[str, bool]:
    """Returns `training=True` as keyword arguments, if a method that users override takes it."""
    return {"training": True} if "training" in inspect.signature(function).parameters else {}


def _twice(tensor: tf.Tensor | None) -> tf.Tensor | None:
    return None if tensor is None else tf.concat([tensor, tensor], 0)


def r_drop_loss(logits: tf.Tensor) -> tf.Tensor:
    """Returns the distance between the predictions of two passes, a quarter of `KL(p1 || p2) + KL(p2 || p1)`.

    Differs from the paper: it is half of the paper's term, because the cross-entropy here is the mean over the two
    passes and not their sum. So `r_drop` is the paper's alpha.

    Args:
        logits: Float tensor `(2 * batch, ..., classes)`; the halves are the two passes. One logit is that of a
            binary task.

    Returns:
        A scalar, the mean over all axes except the last.

    Reference:
        Liang et al., "R-Drop: Regularized Dropout for Neural Networks", 2021, arXiv:2106.14448.
    """
    logits = tf.cast(logits, "float32")
    if logits.shape[-1] == 1:
        logits = tf.concat([logits, tf.zeros_like(logits)], -1)
    first, second = tf.split(tf.nn.log_softmax(logits), 2)
    # The two sums together are one: (p1 - p2) * (log p1 - log p2).
    return 0.25 * tf.reduce_mean(tf.reduce_sum((tf.exp(first) - tf.exp(second)) * (first - second), axis=-1))
