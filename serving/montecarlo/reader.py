"""A model with its inputs, as Keras takes them, and its outputs, as probabilities or values."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from dropzoo.common.checks import check_keras_model, check_tensorflow
from dropzoo.common.keras_internals import flatten_layers, recorded_graph
from dropzoo.common.keras_versions import NEED_SIZES
from dropzoo.common.words import count_of
from dropzoo.models.graph.endings import channels_first_outputs, output_meanings, recorded_meanings
from dropzoo.serving.montecarlo.inputs import Inputs, InputsLike
from dropzoo.serving.montecarlo.kinds import compiled_losses, kind_by_loss, name_of_loss, says_nothing
from dropzoo.serving.montecarlo.meaning import Meanings, Reading, not_last, read
from dropzoo.serving.montecarlo.outputs import Output, by_output, joined, names_of_outputs

Said = bool | Mapping[str, bool | None] | Sequence[bool | None] | None
"""The argument `from_logits`, whether outputs are logits: for all outputs, by name, or in order."""

Tasks = str | Mapping[str, str] | Sequence[str] | None
"""The argument `task`, the output kinds: for all outputs, by name, or in order. None for the default."""


class Reader:
    """Checks the inputs of a model, and turns its outputs into probabilities or values.

    The inputs and outputs of a Functional or Sequential model are known at once. The first batch shows those of a
    subclassed model, and the meaning of an output that no graph shows.

    Args:
        model: A Keras model.
        task: The meaning of each output, one of `KINDS`, as for `MonteCarlo`.
        from_logits: Whether each output is logits, as for `MonteCarlo`.

    Attributes:
        known: Bool, whether inputs and outputs are known. Those of a subclassed model are known after its first
            batch.
        inputs: The model's inputs.
        outputs: The model's outputs, in the order of `model.outputs`.
        symbols: Symbolic tensors of the outputs, in that order.

    Raises:
        ValueError: If the model is not built, or an output does not fit its kind.
    """

    def __init__(self, model: keras.Model, task: Tasks = None, from_logits: Said = None) -> None:
        check_keras_model(model)
        check_tensorflow("`dropzoo.serving`")
        self.model, self._task, self._said = model, task, from_logits
        self.known = False
        self.outputs: list[Output] = []
        if isinstance(model, keras.Sequential) and not model.built:
            raise ValueError(
                f"The model must be built: begin it with a keras.Input, or call it once. Received: {model!r}"
            )
        if getattr(model, "inputs", None):
            self.inputs = Inputs.of(model)
            self._open(recorded_graph(model).output, recorded_graph(model).output_names)

    @property
    def names(self) -> list[str]:
        """The names of the outputs."""
        return [output.name for output in self.outputs]

    @property
    def task(self) -> Any:
        """The output kind of the only output, or a dict of them by name."""
        return joined([output.kind for output in self.outputs], self.names)

    @property
    def settled(self) -> bool:
        """Whether the inputs, the outputs and their meanings are known, so that no batch is needed for it."""
        return self.known and self._meanings.settled

    def traced(self, function: Callable[..., Any], *others: tf.TensorSpec) -> Any:
        """Returns a `tf.function` of the inputs, as a list, and of other tensors, with one trace for all sizes.

        Keras can run some layers in a graph only if their sizes are known. With such a layer, each size has its
        own trace.

        Args:
            function: The function to trace.
            others: The specs of the other tensors.
        """
        sized = any(isinstance(layer, NEED_SIZES) for layer in flatten_layers(self.model))
        if sized and any(None in shape[1:] for shape in self.inputs.shapes):
            return _BySize(function, others)
        return tf.function(function, input_signature=[list(self.inputs.specs), *others], autograph=False)

    def check(self, inputs: InputsLike) -> list[tf.Tensor]:
        """Returns a batch as tensors, in the model's order. The batch also settles what is not known yet.

        Args:
            inputs: One batch, as Keras takes it.

        Raises:
            ValueError: If the inputs do not fit the model, or its outputs could be logits or probabilities.
        """
        if not self.known:
            self.inputs = Inputs.like(inputs)
            self._open_by(self.inputs.check(inputs))
        flat = self.inputs.check(inputs)
        if not self._meanings.settled:
            self._meanings.ask(self.call(flat))
        return flat

    @property
    def readings(self) -> list[Reading]:
        """How each output is read. Raises a ValueError if it is not known whether an output is logits."""
        return self._meanings.readings()

    def call(self, flat: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the model's outputs in inference mode, in order.

        Args:
            flat: The inputs as `check` returns them.
        """
        return keras.tree.flatten(self.model(self.inputs.pack(flat), training=False))

    def read(self, outputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns outputs as probabilities, or as values for regression: float32 `(batch, ..., classes)`.

        Args:
            outputs: The model's outputs, in order.

        Raises:
            ValueError: If it is not known whether an output is logits.
        """
        each = zip(outputs, self.outputs, self.readings, strict=True)
        return [read(x, output, reading) for x, output, reading in each]

    def _open(self, structure: Any, layer_names: Sequence[str]) -> None:
        """Sets the outputs by symbolic tensors."""
        self.symbols: list[keras.KerasTensor] = keras.tree.flatten(structure)
        names = names_of_outputs(structure, layer_names)
        kinds = by_output(self._task, names, "task", None)
        said = by_output(self._said, names, "from_logits", None)
        losses = compiled_losses(self.model, names)
        for i, (name, kind, tensor) in enumerate(zip(names, kinds, self.symbols, strict=True)):
            shape = tuple(tensor.shape)
            full = shape if len(shape) > 1 else (None, 1)
            chosen = self._kind(i, name, kind, losses[i], full[-1])
            if chosen != "regression" and not keras.backend.is_float_dtype(tensor.dtype):
                raise ValueError(
                    f"The output {name!r} is {tensor.dtype}, so it is neither logits nor probabilities. Sample "
                    f"the tensor that it is computed from: keras.Model(model.inputs, ...), or pass "
                    f"task='regression'"
                )
            self.outputs.append(Output(name, full, chosen, len(shape) == 1))
        for output, first in zip(self.outputs, channels_first_outputs(self.model), strict=False):
            if first and output.kind != "regression":
                raise not_last(output.name, 1, len(output.shape))
        if self._task is None:
            self._warn_of_mixture()
        self._meanings = Meanings(self.model, self.outputs, said, self.inputs.structure)
        self.known = True

    def _kind(self, i: int, name: str, said: str | None, loss: Any, classes: int | None) -> str:
        """The kind of an output: as the user says, or by the compiled loss, or else `"multi_class"`."""
        default, by_loss = said or "multi_class", kind_by_loss(loss, classes)
        unclear = said is None and says_nothing(loss)
        if not unclear and (by_loss is None or default in (by_loss, "regression")):
            return default
        meanings = recorded_meanings(self.model) or output_meanings(self.model, self.inputs.structure)
        if meanings and meanings[i] is None:
            meanings = output_meanings(self.model, self.inputs.structure)
        if meanings and meanings[i] in ("softmax", "sigmoid"):  # probabilities can be trained by any loss
            labels = said is None and by_loss == "multi_label" and meanings[i] == "sigmoid"
            return "multi_label" if labels else default
        if unclear:
            raise ValueError(
                f"The output {name!r} was compiled with the loss {name_of_loss(loss)!r}, which does not say what "
                "the output means. Pass task='regression' for a regression, or 'multi_class', 'binary' or "
                "'multi_label' for classes or labels"
            )
        if said is None and by_loss is not None:
            return by_loss
        raise ValueError(
            f"The output {name!r} was compiled with a loss for task={by_loss!r}, but `task` is {said!r}. Pass "
            f"task={by_loss!r}, or compile the model with another loss"
        )

    def _warn_of_mixture(self) -> None:
        """Warns of linear outputs that are taken for logits by default beside outputs of probabilities."""
        meanings = recorded_meanings(self.model)
        ended = [each in ("softmax", "sigmoid") for each in meanings]
        if len(ended) < 2 or not any(ended):
            return
        losses = compiled_losses(self.model, self.names)
        each = zip(self.outputs, ended, losses, strict=True)
        loose = [o.name for o, known, loss in each if not known and o.kind != "regression" and loss is None]
        if loose:
            warnings.warn(
                "These outputs are treated as logits, although other outputs are probabilities: "
                f"{', '.join(loose)}. For a regression, pass task={{{loose[0]!r}: 'regression'}}",
                stacklevel=5,
            )

    def _open_by(self, flat: Sequence[tf.Tensor]) -> None:
        """Sets the outputs of a subclassed model by a run."""
        found = self.model(self.inputs.pack(flat), training=False)
        symbols = keras.tree.map_structure(_symbol, found)
        self._open(symbols, [f"output_{i + 1}" for i in range(len(keras.tree.flatten(found)))])


class _BySize:
    """A function with a trace for each size of its inputs and for all numbers of rows.

    A trace for one row would not show whether a mask is that of the row or is shared by all rows.

    Args:
        function: Function of the inputs, as a list, and of other tensors.
        others: The specs of the other tensors.
    """

    def __init__(self, function: Callable[..., Any], others: Sequence[tf.TensorSpec]) -> None:
        self._function, self._others = function, others
        self._of_size: dict[tuple[tf.TensorSpec, ...], Any] = {}

    def __call__(self, flat: list[tf.Tensor], *others: tf.Tensor) -> Any:
        return self._traced(flat)(flat, *others)

    def get_concrete_function(self, flat: list[tf.Tensor], *others: tf.Tensor) -> Any:
        """Returns the trace for inputs of this size."""
        return self._traced(flat).get_concrete_function(flat, *others)

    def _traced(self, flat: list[tf.Tensor]) -> Any:
        specs = tuple(tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in flat)
        if specs not in self._of_size:
            signature = [list(specs), *self._others]
            self._of_size[specs] = tf.function(self._function, input_signature=signature, autograph=False)
        return self._of_size[specs]


def _symbol(value: Any) -> keras.KerasTensor:
    """A symbolic tensor like an output, in which only the length of the last axis is fixed."""
    shape = [None] * max(len(value.shape) - 1, 0) + list(value.shape[-1:])
    if len(shape) == 1:
        shape = [None]
    return keras.KerasTensor(shape, dtype=keras.backend.standardize_dtype(value.dtype))


def check_single(model: keras.Model) -> None:
    """Raises a ValueError if a model has several inputs or outputs, or has no graph."""
    if not hasattr(model, "inputs") or not model.built:
        raise ValueError(f"The model must be Functional or Sequential, and built. Received: {model!r}")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "The model must have one image input and one output. "
            f"Received: {count_of(len(model.inputs), 'input')}, {count_of(len(model.outputs), 'output')}"
        )


def log_of_probabilities(p: tf.Tensor) -> tf.Tensor:
    """Returns `log(p + 1e-12)` of classes. A single probability is that of the second class and gives both.

    Args:
        p: Float32 tensor `(batch, ..., classes)` or `(batch, ..., 1)`.
    """
    both = tf.concat([1.0 - p, p], -1) if p.shape[-1] == 1 else p
    return tf.math.log(both + 1e-12)


class LogProbabilities:
    """Log-probabilities of the classes of a model of one output, in one deterministic pass.

    They are exact where the output is logits, and `log(p + 1e-12)` where it is probabilities. A single unit gives
    the log-probabilities of both classes.

    Args:
        model: A model of one output, of classes that exclude each other.
        from_logits: Whether the output is logits, as for `MonteCarlo`.

    Call arguments:
        inputs: One batch, as Keras takes it.

    Returns:
        A float32 tensor `(batch, ..., classes)`.

    Raises:
        ValueError: If the output does not fit the output kind `"multi_class"`, or it is not known whether it is
            logits.
    """

    def __init__(self, model: keras.Model, from_logits: Said = None) -> None:
        self._reader = Reader(model, "multi_class", from_logits)
        if len(self._reader.outputs) > 1:
            raise ValueError(f"The model must have one output. Received: {len(self._reader.outputs)}")
        self._run: Callable[..., tf.Tensor] | None = None

    def __call__(self, inputs: InputsLike) -> tf.Tensor:
        flat = self._reader.check(inputs)
        if self._run is None:
            self._run = self._reader.traced(self._log_p)
        return self._run(flat)

    def _log_p(self, flat: list[tf.Tensor]) -> tf.Tensor:
        (raw,) = self._reader.call(flat)
        (reading,) = self._reader.readings
        (p,) = self._reader.read([raw])
        if reading == "as_is":
            return log_of_probabilities(p)
        logits = tf.cast(raw, tf.float32)
        if reading == "softmax":
            return tf.nn.log_softmax(logits)
        logits = tf.reshape(logits, tf.shape(p))
        return tf.ensure_shape(tf.math.log_sigmoid(tf.concat([-logits, logits], -1)), [*p.shape[:-1], 2])
