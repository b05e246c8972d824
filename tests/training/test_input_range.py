"""The range of the images: said by the data, or looked at in the first steps; checked, and kept with the model.

The rule: a model is trained on pixels of the range that it takes, and what it was trained on is known afterwards,
in the process (`recorded`), in checkpoints and in its `.keras` file. A model that divides by 255 itself and gets
fractions of 1 is an error that says both.
"""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dropzoo.models.graph.record import read_record, recorded
from dropzoo.training.data.dataset import DataInfo
from dropzoo.training.data.load import load_data
from dropzoo.training.trainer import Trainer

RNG = np.random.default_rng(0)
ROWS = 12
LABELS = RNG.integers(0, 2, ROWS)
FRACTIONS = RNG.random((ROWS, 6, 6, 3)).astype("float32")
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def build(first=None, shape=(6, 6, 3), dtype=None, named=False):
    inputs = keras.Input(shape, dtype=dtype, name="image")
    x = first(inputs) if first else layers.Rescaling(1.0)(inputs) if dtype else inputs
    return keras.Model({"image": inputs} if named else inputs, layers.Dense(2)(layers.Flatten()(x)))


def dataset(images):
    return tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(4)


def train(model, data, **options):
    trainer = Trainer(model, "sgd", CROSS_ENTROPY, [], **options)
    trainer.fit(data, verbose=0)
    return trainer


SEEN = {
    "fractions of 1": (lambda: build(), FRACTIONS, (0, 1), None),
    "dark fractions": (lambda: build(), FRACTIONS * 0.06, (0, 1), None),
    "-1 to 1": (lambda: build(), FRACTIONS * 2 - 1, (-1, 1), None),
    "0 to 255, resized": (lambda: build(), FRACTIONS * 255, (0, 255), None),
    "0 to 255, dark": (lambda: build(layers.Rescaling(1 / 255)), FRACTIONS * 60, (0, 255), None),
    "bytes": (lambda: build(dtype="uint8"), (FRACTIONS * 255).astype("uint8"), (0, 255), 8),
    "16 bits": (lambda: build(dtype="uint16"), (FRACTIONS * 4095).astype("uint16"), (0, 65535), 16),
    "16 bits as floats": (lambda: build(), FRACTIONS * 65000, (0, 65535), None),
    "volumes": (lambda: build(shape=(2, 3, 6, 3)), FRACTIONS.reshape(ROWS, 2, 3, 6, 3), (0, 1), None),
    "standardised": (lambda: build(), RNG.normal(size=FRACTIONS.shape).astype("float32"), None, None),
    "distances up to 4": (lambda: build(), FRACTIONS * 4, None, None),
    "a table": (lambda: build(shape=(6,)), FRACTIONS[:, 0, :, 0], None, None),
    "sequences": (lambda: build(shape=(6, 3)), FRACTIONS[:, 0], None, None),
}


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("name", SEEN)
def test_the_range_is_seen_in_the_first_steps_and_kept(name):
    build_one, images, expected, bits = SEEN[name]
    model = build_one()
    trainer = train(model, dataset(images))
    assert trainer.input_range == expected
    kept = recorded(model)
    if images.ndim > 3:
        assert kept.from_files == (expected is not None)  # no range of files: the least and the greatest value
        assert kept.range == (expected or pytest.approx((images.min(), images.max()), rel=0.5))
        assert kept.source == "the training images" and kept.channels == 3
        assert bits is None or kept.bits == bits


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize("form", ["dataset", "arrays", "dict"])
def test_fractions_for_a_model_that_divides_by_255_are_an_error_that_says_both(form):
    for first in (
        layers.Rescaling(1 / 255),
        layers.Rescaling(1 / 127.5, offset=-1),
        lambda x: layers.Rescaling(1 / 255)(layers.RandomFlip()(x)),
    ):
        data = {
            "dataset": dataset(FRACTIONS),
            "arrays": (FRACTIONS, LABELS),
            "dict": dataset(FRACTIONS).map(lambda x, y: ({"image": x}, y)),
        }[form]
        with pytest.raises(ValueError, match="takes pixels from 0 to 255 .* those of `train` are from 0") as error:
            train(build(first, named=form == "dict"), data)
        assert "Multiply the images by 255" in str(error.value) and "input_range=(0, 1)" in str(error.value)
        said = train(build(first, named=form == "dict"), data, input_range=(0, 1))
        assert said.input_range == (0, 1)


def test_what_the_data_say_is_checked_before_the_first_step(load):
    data = load(limit=20)
    assert (data.train.input_range, data.train.bits, data.info.bits) == ((0.0, 1.0), 8, 8)
    model = build(layers.Rescaling(1 / 255), data.info.input_shape)
    weights = model.get_weights()
    with pytest.raises(ValueError, match="takes pixels from 0 to 255"):
        train(model, data.train)
    np.testing.assert_array_equal(model.get_weights()[0], weights[0])
    inputs = keras.Input(data.info.input_shape)
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(inputs)))
    train(model, data.train)
    assert dataclasses.astuple(recorded(model))[:3] == (0.0, 1.0, 8)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_bits_of_files_are_known(tmp_path, bits):
    dtype = f"uint{bits}"
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(6):
        image = RNG.integers(0, 256 if bits == 8 else 4096, (8, 8, 1)).astype(dtype)
        tf.io.write_file(str(tmp_path / "images" / f"{number}.png"), tf.io.encode_png(image))
        tf.io.write_file(str(tmp_path / "masks" / f"{number}.png"), tf.io.encode_png((image > 99).astype("uint8")))
    data = load_data(tmp_path, batch_size=2)
    assert data.info.bits == data.train.bits == bits
    largest = max(float(tf.reduce_max(images)) for images, _ in data.train)
    assert largest <= (1 if bits == 8 else 0.0625)  # 12 bits in files of 16
    if bits == 16:
        assert load_data(tmp_path, num_channels=3).info.input_shape == (8, 8, 3)
    saved = json.loads(json.dumps(dataclasses.asdict(data.info)))
    assert DataInfo(**saved).bits == bits
    del saved["bits"]  # of a run of before
    assert DataInfo(**saved).bits is None


def test_a_resumed_run_and_a_file_have_the_range(tmp_path):
    model = build()
    Trainer(model, "sgd", CROSS_ENTROPY, []).fit(dataset(FRACTIONS * 255), checkpoint_dir=tmp_path, verbose=0)
    model.save(tmp_path / "model.keras")
    assert read_record(tmp_path / "model.keras").range == (0, 255)
    again = build()
    trainer = Trainer(again, "sgd", CROSS_ENTROPY, [])
    trainer.fit(dataset(FRACTIONS * 255), checkpoint_dir=tmp_path, verbose=0)  # nothing is left to train
    assert trainer.input_range == recorded(again).range == (0, 255)
    with pytest.raises(ValueError, match="`input_range` must be the values of a black and of a white pixel"):
        Trainer(build(), input_range=(1, 0))
