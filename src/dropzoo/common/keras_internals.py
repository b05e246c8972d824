"""Private names of Keras: the only module that uses them.

Keras has no public way to do what these functions do; each says why it is needed. `NAMES` lists what they rely on,
and `tests/common/test_internals.py` says which name is gone after an update of Keras.
"""

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import keras
from keras.src.models.functional import Functional
from keras.src.saving.serialization_lib import SafeModeScope

#: The version in which all of `NAMES` were last seen.
LAST_SEEN = "3.15.1"

#: The class of Keras' models with a graph, to tell them from others and to subclass. `keras.Model(inputs,
#: outputs)` makes one, but making it only to ask for its type would count up the names of the user's next layers.
KerasFunctional = Functional


#: Each name with a dotted path to its owner, and the functions that rely on it.
NAMES = {
    "keras.src.models.functional.Functional": "KerasFunctional",
    "keras.src.saving.serialization_lib.SafeModeScope": "own_code_is_safe",
    "keras.Model._flatten_layers": "flatten_layers",
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
    "keras.Metric._direction": "lower_is_better",
}


def flatten_layers(model: keras.Layer, include_self: bool = True) -> list[keras.Layer]:
    """Returns all layers of a model, those inside layers and models too, each once.

    `keras.Model.layers` stops at the first level, so it misses wrapped layers and nested models.
    """
    return list(model._flatten_layers(include_self=include_self))


# The graph


def recorded_graph(model: Any) -> Any:
    """Returns the Functional model that holds a model's graph, or None if there is none.

    Only a Sequential model that is built has one, and it does not show it; a new `keras.Model(inputs, outputs)`
    would have other nodes and would count up the names of the user's next models.
    """
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if isinstance(model, KerasFunctional) else None


def nodes_of(graph: Any) -> list[Any]:
    """Returns the nodes of a Functional model, in the order in which Keras runs them.

    A node is Keras' record of a call: the operation, its arguments and its outputs. `model.operations` lists the
    operations alone, without what they were called with.
    """
    by_depth = graph._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def calls_of_operation(operation: Any) -> list[Any]:
    """Returns all nodes of a layer or operation in the order of its calls, which a graph does not keep."""
    return operation._inbound_nodes


def forget_calls(operation: Any) -> None:
    """Makes a shallow copy of an operation one that was never called; it shares the lists of the original."""
    operation._inbound_nodes, operation._outbound_nodes = [], []


def standardize_inputs(graph: Any, inputs: Any) -> Any:
    """Returns inputs as a Functional model hands them to its first layers: flat, of its dtypes and ranks.

    Only `graph.call` does it, and it runs the layers too.
    """
    return graph._standardize_inputs(inputs)


def mask_of(tensor: Any) -> Any:
    """Returns the mask that a Keras layer has put on a tensor, or None; layers read it from there alone."""
    return getattr(tensor, "_keras_mask", None)


def put_mask(tensor: Any, mask: Any) -> None:
    """Puts a Keras mask on a tensor that was made by other means than a layer."""
    tensor._keras_mask = mask


@contextlib.contextmanager
def shadowed_calls(stand_ins: Iterable[tuple[keras.Layer, Callable[..., Any]]]) -> Iterator[None]:
    """Replaces the `call` of layers while the block runs.

    The instance's attribute shadows the method, so nothing is cloned or called anew, and the graph and the layers'
    records of calls stay as they are. It relies on `Layer.__call__` looking up `self.call` each time.

    Args:
        stand_ins: Pairs of a layer and what runs in place of its `call`. A layer that is shadowed already gets
            that shadow back afterwards.
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
    """Lets the block deserialize lambdas and functions, for layers that are in memory already.

    `keras.config.enable_unsafe_deserialization()` cannot be undone, and the layers' `from_config` takes no
    `safe_mode`.
    """
    return SafeModeScope(safe_mode=False)


def set_trainable_alone(model: keras.Model, trainable: bool) -> None:
    """Sets `trainable` of a model and leaves that of its layers, which the property would set too."""
    model._trainable = trainable


def output_shape_of_lambda(layer: keras.layers.Lambda) -> Any:
    """Returns `output_shape` as it was given to a Lambda; its config has functions serialized."""
    return layer._output_shape


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Returns the arguments of the last `model.compile(...)`; `get_compile_config()` has them serialized."""
    return dict(model._compile_config.config)


def learning_rate_of(optimizer: keras.Optimizer) -> Any:
    """Returns the learning rate as it was given, a schedule or a function; the property gives its value now."""
    return optimizer._learning_rate


def variables_trained_by(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """Returns the variables that an optimizer was built for; it keeps its state in their order."""
    return list(optimizer._trainable_variables)


def copy_weight_decay(
    old: keras.Optimizer, new: keras.Optimizer, variables: Collection[keras.Variable], copies: dict[int, Any]
) -> None:
    """Excludes from weight decay in one optimizer what another excludes; no config tells.

    Args:
        old: Optimizer to read.
        new: Optimizer that is not built yet.
        variables: The variables that may be excluded.
        copies: From the id of a variable to its copy, for which `new` is.
    """
    if hasattr(old, "_exclude_from_weight_decay"):
        excluded = [v for v in variables if old._var_key(v) in old._exclude_from_weight_decay]
        new.exclude_from_weight_decay([copies.get(id(v), v) for v in excluded])
        new._exclude_from_weight_decay_pattern = old._exclude_from_weight_decay_pattern


# Training

NAMES |= {
    "keras.Model._symbolic_build": "build_for",
    "keras.Optimizer._get_variable_index": "adam_slots",
    "keras.optimizers.Adam._momentums": "adam_slots",
    "keras.optimizers.Adam._velocities": "adam_slots",
    "keras.Metric._direction": "lower_is_better",
}


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
