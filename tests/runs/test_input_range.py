"""The commands read images in [0, 1] and give a model what it takes: found, recorded or said, and else assumed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import training
from dropzoo.common.pixels import Pixels
from dropzoo.models.graph.record import recorded, remember
from dropzoo.runs.evaluation import log_probabilities
from dropzoo.runs.inputs import check_bits, fed, settle_range
from dropzoo.runs.loading import load_model_for

kl = keras.layers


def net(*layers, shape=(8, 8, 1), dtype=None):
    x = inputs = keras.Input(shape, dtype=dtype)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, kl.Dense(10)(kl.Flatten()(kl.Conv2D(2, 3)(x))))


def recorded_as(low, high):
    model = net()
    remember(model, Pixels(low, high, source="the training images"))
    return model


@pytest.mark.parametrize(
    ("make", "taken"),
    [
        (lambda: net(), lambda x: x),
        (lambda: net(kl.Rescaling(1 / 255)), lambda x: 255 * x),
        (lambda: net(kl.Rescaling(1 / 127.5, -1)), lambda x: 255 * x),
        (lambda: net(kl.Rescaling(1 / 65535)), lambda x: 65535 * x),
        (lambda: net(kl.Rescaling(0.5, 0.5)), lambda x: 2 * x - 1),
        (lambda: recorded_as(-1, 1), lambda x: 2 * x - 1),
        (lambda: net(kl.Rescaling(1 / 255), dtype="uint8"), lambda x: np.rint(255 * x).astype("uint8")),
    ],
)
def test_evaluation_gives_the_model_what_it_takes(make, taken):
    model, images = make(), np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)) / np.float32(255)
    expected = tf.nn.log_softmax(model(taken(images)))
    np.testing.assert_allclose(log_probabilities(model)(tf.constant(images)), expected, atol=1e-4)


def test_what_is_said_is_kept_and_what_is_assumed_is_printed():
    said: list[str] = []
    model = net()
    assert settle_range(model, None, said.append).range == (0, 1) and recorded(model) is None
    assert len(said) == 1 and "--input-range 0,255" in said[0]
    assert settle_range(model, (0, 255), said.append).range == recorded(model).range == (0, 255)
    settle_range(net(kl.Rescaling(1 / 255)), None, said.append)
    settle_range(recorded_as(0, 1), (0, 1), said.append)
    assert len(said) == 1
    with pytest.raises(ValueError, match=r"takes pixels from 0 to 1 .*Received: --input-range \(0, 255\)"):
        settle_range(recorded_as(0, 1), (0, 255), said.append)


def test_training_batches_are_scaled_in_every_epoch():
    data, model = training.load_data("digits", batch_size=4, limit=8), net(kl.Rescaling(1 / 255))
    scaled = fed(data.train, model)
    for plain, found in (
        (data.train.at_epoch(1), scaled.at_epoch(1)),
        (data.validation, fed(data.validation, model)),
    ):
        (x, y), (scaled_x, scaled_y) = next(iter(plain)), next(iter(found))
        np.testing.assert_allclose(scaled_x, 255 * x, rtol=1e-6)
        np.testing.assert_array_equal(y, scaled_y)
    assert fed(data.train, net()) is data.train


def test_a_model_of_the_tutorial_is_evaluated_as_keras_does(tmp_path):
    """It takes 0 to 255 and scales them itself; the images of a data set are in [0, 1]."""
    model = net(kl.Rescaling(1 / 255))
    model.save(tmp_path / "m.keras")
    loaded, _, data = load_model_for(tmp_path / "m.keras", "digits")
    settle_range(loaded, None, lambda line: pytest.fail(line))
    x = next(iter(data.test))[0]
    expected = tf.nn.log_softmax(model(255 * x))
    np.testing.assert_allclose(log_probabilities(loaded)(x), expected, atol=1e-5)


def test_images_of_8_bits_do_not_evaluate_a_model_of_16():
    info = training.load_data("digits", batch_size=4, limit=8).info
    check_bits(Pixels(bits=8), info)
    with pytest.raises(ValueError, match="takes 16-bit images.*'digits', whose images have 8 bits. Pass the orig"):
        check_bits(Pixels(bits=16, source="the training images"), info)
