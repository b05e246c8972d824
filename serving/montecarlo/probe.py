"""Finds whether the code of a layer draws random numbers, and for which rows, in TensorFlow's graph of that code.

Classes and seed generators do not show everything: a lambda may call `tf.nn.dropout`, and a suspected layer may
not draw at all. So each step of a model whose code is not known is traced twice, in inference and in training
mode, while the dropout that a sampler redirects is off. Then the graphs are searched for random operations.
Nothing is run, so nothing changes. A model of Keras' own layers has no such step and costs nothing.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dropzoo.common.keras_internals import flatten_layers, shadowed_calls, takes_training
from dropzoo.models.graph.random import RandomLayer, augmentations, random_layers
from dropzoo.models.graph.unroll import RecordedStep, Step, Unrolled
from dropzoo.serving.montecarlo.plain import watched_seeds

_DISTRIBUTIONS = "(Random|TruncatedNormal|ParameterizedTruncatedNormal|Multinomial|Shuffle|SampleDistorted)"
_RANDOM = re.compile(
    f"(Stateless)?{_DISTRIBUTIONS}|Stateful(StandardNormal|Uniform|TruncatedNormal|RandomBinomial)"
)
_PLAIN = tuple(  # layers of Keras that take most of the time of a trace, and never draw
    getattr(keras.layers, name)
    for name in "Dense EinsumDense Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose "
    "DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D BatchNormalization LayerNormalization "
    "GroupNormalization".split()
)
ROWS = 1009
"""The number of rows in a probe, unlike any number of windows or time steps. Rows cost nothing in a trace."""


@dataclass(frozen=True, eq=False)
class Code:
    """A step of a model whose code had to be traced.

    Attributes:
        step: The step, in inference mode.
        training: Bool, whether it has to run in training mode to drop.
        draws: Bool, whether it draws by itself, apart from the dropout that a sampler redirects.
        always: Bool, whether it draws in inference mode too.
        lost: Bool, whether it drops in training mode only but cannot run in that mode, because it has other
            outputs then.
        repeatable: Bool, whether all its draws come from seeds of Keras.
        held: The ids of the layers in it that draw by themselves, as far as they are known.
        names: The paths of these layers, or the name of the step.
        why: Str, the reason for a user to read.
        looped: The ids of redirected layers that are called inside of a loop, where one mask would stand for many.
        rows: The lengths of the first axis that its redirected dropout sees for `ROWS` rows; None is unknown.
    """

    step: RecordedStep
    training: bool
    draws: bool
    always: bool
    lost: bool
    repeatable: bool
    held: frozenset[int]
    names: tuple[str, ...]
    why: str
    looped: frozenset[int]
    rows: frozenset[int | None]


@dataclass
class _Trace:
    """The result of tracing a step.

    Attributes:
        random: The random operations.
        unseeded: Whether some of them take no seed of Keras, or a seed that is drawn inside of a loop.
        looped: The ids of redirected layers that are called inside of a loop or a branch.
        seen: By the id of a redirected layer, the lengths of the first axis of its inputs.
        shapes: The dtypes and ranks of the outputs.
    """

    random: set[str] = field(default_factory=set)
    unseeded: bool = False
    looped: set[int] = field(default_factory=set)
    seen: dict[int, set[int | None]] = field(default_factory=dict)
    shapes: list[Any] = field(default_factory=list)


def codes_of(model: keras.Model, graph: Unrolled, redirected: Collection[keras.Layer]) -> list[Code]:
    """Returns the steps of a model whose code is not known and that draw random numbers, with how they draw.

    Args:
        model: The model.
        graph: Its steps.
        redirected: The dropout layers that a sampler redirects.
    """
    known = {id(layer) for layer in redirected}
    suspects = [each for each in random_layers(model) if id(each.layer) not in known]
    ids = {id(each.layer) for each in suspects}
    steps = [step for step in graph.steps if isinstance(step, RecordedStep) and _is_unknown(step.operation, ids)]
    found = [_code_of(step, graph, redirected, suspects) for step in steps]
    return [c for c in found if c.draws or c.training or c.lost or c.looped or c.rows - {ROWS}]


def frozen_layers(operation: Any) -> list[keras.Layer]:
    """Returns the layers inside a layer that stay in inference mode while the layer itself trains.

    These are batch normalisation, spectral normalisation and random image augmentation.
    """
    found = list(augmentations(operation))
    for layer in flatten_layers(operation):
        leaf = not flatten_layers(layer, include_self=False)
        named = leaf and "batchnorm" in type(layer).__name__.lower()
        if named or isinstance(layer, (keras.layers.BatchNormalization, keras.layers.SpectralNormalization)):
            found.append(layer)
    return found


def held_back(layer: keras.Layer) -> Any:
    """Returns a stand-in for the `call` of a layer that runs it in inference mode."""
    original, takes = layer.call, takes_training(layer)

    def call(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **{**kwargs, "training": False}) if takes else original(*args, **kwargs)

    return call


def _is_unknown(operation: Any, suspects: Collection[int]) -> bool:
    """Whether a step has code that is not Keras' or ours, or holds a suspected layer."""
    if not isinstance(operation, keras.Layer):
        return False
    return any(id(layer) in suspects or _is_foreign(layer) for layer in flatten_layers(operation))


def _is_foreign(layer: keras.Layer) -> bool:
    home = type(layer).__module__
    return isinstance(layer, keras.layers.Lambda) or not home.startswith(("keras.", "dropzoo."))


def _code_of(
    step: RecordedStep, graph: Unrolled, redirected: Collection[keras.Layer], suspects: Sequence[RandomLayer]
) -> Code:
    within = flatten_layers(step.operation)
    inside = {id(layer) for layer in within}
    mine = [layer for layer in redirected if id(layer) in inside]
    held = [each for each in suspects if id(each.layer) in inside]
    surely = bool(held) and not mine and all(each.kind == "inside" for each in held)
    lost = False
    if surely and not any(map(_is_foreign, within)):
        rest, train = _Trace(), _Trace(random={"StatelessRandomUniformV2"})  # layers of Keras need no trace
    else:
        rest, train = _both_modes(step, graph, mine, bool(held))
        if rest.shapes != train.shapes:  # outputs that exist in training only, such as those of auxiliary heads
            train, lost = rest, bool(train.random - rest.random) or set(train.seen) != set(rest.seen)
    draws, reached = bool(train.random), set(train.seen) != set(rest.seen)
    names = tuple(each.path for each in held) or (step.operation.name,)
    reasons = sorted({_reason(each) for each in held}) or [f"the code of {type(step.operation).__name__} draws"]
    return Code(
        step=step,
        training=(draws or reached) and train is not rest,
        draws=draws,
        always=bool(rest.random),
        lost=lost,
        repeatable=not train.unseeded,
        held=frozenset(id(each.layer) for each in held),
        names=names,
        why=", ".join(reasons),
        looped=frozenset(train.looped),
        rows=frozenset().union(*train.seen.values()),
    )


def _reason(random: RandomLayer) -> str:
    name = type(random.layer).__name__
    if random.kind == "inside":
        return f"dropout inside {name}"
    looped = random.kind == "dropout" and not _is_foreign(random.layer)
    return f"{name} is called inside of a loop" if looped else f"{name} draws its own random numbers"


def _both_modes(
    step: RecordedStep, graph: Unrolled, redirected: Sequence[keras.Layer], suspected: bool
) -> tuple[_Trace, _Trace]:
    """The traces of a step in inference and in training mode."""
    try:
        train = _trace(replace(step, training=True), graph, redirected)
        if not train.random and not redirected:
            return train, train
        rest = _trace(step, graph, redirected)
    except Exception:  # a user's code may need a special batch; then its class and its generators decide
        return _Trace(), _Trace(random={"RandomUniform"} if suspected else set())
    return rest, train


def _is_plain(layer: keras.Layer) -> bool:
    return type(layer) in _PLAIN and layer.built and layer.activity_regularizer is None


def _blank(layer: keras.Layer, read: list[Any]) -> Any:
    """Returns a stand-in for the `call` of a plain layer: a tensor like its output, not computed.

    Args:
        layer: The layer.
        read: List to which the inputs of the layer are added, since nothing else in the graph may read them.
    """
    original = layer.call

    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        read.append(inputs)
        try:
            shape = layer.compute_output_shape(inputs.shape)
        except Exception:  # the layer cannot compute its output shape
            return original(inputs, *args, **kwargs)
        if None in shape and None not in inputs.shape:  # an EinsumDense whose config leaves a length open
            return original(inputs, *args, **kwargs)
        return tf.raw_ops.Placeholder(dtype=layer.compute_dtype, shape=shape)

    return call


def _trace(step: Step, graph: Unrolled, redirected: Sequence[keras.Layer]) -> _Trace:
    """Traces one step while the dropout that a sampler redirects is off."""
    found = _Trace()
    graphs: list[tf.Graph] = []
    read: list[Any] = []

    def watched(layer: keras.Layer) -> Any:
        run = held_back(layer)

        def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            found.seen.setdefault(id(layer), set()).add(inputs.shape[0])
            if tf.compat.v1.get_default_graph() is not graphs[-1]:
                found.looped.add(id(layer))
            return run(inputs, *args, **kwargs)

        return call

    def run(*inputs: tf.Tensor) -> list[tf.Tensor]:
        graphs.append(tf.compat.v1.get_default_graph())
        with watched_seeds() as inner:
            made = keras.tree.flatten(step.outputs(dict(zip(step.reads, inputs, strict=True))))
        found.unseeded = bool(inner)
        found.shapes = [(each.dtype, each.shape.rank) for each in made]
        return made

    symbols = [graph.symbols[number] for number in step.reads]
    specs = [
        tf.TensorSpec([ROWS if n is None and not i else n for i, n in enumerate(x.shape)], x.dtype)
        for x in symbols
    ]
    stand_ins = [(layer, watched(layer)) for layer in redirected]
    stand_ins += [(layer, held_back(layer)) for layer in frozen_layers(step.operation)]
    stand_ins += [(layer, _blank(layer, read)) for layer in flatten_layers(step.operation) if _is_plain(layer)]
    with shadowed_calls(stand_ins):
        traced = tf.function(run, input_signature=specs, autograph=False).get_concrete_function().graph
    outermost = [x for x in keras.tree.flatten(read) if tf.is_tensor(x) and x.graph is graphs[-1]]
    found.random = random_operations(traced, [traced.get_operation_by_name(x.op.name) for x in outermost])
    found.unseeded |= not all(kind.startswith("Stateless") for kind in found.random)
    return found


def random_operations(graph: Any, more: Sequence[tf.Operation] = ()) -> set[str]:
    """Returns the types of the random operations that the outputs of a traced function depend on.

    A recurrent layer of Keras makes its masks in inference too, and does not use them there.

    Args:
        graph: The graph of a concrete function.
        more: Further operations in the graph that the outputs depend on.
    """
    pending = [*(tensor.op for tensor in graph.outputs), *more]
    reached = {operation.name for operation in pending}
    for operation in pending:  # the list grows
        before = [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
        new = {each.name: each for each in before if each.name not in reached}
        reached |= new.keys()
        pending += new.values()
    definition = graph.as_graph_def()
    nodes = [node for node in definition.node if node.name in reached]
    bodies = {function.signature.name: function.node_def for function in definition.library.function}
    for node in nodes:  # the list grows by the bodies of loops and branches
        for value in node.attr.values():
            for called in (value.func, *value.list.func):
                nodes += bodies.pop(called.name, ())
    return {node.op for node in nodes if _RANDOM.match(node.op)}


def out_of_order(
    graph: Unrolled,
    redirected: Sequence[keras.Layer],
    frozen: Sequence[keras.Layer],
    batches: Sequence[Sequence[tf.Tensor]],
) -> set[int]:
    """Returns the ids of the dropout layers whose rows are not those of the images in order.

    In order means: first all rows of the first image, then all rows of the second. A layer sees several rows for
    each image where windows, patches or frames are folded into the batch. Two images are run, and then they are
    run again with another first image; in that second run, the second half of the rows must stay the same.

    Args:
        graph: The steps of the model.
        redirected: The dropout layers that a sampler redirects.
        frozen: The layers that stay in inference mode.
        batches: Two batches of two rows with the same second row, as tensors in the model's order.
    """
    seen: dict[int, list[np.ndarray]] = {id(layer): [] for layer in redirected}

    def watched(layer: keras.Layer) -> Any:
        run = held_back(layer)

        def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            seen[id(layer)].append(inputs.numpy())
            return run(inputs, *args, **kwargs)

        return call

    stand_ins = [(layer, watched(layer)) for layer in redirected] + [(layer, held_back(layer)) for layer in frozen]
    try:
        with shadowed_calls(stand_ins), watched_seeds():
            for batch in batches:
                values: dict[int, Any] = dict(zip(graph.inputs, batch, strict=True))
                for step in graph.steps:
                    step.run(values)
    except Exception:  # a user's code may need a special batch
        return set(seen)
    return {key for key, calls in seen.items() if not _in_order(calls)}


def _in_order(calls: list[np.ndarray]) -> bool:
    """Whether the second half of the rows is the same in the calls of both runs."""
    half = len(calls) // 2
    return len(calls) % 2 == 0 and all(
        len(one) == len(other)
        and len(one) % 2 == 0
        and np.array_equal(one[len(one) // 2 :], other[len(one) // 2 :])
        for one, other in zip(calls[:half], calls[half:], strict=True)
    )
