"""Models that are not ours, of the kinds that users have, for the tests of surgery: one entry each."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from dropzoo import layers
from dropzoo.common.keras_internals import flatten_layers
from dropzoo.models.graph.places import places

K = keras.layers


@keras.saving.register_keras_serializable(package="tests")
class Scale(K.Layer):
    """A custom layer with a weight and a config."""

    def __init__(self, start: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = start
        self.factor = self.add_weight(shape=(), initializer=keras.initializers.Constant(start), name="factor")

    def call(self, inputs: Any) -> Any:
        return inputs * self.factor

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start}


def functional() -> keras.Model:
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = K.Conv2D(4, 3, activation="relu", name="conv1")(x)
    x = K.BatchNormalization(name="norm1")(x)
    x = K.Conv2D(5, 3, name="conv2")(x)
    x = K.ReLU(name="relu2")(x)
    x = K.Flatten(name="flatten")(x)
    return keras.Model(inputs, K.Dense(3, name="logits")(x), name="functional")


def sequential() -> keras.Model:
    layers = [
        K.Conv2D(4, 3, activation="relu", name="conv1"),
        K.Flatten(name="flatten"),
        K.Dense(3, name="logits"),
    ]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers], name="sequential")


def sequential_called() -> keras.Model:
    """Without an Input, built by its first call."""
    model = keras.Sequential([K.Conv2D(4, 3, name="conv1"), K.Flatten(name="flatten"), K.Dense(3, name="logits")])
    model(np.zeros((1, 8, 8, 3), "float32"))
    return model


def nested() -> keras.Model:
    """A Functional in a Sequential in a Functional."""
    inner_in = keras.Input((6, 6, 4))
    inner = keras.Model(inner_in, K.Conv2D(4, 3, activation="relu", name="conv3")(inner_in), name="inner")
    middle = keras.Sequential([K.Conv2D(4, 3, name="conv2"), inner, K.ReLU(name="relu2")], name="middle")
    inputs = keras.Input((8, 8, 3), name="image")
    x = middle(K.Conv2D(4, 1, name="conv1")(inputs))
    return keras.Model(inputs, K.Dense(3, name="logits")(K.Flatten(name="flatten")(x)), name="outer")


def siamese() -> keras.Model:
    """Two inputs as a dict, a shared model, a layer that is called twice, two outputs, operations."""
    tower = keras.Sequential(
        [keras.Input((8, 8, 3)), K.Conv2D(4, 3, name="conv"), K.Flatten(name="flatten")], name="tower"
    )
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    dense = K.Dense(5, activation="tanh", name="dense")
    a, b = dense(tower(left)), dense(tower(right))
    near = K.Dense(1, name="near")(abs(a - b) * 0.5)
    outputs = {"near": near, "kind": K.Dense(3, name="kind")(K.Concatenate(name="both")([a, b]))}
    return keras.Model({"left": left, "right": right}, outputs, name="siamese")


def residual() -> keras.Model:
    """Parallel branches, where dropout in one changes the order in which Keras sees the layers."""
    x = inputs = keras.Input((8, 8, 3), name="image")
    for i in (1, 2):
        left = K.Conv2D(4, 3, padding="same", activation="relu", name=f"left{i}")(x)
        right = K.Conv2D(4, 3, padding="same", name=f"right{i}")(x)
        x = K.Add(name=f"add{i}")([left, right])
    x = K.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, K.Dense(3, name="logits")(x), name="residual")


def with_dropout() -> keras.Model:
    """Dropout after one layer, on one edge only, and inside a model."""
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = K.SpatialDropout2D(0.2, name="spatial")(K.Conv2D(4, 3, padding="same", name="conv1")(x))
    edge = K.Dropout(0.3, name="edge")(x)
    x = K.Add(name="add")([x, K.Conv2D(4, 3, padding="same", name="conv2")(edge)])
    head = keras.Sequential([K.Flatten(name="flatten"), K.Dropout(0.5, name="inside")], name="end")
    return keras.Model(inputs, K.Dense(3, name="logits")(head(x)), name="with_dropout")


def custom() -> keras.Model:
    """Custom layers, a Lambda, an Embedding of integers, several outputs of one layer, frozen layers."""
    words, image = keras.Input((4,), dtype="int32", name="words"), keras.Input((8, 8, 3), name="image")
    state, *_ = K.LSTM(4, return_state=True, name="lstm")(K.Embedding(7, 3, name="embedding")(words))
    x = Scale(0.5, name="scale")(K.Conv2D(4, 3, name="conv1", trainable=False)(image))
    x = K.Lambda(lambda t: t * 2.0, name="double", output_shape=(6, 6, 4))(x)
    x = K.Concatenate(name="both")([K.GlobalAveragePooling2D(name="pool")(x), state])
    return keras.Model([words, image], K.Dense(3, name="logits")(x), name="custom")


def mixed() -> keras.Model:
    """Mixed precision, made under a policy that is not the global one any more."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        x = inputs = keras.Input((8, 8, 3), name="image")
        x = K.Conv2D(4, 3, activation="relu", name="conv1")(x)
        x = K.SpatialDropout2D(0.2, name="spatial")(K.Conv2D(4, 3, name="conv2")(x))
        x = K.Dense(3, dtype="float32", name="logits")(K.Flatten(name="flatten")(x))
        return keras.Model(inputs, x, name="mixed")
    finally:
        keras.config.set_dtype_policy(before)


@dataclass(frozen=True)
class Foreign:
    """A model, plans for it and the sites where they put dropout; `dropout` is what it has itself."""

    make: Callable[[], keras.Model]
    plans: tuple[tuple[dict[Any, Any], tuple[str, ...]], ...]
    dropout: tuple[str, ...] = field(default=())
    plain_files: bool = True  # loads without unsafe deserialization


FOREIGN = {
    "functional": Foreign(
        functional,
        (
            ({"*": 0.1}, ("conv1", "norm1", "conv2", "relu2", "flatten")),
            ({"after:Conv2D": 0.1}, ("conv1", "conv2")),
            ({"after:conv*": 0.1, "conv2": None}, ("conv1",)),
            ({"before:Flatten": 0.1}, ("relu2",)),
            ({"before:Flatten": 0.1, "relu2": "spatial_dropout2d:0.2"}, ("relu2",)),  # one tensor, one site
            ({"before:conv1": 0.1}, ("image",)),
            ({"before_activation:conv1": 0.1}, ("conv1_conv",)),
            ({"before_activation:*": "drop_block2d:0.1,block_size=3"}, ("conv1_conv", "conv2")),
            ({lambda site: site.kind == "flatten": 0.1}, ("flatten",)),
            ({}, ()),
        ),
    ),
    "sequential": Foreign(
        sequential,
        (
            ({"*": 0.1}, ("conv1", "flatten")),
            ({"before_activation:Conv2D": 0.1, "before:Dense": 0.5}, ("conv1_conv", "flatten")),
        ),
    ),
    "sequential_called": Foreign(sequential_called, (({"after:Conv2D": 0.1}, ("conv1",)),)),
    "nested": Foreign(
        nested,
        (
            ({"after:Conv2D": 0.1}, ("conv1", "middle/conv2", "middle/inner/conv3")),
            ({"inside:middle": 0.1}, ("middle/conv2", "middle/inner/conv3", "middle/relu2")),
            ({"inside:inner after:Conv2D": 0.1}, ("middle/inner/conv3",)),
            ({"inner": 0.1}, ("middle/inner/conv3",)),  # what the model gives out
            ({"middle": 0.1}, ("middle/relu2",)),
            ({"before:middle": 0.1}, ("conv1",)),
            ({"middle/conv2": 0.1, "conv3": 0.2}, ("middle/conv2", "middle/inner/conv3")),
            ({"before_activation:conv3": 0.1}, ("middle/inner/conv3_conv",)),
        ),
    ),
    "siamese": Foreign(
        siamese,
        (
            ({"after:Conv2D": 0.1}, ("tower/conv",)),
            ({"dense": 0.1}, ("dense_call1", "dense_call2")),
            ({"dense_call2": 0.1}, ("dense_call2",)),
            ({"before:near": 0.1}, ("multiply",)),
            ({"before_activation:Dense": 0.1}, ("dense_dense_call1", "dense_dense_call2")),
            ({"before:Conv2D": 0.1}, ("tower/input_layer",)),
        ),
    ),
    "residual": Foreign(
        residual,
        (
            ({"left*": 0.1}, ("left1", "left2")),
            ({"right1": 0.1}, ("right1",)),
            ({"before_activation:left1": 0.1}, ("left1_conv",)),
        ),
    ),
    "with_dropout": Foreign(
        with_dropout,
        (
            ({}, ("conv1", "edge", "end/flatten")),
            ({"conv1": 0.4}, ("conv1", "edge", "end/flatten")),
            ({"spatial": None, "edge": "spatial_dropout2d:0.1"}, ("edge", "end/flatten")),
            ({"after:Dropout": None}, ("conv1",)),
            ({"before:logits": 0.6}, ("conv1", "edge", "end/flatten")),
        ),
        dropout=("spatial", "edge", "inside"),
    ),
    "custom": Foreign(
        custom,
        (({"after:Scale": 0.1, "before:Dense": 0.2}, ("scale", "both")), ({"double": 0.1}, ("double",))),
        plain_files=False,
    ),
    "mixed": Foreign(
        mixed,
        (
            ({"after:Conv2D": "spatial_dropout2d:0.1"}, ("conv1", "conv2")),
            ({"before_activation:conv1": 0.1}, ("conv1_conv", "conv2")),
        ),
        dropout=("spatial",),
    ),
}


def inputs_for(model: keras.Model, rows: int = 2) -> Any:
    """Random inputs of a model."""
    rng = np.random.default_rng(0)

    def some(tensor: Any) -> np.ndarray:
        shape = (rows, *tensor.shape[1:])
        return rng.integers(0, 4, shape) if "int" in tensor.dtype else rng.standard_normal(shape).astype("float32")

    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(some, structure)


def flat(outputs: Any) -> list[np.ndarray]:
    return [np.asarray(x) for x in keras.tree.flatten(outputs)]


def same(a: Any, b: Any) -> bool:
    """Whether two structures of arrays are equal to the bit."""
    return len(flat(a)) == len(flat(b)) and all(
        x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(flat(a), flat(b), strict=True)
    )


def dropouts(model: keras.Model) -> list[Any]:
    return [layer for layer in flatten_layers(model) if layers.is_dropout(layer)]


def shake(model: keras.Model) -> keras.Model:
    """Other weights than fresh ones, BatchNorm's statistics too."""
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.1, 1.0, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def standing(model: keras.Model) -> list[str]:
    """The names of all places with dropout, listed or not; Keras' own names without their numbers."""
    names = [place.name for place in places(model) if place.standing]
    return [re.sub(r"(multiply|input_layer)_\d+$", r"\1", name) for name in names]
