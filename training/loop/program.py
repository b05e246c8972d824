"""What runs on the devices: many steps in one `tf.function`, which pulls the batches in the graph."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from dropzoo.layers.draws.xla import gradients_of_weights_only
from dropzoo.training.loop.adam import fused
from dropzoo.training.loop.batches import REFUSED, check_labels, has_own_step, refusals_named

# Where tf.data leaves a batch. A replica takes its rows there, so that no device gets the rows of others.
_HOST = "/device:CPU:0"


class Program:
    """The compiled loops of training and evaluation of one model.

    Each replica computes its share of the rows of the very batch that one device would get, and its loss counts
    by that share. So neither an uneven batch nor the number of replicas changes the gradient of the sum.

    Args:
        model: compiled by Keras.
        strategy: of `tf.distribute`, or None.
        jit_compile: whether each step is compiled by XLA.
        r_drop: the weight of `r_drop_loss`.
    """

    def __init__(self, model: keras.Model, strategy: Any, jit_compile: bool, r_drop: float) -> None:
        self._model, self._strategy, self._r_drop, self.jit_compile = model, strategy, r_drop, jit_compile
        self._replicas = 1 if strategy is None else strategy.num_replicas_in_sync
        # The steps of training so far. Counted on the device: an interrupt falls before or after all of them.
        self.steps = tf.Variable(0, dtype="int64")
        self._step = tf.function(self._train_step, jit_compile=True, autograph=False) if jit_compile else None
        # Keras converts what layers need by itself, and keeps AutoGraph away from the step.
        self.train = tf.function(self._train, reduce_retracing=True, autograph=False)
        self._tested = tf.function(self._test, reduce_retracing=True, autograph=False, jit_compile=jit_compile)
        # What a `train_step` of the model's own gave last, which is then what the run reports, as in `fit`.
        self._given: dict[str, tf.Variable] = {}

    def run(self, iterator: Any, steps: int, asked: Any, counted: bool) -> tuple[int, float, float, int, Any]:
        """`_train`, with its results as Python's numbers; metrics stay tensors."""
        with refusals_named():
            found = self.train(iterator, tf.constant(steps, "int64"), tf.constant(int(bool(asked))), counted)
        done, loss, norm, asked, logs = found
        return int(done), float(loss), float(norm), int(asked), logs

    def test(self, batch: Any) -> dict[str, tf.Tensor]:
        """`_test`."""
        with refusals_named():
            return self._tested(batch)

    def logs(self) -> dict[str, Any]:
        """What the epoch has come to so far."""
        return {
            name: value.read_value() for name, value in self._given.items()
        } or self._model.get_metrics_result()

    def _train(self, iterator: Any, steps: tf.Tensor, stop: tf.Tensor, counted: bool) -> tuple[Any, ...]:
        """Up to `steps` steps; ends with the data, and after a step whose loss is not finite.

        Args:
            iterator: of the batches.
            steps: how many.
            stop: not 0 where this process is asked to stop.
            counted: the iterator is known to hold so many batches.

        Returns:
            The steps done, the last one's loss and (of a loss that is not finite) gradient norm, the sum of
            `stop` over all processes, and the metrics so far.
        """

        def run(batch: Any) -> tuple[Any, ...]:
            with tf.device(_HOST):
                batch = check_labels(batch, self._model, "`train`")
            return tf.constant(True), *self._on_replicas(self._step or self._train_step, batch)

        def body(done: Any, more: Any, loss: Any, norm: Any) -> tuple[Any, ...]:
            if counted:
                more, loss, norm = run(iterator.get_next())
            else:
                batch, end = iterator.get_next_as_optional(), (tf.constant(False), loss, norm)
                more, loss, norm = tf.cond(batch.has_value(), lambda: run(batch.get_value()), lambda: end)
            return done + tf.cast(more, done.dtype), more, loss, norm

        def goes_on(done: Any, more: Any, loss: Any, norm: Any) -> Any:
            return more & (done < steps) & tf.math.is_finite(loss)

        start = tf.zeros((), "int64"), tf.constant(True), tf.zeros(()), tf.zeros(())
        with fused(self._model.optimizer):  # out here: the replicas are traced side by side
            done, _, loss, norm = tf.while_loop(goes_on, body, start)
        self.steps.assign_add(done)
        if self._strategy is not None:
            stop = self._strategy.reduce("SUM", self._strategy.run(lambda: tf.identity(stop)), axis=None)
        return done, loss, norm, stop, self.logs()

    def _test(self, batch: Any) -> dict[str, tf.Tensor]:
        if not self.jit_compile:  # XLA has no assertions
            with tf.device(_HOST):
                batch = check_labels(batch, self._model, "the data of the evaluation")
        if self._strategy is None:
            return self._model.test_step(batch)

        def replica_step() -> None:
            rows = self._rows(batch)
            own = tf.shape(tf.nest.flatten(rows)[0])[0]
            # A batch of fewer examples than replicas leaves some without; the mean over none is NaN.
            tf.cond(own > 0, lambda: tf.group(*tf.nest.flatten(self._model.test_step(rows))), tf.no_op)

        self._strategy.run(replica_step)
        return self._model.get_metrics_result()

    def _on_replicas(self, step: Callable[..., Any], batch: Any) -> tuple[Any, Any]:
        if self._strategy is None:
            return step(batch, None)

        def replica_step() -> tuple[Any, Any]:
            rows = self._rows(batch)
            total, own = (tf.shape(tf.nest.flatten(those)[0])[0] for those in (batch, rows))
            message = [
                f"{REFUSED} a batch of `train` has",
                total,
                f"examples, fewer than the replicas: {self._replicas}",
            ]
            with tf.control_dependencies([tf.Assert(total >= self._replicas, message)]):  # fails on all replicas
                return step(rows, tf.cast(own * self._replicas, "float32") / tf.cast(total, "float32"))

        both = self._strategy.run(lambda: tf.stack(replica_step()))  # one exchange for the two
        return tuple(tf.unstack(self._strategy.reduce("SUM", both, axis=None)))

    def _rows(self, batch: Any) -> Any:
        replica, replicas = tf.distribute.get_replica_context().replica_id_in_sync_group, self._replicas
        with tf.device(_HOST):
            size = tf.shape(tf.nest.flatten(batch)[0])[0]
            first, end = (size * (replica + n) // replicas for n in (0, 1))
            return tf.nest.map_structure(lambda tensor: tensor[first:end], batch)

    def _train_step(self, batch: Any, share: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Keras' `train_step`, which gives the loss and the gradient norm as well."""
        model = self._model
        if has_own_step(model):
            logs = model.train_step(batch)
            for name, value in logs.items() if self._strategy is None else ():
                value = tf.convert_to_tensor(value)
                if name not in self._given:
                    with tf.init_scope():
                        self._given[name] = tf.Variable(tf.zeros(value.shape, value.dtype))
                self._given[name].assign(value)
            return tf.cast(logs.get("loss", 0.0), "float32"), tf.constant(float("nan"))
        x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
        if self._r_drop:
            x, y, weights = keras.tree.map_structure(_twice, (x, y, weights))
        with tf.GradientTape() as tape, gradients_of_weights_only():
            predicted = model(x, training=True) if model._call_has_training_arg else model(x)
            loss = model._compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weights, training=True)
            if self._r_drop:
                loss += self._r_drop / self._replicas * r_drop_loss(predicted)
            counted = loss if share is None else loss * tf.cast(share, loss.dtype)
            scaled = model.optimizer.scale_loss(counted)
        weight = tf.shape(tf.nest.flatten(x)[0])[0]
        model._loss_tracker.update_state(loss * self._replicas, sample_weight=weight)
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


def _twice(tensor: Any) -> Any:
    return None if tensor is None else tf.concat([tensor, tensor], 0)


def r_drop_loss(logits: tf.Tensor) -> tf.Tensor:
    """The distance of the predictions of two passes: a quarter of `KL(p1 || p2) + KL(p2 || p1)`.

    The logits of the passes are the halves of the batch. The mean is over all but the last axis; one logit is
    that of a binary task.

    Differs from the paper: half of its term, as the cross-entropy here is half of its sum over the two passes;
    so `r_drop` is the paper's alpha.

    Reference:
        Liang et al., "R-Drop: Regularized Dropout for Neural Networks", 2021, arXiv:2106.14448.
    """
    logits = tf.cast(logits, "float32")
    if logits.shape[-1] == 1:
        logits = tf.concat([logits, tf.zeros_like(logits)], -1)
    first, second = tf.split(tf.nn.log_softmax(logits), 2)
    # Together the two sums are one: (p1 - p2) * (log p1 - log p2).
    return 0.25 * tf.reduce_mean(tf.reduce_sum((tf.exp(first) - tf.exp(second)) * (first - second), axis=-1))


def check_options(jit_compile: Any, steps_per_execution: Any, on_nan: Any, r_drop: Any, one_output: bool) -> None:
    """Refuses bad options of the trainer."""
    if jit_compile not in (True, False, "auto"):
        raise ValueError(f"`jit_compile` must be True, False or 'auto'. Received: jit_compile={jit_compile!r}")
    if not isinstance(steps_per_execution, int) or steps_per_execution < 1:
        raise ValueError(
            f"`steps_per_execution` must be a positive int. Received: steps_per_execution={steps_per_execution!r}"
        )
    if on_nan not in ("stop", "restore"):
        raise ValueError(f"`on_nan` must be 'stop' or 'restore'. Received: on_nan={on_nan!r}")
    if not isinstance(r_drop, (int, float)) or not 0 <= r_drop < float("inf"):
        raise ValueError(f"`r_drop` must be a number from 0 up. Received: r_drop={r_drop!r}")
    if r_drop and not one_output:
        raise ValueError(f"`r_drop` needs a model of one output, of known shape. Received: r_drop={r_drop}")


def check_device(name: str | None, strategy: Any) -> None:
    """Refuses to prefetch to a device that is not there, or for a strategy, which has devices of its own."""
    if name is None:
        return
    if strategy is not None:
        raise ValueError(f"`prefetch_to` is for training without a strategy. Received: prefetch_to={name!r}")
    there = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    if name not in there:
        raise ValueError(
            f"`prefetch_to` must be a device of this machine: {there}. Received: prefetch_to={name!r}"
        )


def xla_pays(model: keras.Model, strategy: Any, deterministic: bool) -> bool:
    """The rule of `jit_compile="auto"`."""
    if strategy is not None or deterministic or not tf.config.list_physical_devices("GPU"):
        return False
    return all(layer.supports_jit for layer in model._flatten_layers())
