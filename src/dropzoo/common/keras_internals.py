"""Private names of Keras; no other module uses any.

Keras has no public way to do what these functions do, and each docstring says why the function is needed. `NAMES`
lists the private names. After an update of Keras, `tests/common/test_internals.py` reports those that are gone.
"""

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import keras
from keras.src.models.functional import Functional
from keras.src.saving.serialization_lib import SafeModeScope

#: The oldest and the newest version in which all of `NAMES` were seen. The bounds in pyproject.toml enclose them.
FIRST_SEEN, LAST_SEEN = "3.10.0", "3.15.1"

#: The class of Keras' Functional models, for isinstance checks and for subclasses. A `keras.Model(inputs,
#: outputs)` is an instance, but making one to learn its type would increment the automatic names of the user's
#: layers.
KerasFunctional = Functional


#: Each name with a dotted path to its owner, and the functions that rely on it.
NAMES = {
    "keras.src.models.functional.Functional": "KerasFunctional",
    "keras.src.saving.serialization_lib.SafeModeScope": "own_code_is_safe",
    "keras.Model._flatten_layers": "flatten_layers",
    "keras.Layer._layers": "sublayers_of, hold_layer",
    "keras.Layer._seed_generators": "seed_generators_of, hand_to_steps",
    "keras.Variable._value": "is_in_step",
    "keras.Sequential._functional": "recorded_graph",
    "keras.Model._nodes_by_depth": "nodes_of",
    **{
        f"keras.src.ops.node.Node.{name}": "models/graph, with the nodes of nodes_of"
        for name in ("operation", "arguments", "input_tensors", "outputs", "is_input")
    },
    **{
        f"keras.src.ops.symbolic_arguments.SymbolicArguments.{name}": "models/graph, with the nodes of nodes_of"
        for name in ("args", "kwargs", "keras_tensors", "fill_in")
    },
    "keras.Layer._inbound_nodes": "calls_of_operation, forget_calls",
    "keras.Layer._outbound_nodes": "forget_calls",
    "keras.Model._standardize_inputs": "standardize_inputs",
    "keras.KerasTensor._keras_mask": "mask_of, put_mask",
    "keras.Layer._trainable": "set_trainable_alone",
    "keras.layers.Lambda._output_shape": "output_shape_of_lambda",
    "keras.Model._compile_config": "compile_arguments",
    "keras.Optimizer._learning_rate": "learning_rate_of",
    "keras.Optimizer._trainable_variables": "variables_trained_by",
    "keras.Optimizer._exclude_from_weight_decay": "copy_weight_decay",
    "keras.Optimizer._exclude_from_weight_decay_pattern": "copy_weight_decay",
    "keras.Optimizer._var_key": "copy_weight_decay",
    "keras.Model._symbolic_build": "build_for",
    "keras.Optimizer._get_variable_index": "adam_slots",
    "keras.optimizers.Adam._momentums": "adam_slots",
    "keras.optimizers.Adam._velocities": "adam_slots",
    "keras.Model._loss_tracker": "loss_tracker_of",
    "keras.Model._compile_loss": "forget_loss",
    "keras.Metric._direction": "lower_is_better",
}


def flatten_layers(model: keras.Layer, include_self: bool = True) -> list[keras.Layer]:
    """Returns all layers of a model, each once, including those inside other layers and inside nested models.

    `keras.Model.layers` stops at the first level, so it misses the layers inside wrappers and nested models.
    """
    return list(model._flatten_layers(include_self=include_self))


def sublayers_of(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the direct sublayers of a layer, each once; only models have a public `layers`."""
    return list({id(child): child for child in layer._layers}.values())


def hold_layer(model: keras.Model, layer: keras.Layer) -> None:
    """Makes the variables of a layer that is an attribute of a Functional model variables of the model.

    Keras 3.15 does so itself. Keras 3.12 and older do not, and such variables would not be trained.
    """
    if layer not in sublayers_of(model):
        model._layers.append(layer)


def seed_generators_of(layer: keras.Layer) -> list[keras.random.SeedGenerator]:
    """Returns the seed generators of a layer, also those in lists; only their variables are public in Keras."""
    return [each for each in layer._seed_generators if isinstance(each, keras.random.SeedGenerator)]


def hand_to_steps(layer: keras.Layer, holder: Any) -> None:
    """Makes compiled steps on JAX take the variable `holder.state` of a layer, although it is not a weight.

    Keras does so for the states of seed generators, and has no other way. A variable that a compiled function only
    reads is a constant there.
    """
    layer._seed_generators.append(holder)


def is_in_step(variable: keras.Variable) -> bool:
    """Returns whether a compiled step of `fit` on JAX holds the value of a variable, which cannot be set then."""
    return keras.backend.backend() == "jax" and variable._value is None


# The graph


def recorded_graph(model: Any) -> Any:
    """Returns the Functional model that holds a model's graph, or None if there is none.

    A Functional model is its own graph. A Sequential model has one inside once it is built, but has no public
    attribute for it. A new `keras.Model(inputs, outputs)` would have other nodes, and would increment the
    automatic names of the user's models.
    """
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if isinstance(model, KerasFunctional) else None


def nodes_of(graph: Any) -> list[Any]:
    """Returns the nodes of a Functional model, in the order in which Keras runs them.

    A node is Keras' record of a call: the operation, its arguments and its outputs. The public `model.operations`
    lists the operations, but not the arguments of their calls.
    """
    by_depth = graph._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def calls_of_operation(operation: Any) -> list[Any]:
    """Returns all nodes of a layer or operation in the order of its calls; a graph does not keep this order."""
    return operation._inbound_nodes


def forget_calls(operation: Any) -> None:
    """Gives a shallow copy of an operation its own empty records of calls, in place of those of the original."""
    operation._inbound_nodes, operation._outbound_nodes = [], []


def standardize_inputs(graph: Any, inputs: Any) -> Any:
    """Returns inputs as a Functional model passes them to its first layers: flat, with its dtypes and ranks.

    The only public method that does this is `graph.call`, which runs the layers too.
    """
    return graph._standardize_inputs(inputs)


def mask_of(tensor: Any) -> Any:
    """Returns the mask that a Keras layer has put on a tensor, or None; layers read masks from this attribute."""
    return getattr(tensor, "_keras_mask", None)


def put_mask(tensor: Any, mask: Any) -> None:
    """Puts a Keras mask on a tensor that no layer has made."""
    tensor._keras_mask = mask


@contextlib.contextmanager
def shadowed_calls(stand_ins: Iterable[tuple[keras.Layer, Callable[..., Any]]]) -> Iterator[None]:
    """Replaces the `call` of layers while the block runs.

    An attribute of the instance shadows the method of its class. So no layer is cloned or called again, and the
    graph and the layers' records of calls stay as they are. This relies on `Layer.__call__` looking up `self.call`
    each time.

    Args:
        stand_ins: Pairs of a layer and the function that runs in place of its `call`. A layer whose `call` is
            shadowed already gets its earlier shadow back afterwards.
    """
    pairs = list(stand_ins)
    before = [vars(layer).get("call") for layer, _ in pairs]
    try:
        for layer, call in pairs:
            vars(layer)["call"] = call
        yield
    finally:
        for (layer, _), shadow in zip(pairs, before, strict=True):
            vars(layer).pop("call", None)
            if shadow is not None:
                vars(layer)["call"] = shadow


# Copies of layers and models


def takes_training(layer: keras.Layer) -> bool:
    """Returns whether a layer's `call` has an argument `training`."""
    return "training" in inspect.signature(layer.call).parameters


def own_code_is_safe() -> contextlib.AbstractContextManager[None]:
    """Allows the block to deserialize lambdas and functions; meant for layers that are in memory already.

    `keras.config.enable_unsafe_deserialization()` cannot be undone, and the layers' `from_config` takes no
    `safe_mode`.
    """
    return SafeModeScope(safe_mode=False)


def set_trainable_alone(model: keras.Model, trainable: bool) -> None:
    """Sets `trainable` of a model but not of its layers; the public property sets both."""
    model._trainable = trainable


def output_shape_of_lambda(layer: keras.layers.Lambda) -> Any:
    """Returns the argument `output_shape` of a Lambda as it was given; the layer's config serializes functions."""
    return layer._output_shape


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Returns the arguments of the last `model.compile(...)`; `get_compile_config()` serializes them."""
    return dict(model._compile_config.config)


def learning_rate_of(optimizer: keras.Optimizer) -> Any:
    """Returns the learning rate as it was given, even a schedule; the property returns its present value."""
    return optimizer._learning_rate


def variables_trained_by(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """Returns the variables that an optimizer was built for, in the order in which it keeps its state."""
    return list(optimizer._trainable_variables)


def copy_weight_decay(
    old: keras.Optimizer, new: keras.Optimizer, variables: Collection[keras.Variable], copies: dict[int, Any]
) -> None:
    """Excludes the same variables from weight decay in a new optimizer as in an old one; configs omit them.

    Args:
        old: Optimizer to read.
        new: Optimizer that is not built yet.
        variables: The variables that may be excluded.
        copies: Dict from the id of a variable to its copy, which `new` trains in its place.
    """
    if hasattr(old, "_exclude_from_weight_decay"):
        excluded = [v for v in variables if old._var_key(v) in old._exclude_from_weight_decay]
        new.exclude_from_weight_decay([copies.get(id(v), v) for v in excluded])
        new._exclude_from_weight_decay_pattern = old._exclude_from_weight_decay_pattern


# Training


def build_for(model: keras.Model, data_batch: tuple) -> None:
    """Creates every variable of a compiled model, its metrics and its optimizer, without a training step.

    A checkpoint can only be loaded into variables that exist. The public way to create all of them is
    `test_on_batch` with a batch of real data.

    Args:
        model: A compiled model.
        data_batch: The specs of a batch, as `dataset.element_spec` gives them.
    """
    model._symbolic_build(data_batch=data_batch)


def loss_tracker_of(model: keras.Model) -> keras.metrics.Metric:
    """Returns the metric in which Keras keeps the mean loss of a compiled model.

    `model.metrics` lists it first, but not where a model overrides `metrics`, as the documentation of Keras'
    `compute_loss` does: the metric called "loss" there is one that the model updates itself.
    """
    return model._loss_tracker


def forget_loss(model: keras.Model) -> None:
    """Removes the loss of a compiled model; `compile(loss=None)` keeps the one of an earlier `compile`."""
    model.loss = model._compile_loss = None


def adam_slots(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> tuple[keras.Variable, keras.Variable] | None:
    """Returns the momentum and the velocity that Adam keeps for a variable.

    Keras has no public way from a variable to its slots: `optimizer.variables` is a flat list. If the private
    names are gone, the result is None, and the caller leaves the update to Keras.
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
