"""The inputs of a model: one or several, as Keras takes them, of any dtype."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from dropzoo.common.keras_internals import recorded_graph
from dropzoo.layers.draws.hash import mix
from dropzoo.layers.draws.samples import content_keys

InputsLike: TypeAlias = ArrayLike | tf.Tensor | Sequence[Any] | Mapping[str, Any]
"""The inputs of a model as Keras takes them: an array, a list or tuple in the model's order, or a dict by name."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of a model, in the order of `model.inputs`.

    Attributes:
        names: The name of each: its key in a dict, or the name of its input layer.
        specs: The shape, with the batch first, and the dtype of each. Floating point inputs are float32.
        structure: The structure that the model takes; its leaves stand for the inputs.
        layer_names: The names of the input layers, which a dict may use too.
        seen: For a subclassed model, the shape of each input in the first batch.
    """

    names: tuple[str, ...]
    specs: tuple[tf.TensorSpec, ...]
    structure: Any
    layer_names: tuple[str, ...]
    seen: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, model: keras.Model) -> "Inputs":
        """Returns the inputs of a Functional model or of a Sequential model that is built."""
        return cls._from(recorded_graph(model).input, [x.name for x in model.inputs])

    @classmethod
    def like(cls, inputs: InputsLike) -> "Inputs":
        """Returns the inputs of a subclassed model from a batch; only ranks, last axes and dtypes are kept."""
        given = keras.tree.map_structure(_array, inputs if is_nested(inputs) else _array(inputs))
        found = cls._from(keras.tree.map_structure(_as_symbol, given))
        return replace(found, seen=tuple(tuple(x.shape) for x in keras.tree.flatten(given)))

    @classmethod
    def _from(cls, structure: Any, layer_names: Sequence[str] = ()) -> "Inputs":
        flat = keras.tree.flatten_with_path(structure)
        layer_names = layer_names or [f"input_{i + 1}" for i in range(len(flat))]
        by_key = isinstance(structure, dict)
        names = [
            "/".join(map(str, path)) if by_key else own for (path, _), own in zip(flat, layer_names, strict=True)
        ]
        specs = [tf.TensorSpec([None, *x.shape[1:]], _dtype(x.dtype)) for _, x in flat]
        return cls(tuple(names), tuple(specs), structure, tuple(layer_names))

    @property
    def shapes(self) -> tuple[tuple[int | None, ...], ...]:
        """The shape of each input, with the batch."""
        return tuple(tuple(spec.shape) for spec in self.specs)

    def row_shapes(self, length: int) -> list[tuple[int, ...]]:
        """Returns the shape of a row of each input; axes that the model leaves open have the given length.

        Args:
            length: Int, the length of open axes if no batch has been seen.
        """
        shapes = self.seen or self.shapes
        return [tuple(length if n is None else n for n in shape[1:]) for shape in shapes]

    def check(self, inputs: InputsLike) -> list[tf.Tensor]:
        """Returns inputs as tensors of the model's dtypes, in its order.

        Like Keras, it adds a last axis of size 1 if only that is missing, and removes one if only that is too
        many.

        Args:
            inputs: One batch, as Keras takes it.

        Raises:
            ValueError: If the inputs do not fit the model.
        """
        flat = self.in_order(inputs)
        tensors = [self._tensor(i, value) for i, value in enumerate(flat)]
        batches = {name: x.shape[0] for name, x in zip(self.names, tensors, strict=True) if x.shape[0] is not None}
        if len(set(batches.values())) > 1:
            raise ValueError(f"All inputs must have the same number of rows. Received: {batches}")
        return tensors

    def cast(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns tensors of the model's shapes in the model's dtypes."""
        return [x if x.dtype == s.dtype else tf.cast(x, s.dtype) for x, s in zip(tensors, self.specs, strict=True)]

    def pack(self, flat: Sequence[Any]) -> Any:
        """Returns tensors in the structure that the model takes."""
        return keras.tree.pack_sequence_as(self.structure, list(flat))

    def example(
        self, batch: int = 4, size: int = 32, low: float = 0.0, high: float = 1.0, seed: int = 0
    ) -> list[tf.Tensor]:
        """Returns a random batch, for questions that only a run of the model answers.

        Args:
            batch: Int, the number of rows.
            size: Int, the length of the axes that the model leaves open.
            low: Float, the least value of floating point inputs.
            high: Float, the greatest value. Integers are drawn from 0 to this number, and at least from 0 and 1.
            seed: Int, the seed of the numbers.
        """
        random = np.random.default_rng(seed)
        found = []
        for spec, row in zip(self.specs, self.row_shapes(size), strict=True):
            shape = (batch, *row)
            if spec.dtype == tf.string:
                values = np.full(shape, b"")
            elif spec.dtype.is_floating:
                values = random.uniform(low, high, shape)
            else:
                values = random.integers(0, max(int(high), 1) + 1, shape)
            found.append(tf.cast(values, spec.dtype) if spec.dtype != tf.string else tf.constant(values))
        return found

    def in_order(self, inputs: InputsLike) -> list[Any]:
        """Returns inputs as a list in the model's order, without a conversion.

        Args:
            inputs: One batch, as Keras takes it.

        Raises:
            ValueError: If there are too few or too many inputs, or they have other names.
        """
        count = len(self.names)
        if isinstance(inputs, Mapping):
            for names in (self.names, self.layer_names):
                if set(names) <= set(inputs):
                    return [inputs[name] for name in names]
            paths = [path for path, _ in keras.tree.flatten_with_path(self.structure)]
            nested = keras.tree.flatten_with_path(inputs)
            if [path for path, _ in nested] == paths:
                return [value for _, value in nested]
        elif is_nested(inputs) and (count > 1 or isinstance(self.structure, (list, tuple, dict))):
            flat = keras.tree.flatten(inputs)  # no walrus: AutoGraph cannot transform one, and warns
            if len(flat) == count and all(np.ndim(x) or tf.is_tensor(x) for x in flat):
                return flat
        if isinstance(inputs, (list, tuple)) and len(inputs) == count == 1 and np.ndim(inputs[0]) > 1:
            shape = np.shape(inputs[0])  # [x] for one input x; a list of images is an array instead
            if len(shape) == len(self.specs[0].shape) and self.specs[0].shape[1:].is_compatible_with(shape[1:]):
                return [inputs[0]]
        if count == 1 and not isinstance(inputs, Mapping):
            return [inputs]
        listed = ", ".join(self.names)
        given = (
            f"a dict of {', '.join(map(str, inputs))}" if isinstance(inputs, Mapping) else type(inputs).__name__
        )
        given += f" of {len(inputs)}" if isinstance(inputs, (list, tuple)) else ""
        what = "the input" if count == 1 else f"{count} inputs,"
        how = "pass a single array, or" if count == 1 else "pass a list in this order, or"
        raise ValueError(
            f"`images` must fit the model, which takes {what} {listed}: {how} a dict by name. Received: {given}"
        )

    def _tensor(self, i: int, value: Any) -> tf.Tensor:
        spec, name = self.specs[i], "`images`" if len(self.names) == 1 else f"The input {self.names[i]!r}"
        tensor = tf.convert_to_tensor(value)
        given = tuple(tensor.shape)
        if len(given) == len(spec.shape) + 1 and given[-1] == 1:
            tensor = tf.squeeze(tensor, -1)
        elif len(given) == len(spec.shape) - 1 and given and spec.shape[-1] == 1:
            tensor = tensor[..., None]
        if len(tensor.shape) != len(spec.shape) or not tensor.shape[1:].is_compatible_with(spec.shape[1:]):
            raise ValueError(f"{name} must have the shape {tuple(spec.shape)}. Received: {given}")
        if (tensor.dtype == tf.string) != (spec.dtype == tf.string):
            raise ValueError(f"{name} must be {spec.dtype.name}. Received: {tensor.dtype.name}")
        return tensor if tensor.dtype == spec.dtype else tf.cast(tensor, spec.dtype)


def keys_of(inputs: Sequence[tf.Tensor], plain: bool = True) -> tf.Tensor:
    """Returns a key for each row of a batch, computed from the content of all inputs.

    Args:
        inputs: Tensors `(batch, ...)` of any dtype.
        plain: Bool, whether to leave XLA out; see `sample_bits`.

    Returns:
        A uint32 tensor `(batch,)`.
    """
    keys = content_keys(_words(inputs[0]), plain)
    for x in inputs[1:]:
        keys = mix(keys) + content_keys(_words(x), plain)
    return keys


def filled(flat: list[tf.Tensor]) -> list[tf.Tensor]:
    """Returns a batch, or one row of zeros in place of an empty batch.

    Convolutions of TensorFlow return a wrong shape for an empty batch.

    Args:
        flat: The inputs of a batch.
    """
    if flat[0].shape[0] != 0:
        return flat
    return [tf.zeros([1, *x.shape[1:]], x.dtype) for x in flat]


def emptied(answer: Any, flat: Sequence[tf.Tensor]) -> Any:
    """Returns an answer without its rows if the batch that `filled` got was empty."""
    return answer if flat[0].shape[0] != 0 else keras.tree.map_structure(lambda x: x[:0], answer)


def of_any_rows(flat: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns inputs whose number of rows is not known in a graph.

    If a graph knows that there is a single row, it does not show whether a mask is for each row or for all rows.

    Args:
        flat: The inputs of a batch.
    """
    if tf.executing_eagerly():
        return list(flat)
    return [
        x if x.shape[0] is None else tf.raw_ops.PlaceholderWithDefault(input=x, shape=[None, *x.shape[1:]])
        for x in flat
    ]


def _words(x: tf.Tensor) -> tf.Tensor:
    """A tensor as numbers of 32 bits, `(batch, ...)`."""
    if x.dtype == tf.float32:
        return x
    if x.dtype == tf.string:
        return tf.cast(tf.strings.to_hash_bucket_fast(x, 2**31 - 1), tf.int32)
    if x.dtype.size == 8:
        return tf.bitcast(x, tf.int32)
    return tf.cast(x, tf.int32)


def is_nested(inputs: Any) -> bool:
    """Returns whether inputs are a dict, or a list or tuple of arrays, and not an array written as a list."""
    if isinstance(inputs, Mapping):
        return True
    return isinstance(inputs, (list, tuple)) and any(isinstance(x, np.ndarray) or tf.is_tensor(x) for x in inputs)


def _array(value: Any) -> Any:
    return value if tf.is_tensor(value) else np.asarray(value)


def _as_symbol(value: Any) -> keras.KerasTensor:
    """A symbolic tensor of the rank and dtype of a batch, in which only the length of the last axis is fixed."""
    array = _array(value)
    shape = [None] * (len(array.shape) - 1) + ([array.shape[-1]] if len(array.shape) > 1 else [None])
    dtype = tf.convert_to_tensor(array[:1]).dtype
    return keras.KerasTensor(shape, dtype=_dtype(dtype).name)


def _dtype(dtype: Any) -> tf.DType:
    """The dtype of the converted inputs: float32 for all floats, since Keras casts them itself."""
    found = tf.as_dtype(keras.backend.standardize_dtype(dtype) if not isinstance(dtype, tf.DType) else dtype)
    return tf.float32 if found.is_floating else found
