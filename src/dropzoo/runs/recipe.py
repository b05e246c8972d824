"""The optimizer of a run and its learning-rate schedule, from the settings."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from dropzoo.common.checks import parse_spec, unknown

#: The optimizers by their names; each takes arguments of Keras after a colon, as in "sgd:momentum=0.9".
OPTIMIZERS: dict[str, type[keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
    "lion": keras.optimizers.Lion,
}
#: The schedules of the learning rate.
SCHEDULES = ("cosine", "constant", "one_cycle", "polynomial")
_ONE_CYCLE_UP = 0.3  # the share of the steps in which the rate grows
_POWER = 0.9


@keras.saving.register_keras_serializable(package="dropzoo")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that grows from 0 along a straight line, and then follows a schedule.

    Args:
        after: The learning rate after the warm-up: a float, or a schedule whose steps count from there.
        steps: Int above 0, the steps of the warm-up.
        name: Str.
    """

    def __init__(
        self, after: float | keras.optimizers.schedules.LearningRateSchedule, steps: int, name: str = "warm_up"
    ) -> None:
        super().__init__()
        self.after, self.steps, self.name = after, steps, name

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rest = ops.maximum(step - self.steps, 0.0)
        rate = ops.cast(self.after(rest) if callable(self.after) else self.after, "float32")
        return ops.where(step < self.steps, rate * (step + 1) / self.steps, rate)

    def get_config(self) -> dict[str, Any]:
        after = keras.saving.serialize_keras_object(self.after) if callable(self.after) else self.after
        return {"after": after, "steps": self.steps, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        after = config["after"]
        known = keras.saving.deserialize_keras_object(after) if isinstance(after, dict) else after
        return cls(**{**config, "after": known})


def learning_rate(
    rate: float, schedule: str, steps: int, warm_up: int = 0
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate of a run.

    Args:
        rate: Float, the largest learning rate.
        schedule: One of `SCHEDULES`. `"cosine"` and `"polynomial"` (of power 0.9, as for DeepLab) fall to 0;
            `"one_cycle"` grows for 30 % of the steps from a 25th of the rate, and falls along a cosine.
        steps: Int, the steps of the whole run.
        warm_up: Int, the steps in which the rate grows from 0, before the schedule begins.

    Reference:
        Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates",
        2018, arXiv:1708.07120. Chen et al., "DeepLab", 2016, arXiv:1606.00915.
    """
    rest = max(steps - warm_up, 1)
    after: float | keras.optimizers.schedules.LearningRateSchedule = rate
    if schedule == "cosine":
        after = keras.optimizers.schedules.CosineDecay(rate, rest)
    elif schedule == "polynomial":
        after = keras.optimizers.schedules.PolynomialDecay(rate, rest, 0.0, _POWER)
    elif schedule == "one_cycle":
        up = max(1, round(_ONE_CYCLE_UP * rest))
        after = keras.optimizers.schedules.CosineDecay(
            rate / 25, max(rest - up, 1), 1e-4, warmup_target=rate, warmup_steps=up
        )
    return WarmUp(after, warm_up) if warm_up else after


def optimizer(
    spec: str,
    rate: float | keras.optimizers.schedules.LearningRateSchedule,
    clip_norm: float | None = None,
    ema: float | None = None,
) -> keras.optimizers.Optimizer:
    """Returns an optimizer of Keras.

    Args:
        spec: A name of `OPTIMIZERS`, or one with arguments of Keras: `"adamw:weight_decay=0.05"`.
        rate: The learning rate or its schedule.
        clip_norm: Float, the largest norm of the gradients of all weights together; None to leave them.
        ema: Float in [0, 1), the momentum of the moving average that replaces the weights after the training; None
            for none. 0.99 averages over about 100 steps.

    Raises:
        ValueError: For an unknown name or argument.
    """
    name, positional, arguments = parse_spec(spec, "name:argument=value")
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    averaged = {} if ema is None else {"use_ema": True, "ema_momentum": ema}
    clipped = {} if clip_norm is None else {"global_clipnorm": clip_norm}
    try:
        if positional:
            raise TypeError("arguments need names, as in momentum=0.9")
        return OPTIMIZERS[name](rate, **arguments, **clipped, **averaged)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Cannot make the optimizer {spec!r}: {error}") from None


def check_optimizer(spec: str, rate: float) -> None:
    """Raises a ValueError as `optimizer` does.

    The variables of the optimizer are made in a graph of their own. An eager variable would start TensorFlow, and
    then its devices and the connections of several workers can no longer be set up.
    """
    with tf.Graph().as_default():
        optimizer(spec, rate)


def is_exhausted(losses: Sequence[float], patience: int) -> bool:
    """Returns whether the last `patience` losses are all no better than the best before."""
    return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


class Patience(keras.callbacks.Callback):
    """Stops a run whose validation loss has not improved for some epochs.

    It looks at the history, which a resumed run continues, so that a run ends at the same epoch wherever it was
    stopped; Keras' `EarlyStopping` counts from zero after a resume.

    Args:
        epochs: Int above 0, the number of epochs to wait.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        name = "val_loss" if "val_loss" in logs else "loss"
        losses = [*self.model.history.history.get(name, ())[:epoch], float(logs[name])]
        if is_exhausted(losses, self.epochs):
            self.model.stop_training = True
