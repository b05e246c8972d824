"""What a strategy of `tf.distribute` asks of a model, its optimizer and the callbacks; nothing, if it is None."""

import contextlib
from typing import Any

import keras
import tensorflow as tf

# Of these, one for all workers: what they write is one and the same.
_WRITERS = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.TensorBoard,
)
# Options of an optimizer that make it do something only every so many steps.
_CONDITIONAL = ("gradient_accumulation_steps", "ema_overwrite_frequency")
# What TensorFlow says when it waits for a worker that is gone.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


def multi_worker(strategy: Any) -> bool:
    """Whether other processes take part."""
    resolver: Any = getattr(strategy, "cluster_resolver", None)
    return bool(resolver) and len(tf.nest.flatten(resolver.cluster_spec().as_dict())) > 1


def is_chief(strategy: Any) -> bool:
    """Whether this process is the one that writes."""
    if not multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    chief = "chief" in resolver.cluster_spec().as_dict()
    return resolver.task_type == "chief" if chief else (resolver.task_type, resolver.task_id) == ("worker", 0)


def scope(strategy: Any) -> Any:
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def prepare(strategy: Any, model: keras.Model, optimizer: Any, jit_compile: Any) -> None:
    """Lets batch normalisation see whole batches; refuses what would train replicas alone, or fail late."""
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
    for option in _CONDITIONAL:
        if value := getattr(inner, option, None):
            raise ValueError(
                f"Keras optimizers cannot do `{option}` under a strategy: it puts the exchange between replicas "
                "into a condition. Give larger batches instead of accumulating; EMA without an overwrite "
                f"frequency replaces the weights when `fit` ends. Received: {option}={value}"
            )
    inside = [strategy.extended.variable_created_in_scope(variable.value) for variable in model.variables]
    if not inside or not all(inside):
        raise ValueError(
            "The model must be built under the strategy: `with strategy.scope(): model = ...`. "
            f"Received a model {'of which a part was' if any(inside) else 'that was not'}"
        )
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def remade(strategy: Any, thing: Any) -> Any:
    """An optimizer or metric, or several, made anew under the strategy, where their variables must be made."""
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


def callbacks_here(strategy: Any, callbacks: Any) -> Any:
    """The callbacks without those that only the chief has."""
    chief = is_chief(strategy)
    given = keras.tree.flatten(callbacks or [])  # one alone, too, as for `fit`
    return [callback for callback in given if chief or not isinstance(callback, _WRITERS)]


def same_everywhere(strategy: Any, value: int) -> bool:
    """Whether all processes have the same number."""
    if not multi_worker(strategy):
        return True
    total = strategy.reduce("SUM", strategy.run(tf.identity, args=(tf.constant(value, "int64"),)), axis=None)
    return int(total) == value * strategy.num_replicas_in_sync


@contextlib.contextmanager
def lost_worker_named(strategy: Any, last: Any) -> Any:
    """Says what TensorFlow's error means when another worker is gone; `last()` is the last checkpoint."""
    try:
        yield
    except _LOST as error:
        if not multi_worker(strategy):
            raise
        raise RuntimeError(
            "Another worker is gone, or did not answer in time. Start all workers again: "
            f"{'the run goes on from ' + str(last()) if last() else 'without a checkpoint the run starts anew'}.\n"
            f"TensorFlow says: {str(error)[:300]}"
        ) from error
