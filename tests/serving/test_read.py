"""An output is read as logits or as probabilities by what is known, said or asked of the data.

Rule: at a rate of 0 the sampled mean is what `model.predict` means, in every sampler and for every ending. Where
neither the graph nor an argument nor the values of the first batch decide, the error names the two ways out.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from keras import ops

from dropzoo import serving
from dropzoo.serving.montecarlo.reader import LogProbabilities, Reader

X = np.random.default_rng(0).normal(0, 8, (3, 8, 8, 3)).astype("float32")


class Hidden(kl.Layer):
    """Code that no graph shows."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        y = tf.py_function(self.function, [x], tf.float32)
        y.set_shape(x.shape)
        return y

    def compute_output_shape(self, shape):
        return shape


class Head(keras.Model):
    def __init__(self, units, function):
        super().__init__()
        self.conv, self.function, self.drop = kl.Conv2D(units, 1), function, kl.Dropout(1e-7)

    def call(self, x, training=None):
        return self.function(self.conv(self.drop(x, training=training)))


def coin(h):
    return ops.sigmoid(kl.Conv2D(1, 1)(h))


def softmax(z):
    return tf.nn.softmax(z).numpy()


def sigmoid(z):
    return tf.sigmoid(z).numpy()


def same(z):
    return z


# By name: the ending, the arguments, and what turns the output into probabilities.
ENDINGS = {
    "resized": (lambda h: ops.image.resize(kl.Softmax()(h), (16, 16), interpolation="bicubic"), {}, same),
    "one unit resized": (lambda h: ops.image.resize(coin(h), (16, 16), interpolation="bicubic"), {}, same),
    "two heads": (lambda h: (kl.Softmax()(h) + kl.Softmax()(kl.Conv2D(3, 1)(h))) / 2, {}, same),
    "turned twice": (lambda h: kl.Permute((3, 2, 1))(kl.Softmax(axis=1)(h)), {}, same),
    "a lambda": (lambda h: kl.Lambda(lambda y: tf.nn.softmax(y / 2))(h), {}, same),
    "hidden probabilities": (lambda h: Hidden(tf.nn.softmax)(h), {}, same),
    "hidden logits": (lambda h: Hidden(tf.identity)(h), {}, softmax),
    "a hidden logit": (lambda h: Hidden(tf.identity)(kl.Conv2D(1, 1)(h)), {}, sigmoid),
    "said": (lambda h: Hidden(tf.sigmoid)(kl.Conv2D(1, 1)(h)), {"from_logits": False}, same),
    "said by name": (
        lambda h: Hidden(tf.sigmoid, name="out")(kl.Conv2D(1, 1)(h)),
        {"from_logits": {"out": False}},
        same,
    ),
    "log-probabilities": (ops.log_softmax, {}, softmax),
    "a product": (lambda h: coin(h) * coin(h), {}, same),
    "the other class": (lambda h: 1 - coin(h), {}, same),
    "both classes": (lambda h: (lambda p: ops.concatenate([1 - p, p], -1))(coin(h)), {}, same),
    "two labels": (lambda h: kl.Concatenate()([coin(h), coin(h)]), {"task": "multi_label"}, same),
    "one of several": (lambda h: ops.take(kl.Softmax()(h), [1], axis=-1), {}, same),
    "a gate": (lambda h: (lambda g: g * kl.Softmax()(h) + (1 - g) * kl.Softmax()(h))(coin(h)), {}, same),
    "a tanh": (lambda h: ops.tanh(h), {}, softmax),
    "log-probabilities, exponentiated": (lambda h: ops.exp(ops.log_softmax(h)), {}, same),
    "a share": (lambda h: (lambda e: e / ops.sum(e, -1)[..., None])(ops.exp(h)), {}, same),
    "a ReLU": (lambda h: ops.relu(h), {}, softmax),
}


def model_of(ending, drop=1e-7):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    return keras.Model(image, ending(kl.Conv2D(3, 1)(kl.Dropout(drop)(image))))


def both(p):
    return np.concatenate([1 - p, p], -1) if p.shape[-1] == 1 else p


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("name", ENDINGS)
def test_the_mean_is_that_of_predict(name):
    ending, options, turn = ENDINGS[name]
    model = model_of(ending)
    right = turn(model(X).numpy())
    out = serving.MonteCarlo(model, 2, **options)(X)
    np.testing.assert_allclose(out["mean"], right, atol=1e-5)
    assert all(np.isfinite(value).all() for value in out.values())
    np.testing.assert_allclose(serving.Ensemble([model], **options)(X)["mean"], right, atol=1e-5)
    if "task" not in options and "resized" not in name:
        log_p = LogProbabilities(model, options.get("from_logits"))(X)
        np.testing.assert_allclose(np.exp(log_p), both(right), atol=1e-5)


@pytest.mark.parametrize(
    ("function", "task", "turn"),
    [(ops.softmax, "multi_class", same), (same, "multi_class", softmax), (ops.sigmoid, "multi_label", same)],
)
def test_subclassed_models(function, task, turn):
    model = Head(3, function)
    right = turn(model(X).numpy())
    for make in (serving.MonteCarlo, serving.TestTimeAugmentation):
        np.testing.assert_allclose(
            make(model, **({"transforms": ["identity"]} if make is not serving.MonteCarlo else {}), task=task)(X)[
                "mean"
            ],
            right,
            atol=1e-5,
        )


@pytest.mark.parametrize(
    "use", [serving.MonteCarlo, lambda m, **kw: serving.Ensemble([m], **kw), LogProbabilities]
)
def test_where_nothing_decides_an_error_names_the_ways_out(use):
    model = model_of(lambda h: Hidden(tf.sigmoid, name="out")(kl.Conv2D(1, 1)(h)))
    with pytest.raises(
        ValueError, match="'out' logits or probabilities.*from_logits=True for logits, or from_logits=False"
    ):
        use(model)(X)
    for said in (True, False):
        use(model, from_logits=said)(X)


SCALED = {
    "a percentage": lambda h: kl.Rescaling(100.0)(kl.Softmax()(h)),
    "a rating": lambda h: 5 * coin(h),
    "a ReLU of one unit": kl.Conv2D(1, 1, activation="relu", bias_initializer="ones"),
    "a softplus of one unit": kl.Conv2D(1, 1, activation="softplus", bias_initializer="ones"),
}


@pytest.mark.parametrize("name", SCALED)
def test_what_is_never_negative_and_above_one_is_no_logit(name):
    """Neither a softmax nor a sigmoid is applied to a percentage, a rating or a count."""
    model = model_of(SCALED[name])
    with pytest.raises(
        ValueError, match="neither logits nor probabilities. For a regression, pass task='regression'"
    ):
        serving.MonteCarlo(model, 2)(X)
    out = serving.MonteCarlo(model, 2, task="regression")(X)
    np.testing.assert_allclose(out["mean"], model(X), rtol=1e-4, atol=1e-5)
    serving.MonteCarlo(model, 2, from_logits=True)(X)


def test_logits_that_look_like_probabilities():
    """Those of an untrained model, all in [0, 1], decide nothing, unless they sum to 1 everywhere."""
    unit, several = (model_of(lambda h, n=n: Hidden(lambda z: 0.5 + 0 * z)(kl.Conv2D(n, 1)(h))) for n in (1, 3))
    for model in (unit, several):
        with pytest.raises(ValueError, match="its values, from 0.5 to 0.5, could be either"):
            serving.MonteCarlo(model, 2)(X)
    third = model_of(lambda h: Hidden(lambda z: z * 0 + tf.constant([0.2, 0.3, 0.5]))(h))
    np.testing.assert_allclose(serving.MonteCarlo(third, 2)(X)["mean"][0, 0, 0], [0.2, 0.3, 0.5], atol=1e-6)


@pytest.mark.parametrize(("from_logits", "turn"), [(True, sigmoid), (False, same)])
def test_the_loss_of_a_compiled_model_decides_last(from_logits, turn):
    model = model_of(lambda h: Hidden(tf.sigmoid)(kl.Conv2D(1, 1)(h)))
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=from_logits))
    np.testing.assert_allclose(serving.MonteCarlo(model, 2)(X)["mean"], turn(model(X).numpy()), atol=1e-5)


def test_what_is_said_is_compared_with_values():
    model = model_of(kl.Conv2D(3, 1))
    with pytest.raises(ValueError, match="from_logits=False says .* its values are from"):
        serving.MonteCarlo(model, 2, from_logits=False)(X)
    with pytest.raises(ValueError, match="For several sigmoids, pass task='multi_label'; .*from_logits=False"):
        serving.MonteCarlo(model_of(lambda h: kl.Activation("sigmoid")(h)), 2)


def test_a_random_batch_decides_for_an_export():
    model = model_of(lambda h: Hidden(tf.nn.softmax)(h))
    reader = Reader(model)
    assert reader.known and not reader.settled
    with pytest.raises(ValueError, match="no batch has been seen yet"):
        reader.read(reader.call([tf.constant(X)]))
    reader.check(reader.inputs.pack(reader.inputs.example(high=255.0)))
    assert reader.settled and reader.readings == ["as_is"]


def masked_cross_entropy(y, p):
    """A loss of a user's own, whose name says that it is one of classes."""
    return ops.sparse_categorical_crossentropy(ops.maximum(y, 0), p, from_logits=True)


def compiled(units, loss, activation=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, kl.Dense(units, activation, name="out")(kl.Dropout(1e-7)(inputs)))
    model.compile("adam", loss)
    return model


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    ("units", "loss", "activation", "kind"),
    [
        (1, "mse", None, "regression"),
        (3, keras.losses.Huber(), None, "regression"),
        (2, {"out": "mae"}, None, "regression"),
        (3, keras.losses.BinaryCrossentropy(from_logits=True), None, "multi_label"),
        (1, keras.losses.BinaryCrossentropy(from_logits=True), None, "multi_class"),
        (3, "mse", "softmax", "multi_class"),
        (3, "binary_crossentropy", "sigmoid", "multi_label"),
        (1, "binary_crossentropy", "sigmoid", "multi_class"),
        (3, "binary_crossentropy", "softmax", "multi_class"),
        (3, keras.losses.SparseCategoricalCrossentropy(from_logits=True), None, "multi_class"),
        (2, masked_cross_entropy, None, "multi_class"),
        (2, lambda y, p: ops.mean((y - p) ** 2), "softmax", "multi_class"),
        (3, "binary_crossentropy", "sigmoid", "multi_label"),
    ],
)
def test_the_loss_of_a_compiled_model_is_the_default_kind(units, loss, activation, kind):
    model, x = compiled(units, loss, activation), 100 * X[0, :, :4, 0]
    mc = serving.MonteCarlo(model, 2)
    assert mc.task == kind and Reader(model).task == kind
    if kind == "regression":
        np.testing.assert_allclose(mc(x)["mean"], model(x), rtol=1e-5)
        with pytest.raises(ValueError, match="a loss for task='regression', but `task` is 'multi_class'"):
            serving.MonteCarlo(model, 2, task="multi_class")
        assert serving.Ensemble([model]).task == "regression"


def gaussian_nll(y, p):
    return ops.mean((y - p[:, :1]) ** 2 * ops.exp(-p[:, 1:]) + p[:, 1:])


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    "loss",
    [
        lambda y, p: ops.mean((y - p) ** 2),
        gaussian_nll,
        {"out": gaussian_nll},
        "hinge",
        keras.losses.CosineSimilarity(),
    ],
)
def test_a_loss_that_says_nothing_of_a_linear_output_asks_for_the_task(loss):
    """Values are not put through a softmax because of their shape."""
    model, x = compiled(2, loss), 100 * X[0, :, :4, 0]
    for use in (serving.MonteCarlo, lambda m: serving.Ensemble([m]), serving.TestTimeAugmentation):
        with pytest.raises(ValueError, match=r"does not say what the output means. Pass task='regression'"):
            use(model)
    np.testing.assert_allclose(serving.MonteCarlo(model, 2, task="regression")(x)["mean"], model(x), rtol=1e-5)
    assert serving.MonteCarlo(model, 2, task="multi_class").task == "multi_class"


def test_a_linear_output_beside_probabilities_is_named():
    inputs = keras.Input((4,))
    h = kl.Dropout(0.3)(inputs)
    model = keras.Model(inputs, [kl.Dense(3, "softmax", name="cls")(h), kl.Dense(4, name="box")(h)])
    with pytest.warns(
        UserWarning, match="These outputs are treated as logits, .*: box. .*task={'box': 'regression'}"
    ):
        serving.MonteCarlo(model, 2)
    serving.MonteCarlo(model, 2, task={"box": "regression"})
    model.compile("adam", {"cls": "sparse_categorical_crossentropy", "box": "mse"})
    assert serving.MonteCarlo(model, 2).task == {"cls": "multi_class", "box": "regression"}


@pytest.mark.parametrize("ending", [kl.Softmax(axis=1), lambda h: kl.Permute((3, 1, 2))(kl.Softmax()(h))])
def test_classes_on_another_axis(ending):
    image = keras.Input((8, 8, 8))
    model = keras.Model(image, ending(kl.Dropout(1e-7)(image)))
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 8)).astype("float32")
    for said in (None, False):
        with pytest.raises(
            ValueError, match=r"are on its axis 1, and they must be last. Put keras.layers.Permute\(\(2, 3, 1\)\)"
        ):
            serving.MonteCarlo(model, 2, from_logits=said)(x)


def test_integers_are_no_probabilities():
    model = model_of(lambda h: ops.argmax(kl.Softmax()(kl.Flatten()(h)), -1))
    with pytest.raises(ValueError, match="is int32, so it is neither logits nor probabilities"):
        serving.MonteCarlo(model, 2)
