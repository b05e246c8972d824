"""Builds the graph of a model again, with some dropout put in and some taken out."""

import copy
import warnings
from dataclasses import dataclass, field
from typing import Any

import keras

from dropzoo import layers
from dropzoo.common.keras_internals import (
    calls_of_operation,
    forget_calls,
    set_trainable_alone,
    takes_training,
)
from dropzoo.models.graph.walk import Call, calls_of, makers_of, model_in
from dropzoo.models.sites import layer_at, put_at
from dropzoo.models.surgery.check import is_custom
from dropzoo.models.surgery.copying import REMEDY, class_for, copied, copied_around
from dropzoo.models.surgery.ordered import in_order
from dropzoo.models.surgery.quiet import is_quietable

_DENSE = (keras.layers.Dense, keras.layers.EinsumDense)


@dataclass(frozen=True)
class Put:
    """A dropout layer to put in: a copy of `layer`, called `name`, at the site whose full name is `site`."""

    layer: keras.Layer
    site: str
    name: str


@dataclass(frozen=True)
class Detour:
    """The tensor that one reader reads in place of another tensor.

    Attributes:
        start: The tensor where the detour begins, in the model of the reader.
        maker: The call that makes the tensor.
        put: The dropout on the detour, or None for the tensor itself.
    """

    start: keras.KerasTensor
    maker: Call
    put: Put | None


@dataclass
class Changes:
    """The changes to a graph and to the graphs inside it.

    Attributes:
        after: The dropout to put after a call, by `call.key`.
        split: The ids of layers whose fused activation becomes a layer.
        between: The dropout to put between such a layer and its activation, by `call.key`.
        removed: The keys of the dropout calls to remove.
        quiet: Whether to take away the dropout inside Keras' own layers, such as `LSTM`.
        detours: The detour of each tensor that a call reads, by the key of the call and the id of the tensor.
    """

    after: dict[tuple[str, int], Put] = field(default_factory=dict)
    split: set[int] = field(default_factory=set)
    between: dict[tuple[str, int], keras.Layer] = field(default_factory=dict)
    removed: set[tuple[str, int]] = field(default_factory=set)
    quiet: bool = False
    detours: dict[tuple[str, int], dict[int, Detour]] = field(default_factory=dict)


class Rebuild:
    """One rebuild of a model. Layers that are shared in the old graph are shared in the new one.

    Args:
        changes: The changes to make.
        seed: Int, the seed for dropout layers that have none.
        share_weights: Bool. If True, the new model uses the old layers themselves. Dropout layers are always
            copied: they have no weights, and the copy needs its own rate.
    """

    def __init__(self, changes: Changes, seed: int, share_weights: bool = False) -> None:
        self._changes, self._seed, self._share = changes, seed, share_weights
        self._made: dict[int, Any] = {}
        self._parts: dict[int, tuple[keras.Layer, keras.Layer]] = {}
        self._final: set[int] = set()
        self._makers: dict[int, Call] = {}  # of all graphs so far
        self.pairs: list[tuple[keras.Layer, keras.Layer]] = []
        """The old layers with their copies, for `copy_state`."""

    def model(self, old: keras.Model, path: str = "") -> keras.Model:
        """Returns the new model, which has new weights until `copy_state` is called.

        Args:
            old: The model, or a model inside it.
            path: Str. The path of a model inside, such as `"encoder/"`.
        """
        calls = calls_of(old, path)
        self._makers |= makers_of(calls)
        names = {call.layer.name for call in calls if call.key not in self._changes.removed}
        build = self._sequential if isinstance(old, keras.Sequential) else self._functional
        new = build(old, calls, names)
        set_trainable_alone(new, old.trainable)
        if new.dtype_policy != old.dtype_policy:
            new.dtype_policy = old.dtype_policy
        if path and type(new).__name__ != type(old).__name__:
            warnings.warn(
                f"Weights files of the original will not load into the copy: they name the nested model "
                f"{old.name!r} after its class, and in the copy {old.name!r} is no longer a {type(old).__name__}, "
                "because that class cannot be built around a graph. Save and load whole models (.keras) instead.",
                stacklevel=2,
            )
        return new

    def _sequential(self, old: keras.Model, calls: list[Call], names: set[str]) -> keras.Model:
        own = [call for call in calls if isinstance(call.layer, keras.Layer)]  # Sequential computes masks itself
        stack = [layer for call in own for layer in (*self._before(call, names), *self._stack(call, names))]
        if len(stack) == 1:  # a model of an input alone cannot be called
            stack.append(keras.layers.Identity(name=_free("identity", names)))
        try:
            new = class_for(old, "layers", keras.Sequential)(stack, name=old.name)
        except Exception as error:  # the code of a custom layer may raise anything
            self._blame_a_copy(error)
            raise
        made = {id(call.layer): call.outputs for call in calls_of(new)}
        for call in own:
            self._check_shapes(call, made.get(id(self._made.get(id(call.layer))), call.outputs))
        return new

    def _functional(self, old: keras.Model, calls: list[Call], names: set[str]) -> keras.Model:
        tensors: dict[int, keras.KerasTensor] = {}
        raw: dict[int, keras.KerasTensor] = {}  # the inputs, before dropout
        if not calls[0].path:
            self._final = {id(tensor) for tensor in old.outputs}
        for call in calls:
            stack, always = self._stack(call, names), {}
            if call.key in self._changes.removed:  # `training=True` is kept for the dropout in its place
                always = {key: value for key, value in call.arguments.kwargs.items() if key == "training"}
                outputs = [tensors[id(call.inputs[0])]]
            elif isinstance(call.layer, keras.layers.InputLayer):
                outputs = [stack.pop(0).output]
                raw[id(call.outputs[0])] = outputs[0]
            else:  # as the old layer was called
                args, kwargs = call.arguments.fill_in(tensors | self._detours(call, names, tensors))
                try:
                    outputs = keras.tree.flatten(stack.pop(0)(*args, **kwargs))
                except Exception as error:  # the code of a custom layer may raise anything
                    self._blame_a_copy(error)
                    raise
                self._check_shapes(call, outputs)
            for layer in stack:
                outputs = [layer(*outputs, **always if takes_training(layer) else {})]
            tensors |= {id(before): after for before, after in zip(call.outputs, outputs, strict=True)}
        inputs = keras.tree.map_structure(lambda tensor: raw[id(tensor)], old.input)
        outputs = keras.tree.map_structure(lambda tensor: tensors[id(tensor)], old.output)
        # The linear part of a split layer has the weights, so it takes the place of the layer in the order.
        linear = {
            call.layer.name: self._parts[id(call.layer)][0].name for call in calls if id(call.layer) in self._parts
        }
        order = [linear.get(layer.name, layer.name) for layer in old.layers]
        return in_order(class_for(old, "outputs", keras.Model), inputs, outputs, old.name, order)

    def _stack(self, call: Call, names: set[str]) -> list[Any]:
        """Returns the layers in place of a call: the new layer or its two parts, then the dropout after it."""
        put = self._changes.after.get(call.key)
        behind = [] if put is None else [self._drop(put, call, names)]
        if call.key in self._changes.removed:
            if behind:
                return behind
            name = call.layer.name
            if id(call.outputs[0]) in self._final:  # losses and targets may be keyed by its name
                if id(call.layer) not in self._made:
                    self._made[id(call.layer)] = keras.layers.Identity(name=name, dtype=call.layer.dtype_policy)
                return [self._made[id(call.layer)]]
            if call.inputs[0].dtype == call.outputs[0].dtype:
                return []
            # The dropout was also a cast. The cast stays, or the output would change.
            return [keras.layers.Identity(name=_free(f"{name}_cast", names), dtype=call.layer.dtype_policy)]
        if id(call.layer) not in self._changes.split:
            return [self._copy(call), *behind]
        linear, activation = self._split(call.layer, names)
        site = call.name.replace(call.layer.name, linear.name, 1)
        if call.key not in self._changes.between:
            return [linear, activation, *behind]
        put = Put(self._changes.between[call.key], call.path + site, f"{site}_dropout")
        return [linear, self._drop(put, call, names), activation, *behind]

    def _before(self, call: Call, names: set[str]) -> list[keras.Layer]:
        """Returns the dropout on the edge to this call, for a model in which each layer reads the one before."""
        detours = self._changes.detours.get(call.key, {}).values()
        return [self._drop(way.put, way.maker, names) for way in detours if way.put is not None]

    def _detours(
        self, call: Call, names: set[str], tensors: dict[int, keras.KerasTensor]
    ) -> dict[int, keras.KerasTensor]:
        """Returns the tensors that only this call reads in place of others, by the ids of the old ones."""
        found = {}
        for read, way in self._changes.detours.get(call.key, {}).items():
            start = tensors[id(way.start)]
            found[read] = start if way.put is None else self._drop(way.put, way.maker, names)(start)
        return found

    def _copy(self, call: Call) -> Any:
        """Returns the new layer for the layer of a call: one new layer for all calls of the old one."""
        old = call.layer
        if isinstance(old, keras.layers.InputLayer):  # one for each model that shares it: dropout may come between
            return copied(old)
        if id(old) not in self._made:
            if (inner := model_in(old)) is not None:
                new = self._model_in(inner, f"{call.path}{old.name}/")
                if inner is not old:
                    new = copied_around(old, new)
            elif not isinstance(old, keras.Layer):  # an operation without state
                new = copy.copy(old)
                forget_calls(new)
            elif self._share and not layers.is_dropout(old):
                new = old
            else:
                new = copied(old, quiet=self._changes.quiet and is_quietable(old))
                self.pairs.append((old, new))
            self._made[id(old)] = new
        return self._made[id(old)]

    def _check_shapes(self, call: Call, outputs: list[keras.KerasTensor]) -> None:
        """Raises a ValueError if the copy of a custom layer gives a different shape from the original."""
        before, after = ([tensor.shape for tensor in tensors] for tensors in (call.outputs, outputs))
        if before != after and is_custom(call.layer):
            raise ValueError(
                f"Cannot copy layer {call.layer.name!r}: {type(call.layer).__name__}.from_config(config) "
                f"gives the shapes {after}, and the original gives {before}. {REMEDY}"
            )

    def _blame_a_copy(self, error: Exception) -> None:
        """Raises a ValueError that names the first copy that could not be built, or else not be called, if any."""
        unbuilt = [old for old, new in self.pairs if old.built and not new.built]
        uncalled = [
            old
            for old, new in self.pairs
            if is_custom(old) and calls_of_operation(old) and not calls_of_operation(new)
        ]
        for old in unbuilt or uncalled:
            raise ValueError(
                f"Cannot copy layer {old.name!r}: {type(old).__name__}.from_config(layer.get_config()) makes "
                f"a layer that fails with {error!r}. {REMEDY}"
            ) from None

    def _model_in(self, old: keras.Model, path: str) -> keras.Model:
        """Returns the new model for a nested one: one for all paths, built at the first path in `walk`."""
        if id(old) not in self._made:
            self._made[id(old)] = self.model(old, path)
        return self._made[id(old)]

    def _split(self, old: keras.Layer, names: set[str]) -> tuple[keras.Layer, keras.Layer]:
        """Returns a layer in two parts: linear, and its activation."""
        if isinstance(old.activation, keras.Layer):
            raise ValueError(
                f"The activation of layer {old.name!r} is itself a layer, {old.activation!r}, and cannot be "
                f"split off. Use a linear layer, followed by the activation as a separate layer."
            )
        if id(old) not in self._parts:
            name = _free(f"{old.name}_{'dense' if isinstance(old, _DENSE) else 'conv'}", names)
            linear = copied(old, activation=None, activity_regularizer=None, name=name)
            activation = keras.layers.Activation(
                old.activation,
                name=old.name,
                dtype=old.dtype_policy,
                activity_regularizer=old.activity_regularizer,
            )
            self.pairs.append((old, linear))
            self._parts[id(old)] = linear, activation
        return self._parts[id(old)]

    def _drop(self, put: Put, call: Call, names: set[str]) -> keras.Layer:
        """Returns the dropout layer to put after a call; raises a ValueError if it cannot be used there."""
        tensor, maker = call.outputs[0], call.layer
        config = {"name": _free(put.name, names)}
        if put.layer.dtype_policy == keras.config.dtype_policy():  # none of its own: that of the layer before
            policy = getattr(maker, "dtype_policy", None)
            same = getattr(maker, "compute_dtype", None) == tensor.dtype and not hasattr(
                policy, "quantization_mode"
            )
            config["dtype"] = maker.dtype_policy if same else tensor.dtype
        if put.layer.get_config().get("data_format") == keras.config.image_data_format():  # likewise
            config["data_format"] = self._data_format(call)
        # A trial with a copy, so that the layer that is returned was never called.
        put_at(put.site, put.layer, self._seed, keras.KerasTensor(tensor.shape, tensor.dtype), **config)
        return layer_at(put.site, put.layer, self._seed, **config)

    def _data_format(self, call: Call) -> str:
        """Returns the data format of a call's output: that of the nearest layer before it that has one."""
        while not hasattr(call.layer, "data_format"):
            before = [self._makers[id(tensor)] for tensor in call.inputs if id(tensor) in self._makers]
            if not before:
                return keras.config.image_data_format()
            call = before[0]
        return call.layer.data_format


def _free(name: str, names: set[str]) -> str:
    """Returns `name`, or `name_2`, `name_3`, ... if it is taken, and adds the result to `names`."""
    free = next(n for i in range(1, len(names) + 2) if (n := f"{name}_{i}" if i > 1 else name) not in names)
    names.add(free)
    return free
