"""Models of many shapes, for the tests of the cache and of the cut."""

import functools

import keras

from _small_cnn import small_cnn
from dropzoo import layers, models

kl = keras.layers


def unet(**options):
    return models.build_model(
        "unet",
        **{"depth": 1, "filters": 4, "num_classes": 3, "dropout": {"bottleneck*": 0.4, "head": 0.3}, **options},
    )


def nested():
    """A Sequential inside a Functional inside a Functional, the middle one called twice with its own dropout."""
    inner = keras.Sequential(
        [keras.Input((8, 8, 4)), kl.BatchNormalization(), layers.Dropout(0.3), kl.Conv2D(4, 3, padding="same")]
    )
    x = middle_in = keras.Input((8, 8, 4))
    x = kl.Conv2D(4, 3, padding="same", activation="relu")(x)
    middle = keras.Model(middle_in, kl.Add()([inner(x), x]), name="middle")
    inputs = keras.Input((8, 8, 1), name="images")
    stem = kl.Conv2D(4, 3, padding="same", name="stem")(inputs)
    x = kl.Average()([middle(stem), middle(stem * 2.0)])
    return keras.Model(inputs, kl.Dense(3)(kl.GlobalAveragePooling2D()(x)))


class Wrapped(kl.Layer):
    """A layer of somebody's own with dropout inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.dropout = kl.Conv2D(4, 3), layers.SpatialDropout2D(0.4)

    def build(self, shape):
        self.conv.build(shape)

    def call(self, x):
        return self.dropout(self.conv(x))

    def compute_output_shape(self, shape):
        return self.conv.compute_output_shape(shape)


class Own(keras.Model):
    """A Functional model with a `call` of its own, which the graph does not tell of."""

    def call(self, x, training=None):
        return 2.0 * super().call(x, training=training)


def opaque():
    stack = [kl.Conv2D(4, 3, activation="relu", name="stem"), Wrapped(name="wrapped"), kl.Flatten(), kl.Dense(3)]
    return keras.Sequential([keras.Input((8, 8, 1)), *stack])


def own_call():
    inputs = keras.Input((8, 8, 1))
    x = kl.Flatten()(layers.Dropout(0.3)(kl.Conv2D(4, 3)(inputs)))
    return Own(inputs, kl.Dense(3)(x))


def with_operations():
    """Keras operations, not only layers, on both sides of the cut; a second argument by keyword."""
    inputs = keras.Input((8, 8, 1))
    x = keras.ops.relu(kl.Conv2D(4, 3)(inputs) - 0.1)
    y = kl.Dropout(0.4, name="site")(x)
    x = keras.ops.concatenate([x, y * 2.0], axis=-1)
    return keras.Model(inputs, kl.Dense(3)(keras.ops.max(x, axis=(1, 2))))


def masked():
    """A sequence whose Keras mask, of the steps below a half, crosses the cut."""
    inputs = keras.Input((8, 1))
    x = kl.Masking()(kl.ReLU(threshold=0.5)(inputs))
    return keras.Model(inputs, kl.Dense(3)(kl.GlobalAveragePooling1D()(layers.Dropout(0.3)(x))))


def joined():
    """Convolutions and a dense layer of what is partly deterministic, in any order."""
    inputs = keras.Input((8, 8, 1))
    a, b = (kl.Conv2D(n, 3, padding="same", activation="tanh")(inputs) for n in (3, 5))
    x = kl.Concatenate()([a, layers.Dropout(0.3)(b), inputs])
    x = kl.Conv2D(4, 3, 2, padding="same", activation="relu", name="strided")(x)
    y = kl.Conv2D(2, 3, padding="valid", dilation_rate=2, name="dilated")(
        kl.Concatenate(-1)([b, a, kl.UpSampling2D()(x)])
    )
    x = keras.ops.concatenate([kl.Flatten()(a), kl.Flatten()(y)], axis=1)
    return keras.Model(inputs, kl.Dense(3, name="dense")(x))


def one_mask_for_all():
    stack = [kl.Conv2D(4, 3), kl.Flatten(), layers.DropConnectDense(6, 0.4, name="first"), kl.Dense(3)]
    return keras.Sequential([keras.Input((8, 8, 1)), *stack])


def late_cnn(**options):
    return small_cnn({"dense1": 0.4, "head": 0.3}, **options)


MODELS = {
    "cnn": (small_cnn, (8, 8)),
    "late cnn": (late_cnn, (8, 8)),
    "one logit": (functools.partial(late_cnn, num_classes=1, scale=1.0), (8, 8)),
    "unet": (unet, (9, 7)),
    "unet skip": (functools.partial(unet, dropout={"skip1": "drop_block2d:0.3,block_size=2"}), (9, 7)),
    "unet one logit": (functools.partial(unet, num_classes=1), (9, 7)),
    "segnet": (
        lambda: models.build_model(
            "segnet", input_shape=(None, None, 1), convs=(1, 1), filters=4, dropout={"decoder*": 0.3}
        ),
        (8, 6),
    ),
    "nested": (nested, (8, 8)),
    "opaque": (opaque, (8, 8)),
    "own call": (own_call, (8, 8)),
    "operations": (with_operations, (8, 8)),
    "masked": (masked, (8,)),
    "joined": (joined, (8, 8)),
    "one mask for all": (one_mask_for_all, (8, 8)),
}
