"""Models that end in a softmax or a sigmoid, as most of Keras do, are read like the logits before it."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import activations, ops
from keras.layers import (
    Activation,
    Average,
    AveragePooling2D,
    Conv2D,
    Conv2DTranspose,
    Cropping2D,
    Dense,
    Flatten,
    GlobalAveragePooling2D,
    Lambda,
    Reshape,
    Resizing,
    Softmax,
    TimeDistributed,
    UpSampling2D,
)

from _small_cnn import images
from dropzoo import layers, models, serving, training
from dropzoo.models.graph.endings import output_activation
from dropzoo.runs import evaluation
from dropzoo.runs.predictors import load_predictor

MULTI_CLASS, MULTI_LABEL, BINARY = ("multi_class", 3), ("multi_label", 3), ("binary", 1)
# By name: the task and the number of outputs, the activation, and what turns logits into what the model gives.
ENDINGS = {
    "in the layer": (MULTI_CLASS, "softmax", None),
    "a layer": (MULTI_CLASS, "softmax", lambda x: Softmax()(x)),
    "an activation layer": (MULTI_CLASS, "softmax", lambda x: Activation("softmax")(x)),
    "an operation": (MULTI_CLASS, "softmax", ops.softmax),
    "a function": (MULTI_CLASS, "softmax", activations.softmax),
    "and a cast": (MULTI_CLASS, "softmax", lambda x: Activation("linear", dtype="float32")(Softmax()(x))),
    "and a shape": (MULTI_CLASS, "softmax", lambda x: Reshape((3,))(Softmax()(x))),
    "one coin": (("multi_class", 1), "sigmoid", None),
    "binary": (BINARY, "sigmoid", ops.sigmoid),
    "labels": (MULTI_LABEL, "sigmoid", lambda x: Activation("sigmoid")(x)),
}


def model(outputs, activation=None, ending=None):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 1))
    x = layers.Dropout(0.5, name="drop")(Flatten()(inputs))
    x = Dense(outputs, activation=activation, kernel_initializer="he_normal")(x)
    return keras.Model(inputs, x if ending is None else ending(x))


def pair(name):
    """The model, and the same one of logits."""
    (task, outputs), activation, ending = ENDINGS[name]
    return model(outputs, None if ending else activation, ending), model(outputs), task


def nested(inner):
    return keras.Sequential([keras.Input((8, 8, 1)), inner])


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("name", ENDINGS)
def test_sampled_like_its_logits(name):
    ended, logits, task = pair(name)
    assert [output_activation(m) for m in (ended, nested(ended), logits)] == [ENDINGS[name][1]] * 2 + [None]
    mine, same = (serving.MonteCarlo(m, 4, "fixed", {"*": 0.5}, task=task)(images()) for m in (ended, logits))
    assert set(mine) == set(same) and mine["variance"].numpy().max() > 1e-3
    for figure, value in same.items():
        np.testing.assert_allclose(mine[figure], value, atol=1e-5)


@pytest.mark.costly(keep=3)
@pytest.mark.covering("name", "inside")
@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("inside", [False, True])
def test_a_plain_pass_gives_what_the_model_gives(name, inside):
    ended, _, task = pair(name)
    ended = nested(ended) if inside else ended
    plain = serving.TestTimeAugmentation(ended, ["identity"], task=task)(images())
    np.testing.assert_allclose(plain["mean"], ended(images()), atol=1e-6)


@pytest.mark.parametrize("name", ["in the layer", "one coin", "labels"])
def test_a_nested_one_is_sampled_too(name):
    """Its site has another name there, so it has other masks than its logits."""
    ended, _, task = pair(name)
    out = serving.MonteCarlo(nested(ended), 4, "fixed", {"*": 0.5}, task=task)(images())
    assert out["variance"].numpy().max() > 1e-3
    alone = serving.MonteCarlo(ended, 4, "fixed", {"*": 0.5}, task=task)(images())
    assert set(out) == set(alone)


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize("name", ["in the layer", "one coin", "labels"])
def test_exported_predicted_and_scored_like_its_logits(name, tmp_path):
    ended, logits, task = pair(name)
    serving.export_model(ended, tmp_path / "m" / "1", num_samples=3, task=task)
    given = tf.saved_model.load(str(tmp_path / "m" / "1")).signatures["serving_default"](
        images=tf.constant(images())
    )
    np.testing.assert_allclose(given["probabilities"], ended(images()), atol=1e-6)
    if name != "in the layer":
        return
    ended.save(tmp_path / "ended.keras")
    logits.save(tmp_path / "logits.keras")
    read, same = (load_predictor(tmp_path / f"{kind}.keras").predict(images()) for kind in ("ended", "logits"))
    np.testing.assert_allclose(read["mean"], same["mean"], atol=1e-5)
    log_p, same = (evaluation.log_probabilities(m)(tf.constant(images())) for m in (ended, logits))
    np.testing.assert_allclose(log_p, same, atol=1e-5)


@pytest.mark.parametrize(
    "follows",
    [
        lambda x: UpSampling2D(interpolation="bilinear")(x),
        lambda x: Resizing(20, 20)(x),
        lambda x: Cropping2D(1)(x),
        lambda x: Average()([x, x]),
        lambda x: AveragePooling2D(2)(x),
        lambda x: GlobalAveragePooling2D()(x),
        lambda x: Reshape((-1, 3))(x),
        lambda x: x[:, 0, 0],
        lambda x: ops.squeeze(x[:, :1, :1], (1, 2)),
    ],
)
def test_what_may_follow(follows):
    inputs = keras.Input((8, 8, 1))
    for layer in (Conv2D(3, 1, activation="softmax"), Conv2DTranspose(3, 1, activation=Softmax())):
        assert output_activation(keras.Model(inputs, follows(layer(inputs)))) == "softmax"
    distributed = TimeDistributed(Dense(3, "softmax"))(Reshape((8, 8))(inputs))
    assert output_activation(keras.Model(inputs, distributed)) == "softmax"


def test_tensorflows_own_functions():
    for name, function in {"softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid}.items():
        for ended in (model(3, function), model(3, None, Activation(function)), model(3, None, Lambda(function))):
            assert output_activation(ended) == name


def test_an_output_with_a_name():
    plain = model(3)
    named = keras.Model(plain.inputs, {"logits": plain.outputs[0]})
    for sampler in (lambda m: serving.MonteCarlo(m, 3, "fixed"), lambda m: serving.Ensemble([m])):
        np.testing.assert_allclose(sampler(named)(images())["mean"], sampler(plain)(images())["mean"], atol=1e-6)


def test_a_softmax_in_half_precision_is_scored_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    half = model(3, "softmax")
    log_p = evaluation.log_probabilities(half)(tf.constant(images()))
    assert half(images()).dtype == tf.float16
    assert log_p.dtype == tf.float32 and np.isfinite(log_p).all()


def test_what_is_no_ending():
    for activation in (None, "relu", "tanh"):
        assert output_activation(model(3, activation)) is None
    assert output_activation(model(3, "softmax", ops.log)) is None
    assert output_activation(keras.Sequential([Dense(3, "softmax")])) is None  # not built
    cnn = {
        "another axis": Softmax(axis=1),
        "mixed": lambda x: Average()([Softmax()(x), x]),
        "a state": lambda x: keras.layers.LSTM(5, activation="sigmoid")(Reshape((64, 4))(x)),
    }
    for name, build in cnn.items():
        inputs = keras.Input((8, 8, 4))
        assert output_activation(keras.Model(inputs, build(inputs))) is None, name
    shape = {"weights": None, "input_shape": (32, 32, 3), "classes": 5}
    assert output_activation(keras.applications.MobileNet(**shape)) == "softmax"
    assert output_activation(models.build_model("simple_cnn")) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: serving.MonteCarlo(model(3, "sigmoid")), "For several sigmoids, pass task='multi_label'"),
        (lambda: serving.MonteCarlo(model(3, "softmax"), task="multi_label"), "or one that ends in a sigmoid"),
        (lambda: serving.MonteCarlo(model(3, "softmax"), task="multi_label"), "softmax, pass task='multi_class'"),
        (lambda: serving.Ensemble([model(3), model(3, "sigmoid")]), "that ends in a sigmoid"),
        (
            lambda: training.Trainer(model(3, "softmax"), "adam", "mse", ["accuracy"], r_drop=1.0),
            "`r_drop` needs logits, but the model ends in a softmax",
        ),
        (lambda: evaluation.log_probabilities(model(3, "sigmoid")), "For several sigmoids"),
    ],
)
def test_what_contradicts_itself_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_trainer_takes_it_with_a_loss_of_its_own():
    data = tf.data.Dataset.from_tensor_slices((images(8), np.arange(8) % 3)).batch(4)
    train = partial(training.Trainer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    assert np.isfinite(train(model(3, "softmax")).fit(data, verbose=0).history["loss"]).all()
