"""Fits a model, its optimizer and the callbacks to a `tf.distribute` strategy; None changes nothing."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dropzoo.common.keras_internals import flatten_layers
from dropzoo.training.loggers import CSVLogger, MLflowLogger
from dropzoo.training.loop.checkpoints import Checkpoint

# Callbacks that write files: one process writes for all workers.
_WRITERS = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.TensorBoard,
    CSVLogger,
    MLflowLogger,
)
# Options with which an optimizer acts only once in several steps.
_CONDITIONAL = {
    "gradient_accumulation_steps": "Use larger batches instead",
    "ema_overwrite_frequency": "Leave it at None: the EMA then replaces the weights at the end of `fit`",
}
# The errors that TensorFlow raises when it waits for a worker that is gone.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


def multi_worker(strategy: tf.distribute.Strategy | None) -> bool:
    """Returns whether other processes take part."""
    resolver: Any = getattr(strategy, "cluster_resolver", None)
    return bool(resolver) and len(tf.nest.flatten(resolver.cluster_spec().as_dict())) > 1


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Returns whether this process is the one that writes files."""
    if strategy is None or not multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    chief = "chief" in resolver.cluster_spec().as_dict()
    return resolver.task_type == "chief" if chief else (resolver.task_type, resolver.task_id) == ("worker", 0)


def scope(strategy: tf.distribute.Strategy | None) -> contextlib.AbstractContextManager:
    """Returns the context in which the variables of a model must be made."""
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def prepare(
    strategy: tf.distribute.Strategy | None,
    model: keras.Model,
    optimizer: str | keras.optimizers.Optimizer,
    jit_compile: bool | str,
) -> None:
    """Lets batch normalisation see whole batches, and checks that the replicas will train together.

    Args:
        strategy: A strategy, or None, for which the function does nothing.
        model: A model built under the strategy.
        optimizer: As for `compile`.
        jit_compile: As for `Trainer`.

    Raises:
        ValueError: If the strategy is of another kind, the model was built elsewhere, or an option cannot work
            under a strategy.
    """
    if strategy is None:
        return
    if not isinstance(strategy, tf.distribute.Strategy) or isinstance(
        strategy, tf.distribute.experimental.ParameterServerStrategy
    ):
        raise ValueError(
            "`strategy` must be None, a tf.distribute.MirroredStrategy or a MultiWorkerMirroredStrategy. "
            f"Received: {strategy!r}"
        )
    if jit_compile is True:
        raise ValueError("`jit_compile` must be False or 'auto' with a strategy: XLA cannot compile its steps")
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for option, way in _CONDITIONAL.items():
        if value := getattr(inner, option, None):
            raise ValueError(
                f"Keras optimizers do not support `{option}` under a strategy, because replicas would then "
                f"exchange values in some steps only. {way}. Received: {option}={value}"
            )
    inside = [strategy.extended.variable_created_in_scope(variable.value) for variable in model.variables]
    if not inside or not all(inside):
        raise ValueError(
            "The model must be built under the strategy: `with strategy.scope(): model = ...`. Received: a "
            f"model with {'only some' if any(inside) else 'none'} of its variables created there"
        )
    for layer in flatten_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def remade(strategy: tf.distribute.Strategy | None, thing: Any) -> Any:
    """Returns new copies of optimizers or metrics, made under the strategy, where their variables must be made.

    Args:
        strategy: A strategy or None, with which `thing` is returned.
        thing: An optimizer, a metric, a name, or a list or dict of these, as `compile` takes them.
    """
    if strategy is None or thing is None or isinstance(thing, str):
        return thing
    if isinstance(thing, (list, tuple, dict)):
        entries = thing.items() if isinstance(thing, dict) else enumerate(thing)
        made = {key: remade(strategy, entry) for key, entry in entries}
        return made if isinstance(thing, dict) else list(made.values())
    if not isinstance(thing, (keras.optimizers.Optimizer, keras.metrics.Metric)):
        return thing
    if all(strategy.extended.variable_created_in_scope(variable.value) for variable in thing.variables):
        return thing
    return type(thing).from_config(thing.get_config())


def seed(strategy: tf.distribute.Strategy | None) -> int:
    """Returns a seed for the order of data, drawn from NumPy's state, which `keras.utils.set_random_seed` sets.

    Several workers must have the same seed without communication: theirs is 0.
    """
    return 0 if multi_worker(strategy) else int(np.random.randint(2**31))


def callbacks_here(
    strategy: tf.distribute.Strategy | None,
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None,
) -> list[keras.callbacks.Callback]:
    """Returns the callbacks of this process: only the chief has those that write files."""
    chief = is_chief(strategy)
    given = keras.tree.flatten(callbacks or [])  # flattens a single callback to a list too, as `fit` does
    return [callback for callback in given if chief or not isinstance(callback, _WRITERS)]


def same_everywhere(strategy: tf.distribute.Strategy | None, value: int) -> bool:
    """Returns whether all processes have the same number."""
    if strategy is None or not multi_worker(strategy):
        return True
    total = strategy.reduce("SUM", strategy.run(tf.identity, args=(tf.constant(value, "int64"),)), axis=None)
    return int(total) == value * strategy.num_replicas_in_sync


def check_checkpoint(strategy: tf.distribute.Strategy | None, checkpoint: Checkpoint | None) -> None:
    """Raises a ValueError if the workers continue from different checkpoints."""
    # Epoch and step as one number, because the workers can only compare numbers.
    position = checkpoint.epoch * 10**9 + checkpoint.step if checkpoint else 0
    if not same_everywhere(strategy, position):
        raise ValueError("The workers found different checkpoints: all must share the folder `checkpoint_dir`")


@contextlib.contextmanager
def lost_worker_named(strategy: tf.distribute.Strategy | None, last: Callable[[], Path | None]) -> Iterator[None]:
    """Explains TensorFlow's error when another worker is gone; `last()` returns the last checkpoint."""
    try:
        yield
    except _LOST as error:
        if not multi_worker(strategy):
            raise
        raise RuntimeError(
            "Another worker is gone, or did not answer in time. Start all workers again: the run "
            f"{f'continues from {last()}' if last() else 'starts from the beginning: there is no checkpoint'}.\n"
            f"TensorFlow says: {str(error)[:300]}"
        ) from error
