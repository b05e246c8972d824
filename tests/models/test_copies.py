"""Copies of models: that a copy computes what the original does is tried, not believed.

The rule: each layer of a user's own is compared with its copy, and the whole model with its copy, on a random
batch in inference mode, to the bit. A difference is an error that names the layer and offers `share_weights=True`,
which `retrofit` and `strip_dropout` take. Where no batch runs, or where only training could differ, a warning says
so.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from _foreign import dropouts, inputs_for, same
from dropzoo import models

K = keras.layers


class Power(K.Layer):
    """Its config forgets the exponent."""

    def __init__(self, exponent=1.0, axis=-1, **kwargs):
        super().__init__(**kwargs)
        self.exponent, self.axis = exponent, axis

    def call(self, x):
        return x**self.exponent

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}


class Hidden(K.Layer):
    """Forgets what it keeps under another name, and does not keep what it is told."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.table = np.full(3, factor, "float32")

    def call(self, x):
        return x * self.table[0]

    def get_config(self):
        return super().get_config()


class Renamed(K.Layer):
    """Its config tells another value than it was given."""

    def __init__(self, units=2, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def call(self, x):
        return keras.ops.concatenate([x] * self.units, axis=-1)

    def get_config(self):
        return {**super().get_config(), "units": 3}


class Kept(K.Layer):
    """Keeps a TensorFlow variable that its config does not know."""

    def __init__(self, start=0.0, **kwargs):
        super().__init__(**kwargs)
        self.state = tf.Variable(start)

    def call(self, x):
        return x + self.state

    def get_config(self):
        return super().get_config()


class Normed(K.Layer):
    """Its config leaves out an argument that `build` needs."""

    def __init__(self, norm=None, **kwargs):
        super().__init__(**kwargs)
        self.norm = norm

    def build(self, shape):
        self.inner = self.norm()

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        return super().get_config()


class Patches(K.Layer):
    """Its config tells more than its constructor takes."""

    def call(self, x):
        return x

    def get_config(self):
        return {**super().get_config(), "patches": 4}


class DropSometimes(K.Layer):
    """Forgets its rate, which inference does not show."""

    def __init__(self, rate=0.1, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate

    def call(self, x, training=False):
        return tf.nn.dropout(x, self.rate) if training else x

    def get_config(self):
        return super().get_config()


def around(layer, *more):
    return keras.Sequential([keras.Input((4,)), layer, K.Dropout(0.2, name="drop"), *more, K.Dense(2, name="end")])


def nested(layer):
    inputs = keras.Input((4,))
    return keras.Model(inputs, K.Dense(1)(around(layer)(inputs)))


def hidden_by_zeros(layer):
    """A later layer hides what differs: its weights are still zero."""
    inputs = keras.Input((4,))
    branch = K.Dense(4, kernel_initializer="zeros", name="zeros")(layer(inputs))
    return keras.Model(inputs, K.Add()([K.Dropout(0.1)(branch), inputs]))


def in_frames(layer):
    cnn = keras.Sequential([keras.Input((4,)), layer, K.Dropout(0.3)], name="cnn")
    return keras.Sequential([keras.Input((3, 4)), K.TimeDistributed(cnn)])


WRONG = [Power(3.0, name="own"), Hidden(2.0, name="own"), Renamed(2, name="own"), Kept(1.0, name="own")]
MODELS = [around, nested, hidden_by_zeros, in_frames]


@pytest.mark.covering("layer", "make", "use")
@pytest.mark.filterwarnings("ignore:The copy of layer 'own' has exponent")
@pytest.mark.parametrize(
    "layer", [*WRONG, Normed(K.LayerNormalization, name="own"), Patches(name="own")], ids=repr
)
@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("use", [models.strip_dropout, lambda model, **kw: models.retrofit(model, {}, **kw)])
def test_a_difference_is_an_error_whose_advice_works(layer, make, use):
    model = make(type(layer)(**arguments(layer), name="own"))
    with pytest.raises(ValueError, match=r"'own'.*share_weights=True"):
        use(model)
    copy = use(model, share_weights=True)
    x = inputs_for(model)
    assert same(copy(x), model(x)) and same(copy.get_weights(), model.get_weights())


def arguments(layer):
    given = {Power: "exponent", Renamed: "units", Normed: "norm"}
    if type(layer) in given:
        return {given[type(layer)]: getattr(layer, given[type(layer)])}
    return {"factor": 2.0} if isinstance(layer, Hidden) else {"start": 1.0} if isinstance(layer, Kept) else {}


def test_what_only_training_shows_is_a_warning():
    model = around(DropSometimes(0.4, name="own"))
    with pytest.warns(UserWarning, match=r"'own' has rate=0.1 where the original has 0.4.*share_weights=True"):
        models.retrofit(model, {})


class Picky(K.Layer):
    """Takes only images of one size."""

    def call(self, x):
        if isinstance(x, tf.Tensor) and not tf.is_symbolic_tensor(x) and x.shape[1] != 23:
            raise ValueError("I take 23 rows")
        return x


def test_no_batch_runs():
    model = keras.Sequential([keras.Input((None, 4)), Picky(name="picky"), K.Dropout(0.1), K.Dense(2)])
    with pytest.warns(UserWarning, match="not compared with the original.*I take 23 rows"):
        new = models.strip_dropout(model)
    x = np.ones((1, 23, 4), "float32")
    assert same(new(x), model(x))


def texts():
    words = K.TextVectorization(9, output_mode="int", output_sequence_length=3, name="words")
    words.adapt(["a b c", "b c d"])
    parts = [words, K.Embedding(9, 3), K.Dropout(0.1), K.GlobalAveragePooling1D(), K.Dense(2)]
    return keras.Sequential([keras.Input((), dtype="string"), *parts])


def indices():
    parts = [K.Embedding(5, 3, mask_zero=True), K.Dropout(0.1), K.LSTM(2, stateful=True), K.Dense(2)]
    return keras.Sequential([keras.Input(batch_shape=(2, None), dtype="int32"), *parts])


def several():
    a, b = keras.Input((None, None, 3), name="a"), keras.Input((2,), dtype="bool", name="b")
    x = K.GlobalAveragePooling2D()(K.Dropout(0.1)(K.Conv2D(4, 3, strides=2, padding="same")(a)))
    x = K.Concatenate()([x, keras.ops.cast(b, "float32")])
    return keras.Model({"a": a, "b": b}, {"p": K.Dense(1, name="p")(x), "q": [K.Dense(2, name="q")(x)]})


def least_size():
    """Fails on small images, like networks that take valid convolutions."""
    convs = [K.Conv2D(2, 5, strides=2) for _ in range(4)]
    return keras.Sequential(
        [keras.Input((None, None, 1)), *convs, K.Dropout(0.1), K.Flatten(), K.Lambda(str_free)]
    )


def str_free(x):
    return x * 2.0


def random_in_inference():
    return around(K.Lambda(lambda x: tf.nn.dropout(x, 0.5), name="permanent"))


@pytest.mark.parametrize("make", [texts, indices, several])
def test_batches_are_found_for_all_kinds_of_inputs(make):
    model = make()
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    assert dropouts(models.strip_dropout(model)) == []
    assert all(np.array_equal(a, b) for a, b in zip(before, model.variables, strict=True))


def test_a_model_that_is_random_in_inference_is_copied_and_named():
    model = random_in_inference()
    models.retrofit(model, {})
    with pytest.warns(UserWarning, match="still draw random numbers.*'permanent'"):
        models.strip_dropout(model)


class Joined(K.Layer):
    """Its config forgets the units: a copy is built, and then fails when it is called."""

    def __init__(self, units=2, **kwargs):
        super().__init__(**kwargs)
        self.dense = K.Dense(units)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return keras.ops.add(x, self.dense(x))

    def get_config(self):
        return super().get_config()


@pytest.mark.parametrize("copy", [models.strip_dropout, lambda model: models.retrofit(model, {"first": 0.1})])
def test_a_copy_that_is_built_and_cannot_be_called_is_named(copy):
    first, drop = K.Dense(3, name="first"), K.Dropout(0.5)
    model = keras.Sequential([keras.Input((4,)), first, drop, Joined(3, name="joined")])
    with pytest.raises(ValueError, match="Cannot copy layer 'joined'.*share_weights=True"):
        copy(model)
