"""Private names of Keras: the only module that uses them.

Keras has no public way to do what these functions do. Each says why it is needed, and `NAMES` lists what it relies
on with the version in which it was last seen; `tests/common/test_internals.py` says which one is gone.
"""

import keras


def flatten_layers(model: keras.Layer, include_self: bool = True) -> list[keras.Layer]:
    """Returns all layers of a model, those inside layers and models too, each once.

    `keras.Model.layers` stops at the first level, so it misses wrapped layers and nested models.
    """
    return list(model._flatten_layers(include_self=include_self))


# Training


def build_for(model: keras.Model, data_batch: tuple) -> None:
    """Makes every variable of a compiled model, its metrics and its optimizer, without a step.

    A checkpoint can only be put into variables that exist. The public way to all of them is `test_on_batch` with
    real data, which costs a batch.

    Args:
        model: A compiled model.
        data_batch: The specs of a batch, as `dataset.element_spec` gives them.
    """
    model._symbolic_build(data_batch=data_batch)


def adam_slots(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> tuple[keras.Variable, keras.Variable] | None:
    """Returns the momentum and the velocity that Adam keeps for a variable.

    Keras has no public way from a variable to its slots: `optimizer.variables` is a flat list. Where the names are
    gone the result is None, and the caller leaves the update to Keras.
    """
    try:
        index = optimizer._get_variable_index(variable)
        return optimizer._momentums[index], optimizer._velocities[index]
    except (AttributeError, LookupError):
        return None


def lower_is_better(metric: keras.metrics.Metric) -> None:
    """Tells callbacks such as `EarlyStopping(mode="auto")` that a lower value of a metric is better.

    Keras sets this on its own metrics and has no public way to set it on others.
    """
    metric._direction = "down"
