"""The settings that callbacks change during training, which are therefore not part of what defines the run."""

from collections.abc import Iterable, Sequence

import keras

from dropzoo.training.loop.identity import identity_of_layer
from dropzoo.training.rate_schedule import RateSchedule

_OF_LEARNING_RATES = (keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler)


def moved(
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None,
    model: keras.Model,
    described: Iterable[str],
) -> set[str]:
    """Returns the names of the settings that callbacks change.

    A model that was stopped has the rates of the step where it stopped, and not those that the run began with. The
    same call must still continue the run.

    Args:
        callbacks: As for Keras' `fit`.
        model: A built model.
        described: The results of `describe` for the model and for its optimizer.
    """
    names: set[str] = set()
    for callback in keras.tree.flatten(callbacks or []):
        if isinstance(callback, RateSchedule):
            matched = callback.match(model).values()
            names |= {f"{identity_of_layer(layer)}.rate" for found in matched for layer in found}
        if isinstance(callback, _OF_LEARNING_RATES):
            settings = (line.partition(": ")[0] for line in described)
            names |= {
                name for name in settings if name.startswith("optimizer.") and name.endswith(".learning_rate")
            }
    return names
