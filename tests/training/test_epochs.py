"""Epochs of data that can be repeated and resumed, and the options of `load_data`."""

from collections.abc import Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf

from _arrays import arrays, assert_equal, images_of
from dropzoo.training.data.cache import keep
from dropzoo.training.data.pipeline import Split, training_batches


@pytest.fixture(params=[False, True], ids=["plain", "augmented"])
def augment(request) -> bool:
    return request.param


@pytest.mark.costly(keep=0)
def test_epochs_are_repeatable_and_distinct(load, augment):
    data, again = load(augment=augment, seed=3), load(augment=augment, seed=3)
    keras.utils.set_random_seed(7)  # the global seed plays no part
    epochs = [arrays(data.train) for _ in range(3)]
    for number, epoch in enumerate(epochs):
        assert_equal(epoch, arrays(again.train))
        assert_equal(epoch, arrays(data.train.at_epoch(number)))
        assert_equal(epoch, arrays(again.train.at_epoch(number)))
    assert len({images_of(epoch)[0] for epoch in epochs}) == 3
    assert images_of(arrays(load(augment=augment, seed=4).train)) != images_of(epochs[0])


@pytest.mark.costly(keep=0)
def test_an_epoch_holds_every_image_once(load):
    data = load(batch_size=50, seed=1)
    first, second = images_of(arrays(data.train)), images_of(arrays(data.train))
    assert first != second and sorted(first) == sorted(second)
    held_out = images_of(arrays(data.validation))
    everything = images_of(arrays(load(validation_split=0).train))
    assert sorted(first + held_out) == sorted(everything)
    assert len(everything) == 1442


@pytest.mark.costly(keep=0)
def test_augmentation_acts_on_training_images_alone(load):
    plain, augmented = load(), load(augment=True)
    assert_equal(arrays(plain.validation), arrays(augmented.validation))
    assert_equal(arrays(plain.test), arrays(augmented.test))
    (images, labels), (changed, same_labels) = arrays(plain.train)[0], arrays(augmented.train)[0]
    np.testing.assert_array_equal(labels, same_labels)  # the order is the same
    assert (images != changed).any(axis=(1, 2, 3)).all()
    other = arrays(augmented.train.at_epoch(1))
    assert not set(images_of(other)) & set(images_of([(changed, labels)]))


@pytest.mark.costly(keep=0)
def test_an_epoch_can_be_resumed(load, augment):
    whole = arrays(load(augment=augment).train.at_epoch(2))
    assert_equal(arrays(load(augment=augment).train.at_epoch(2).skip(30)), whole[30:])
    assert len(whole) == 41


@pytest.mark.costly(keep=0)
def test_cache_changes_nothing(load):
    assert_equal(arrays(load(augment=True, cache=False).train), arrays(load(augment=True).train))


@pytest.mark.parametrize("size", [2, None], ids=["one size", "several sizes"])
def test_the_cache_outlives_an_epoch(size):
    reads = []

    def examples() -> Iterator[tuple[np.ndarray, int]]:
        reads.append(1)
        for number in range(5):
            yield np.full((2, 2, 1), number, "uint8"), number

    specs = tf.TensorSpec((size, 2, 1), tf.uint8), tf.TensorSpec((), tf.int32)
    stored = Split(tf.data.Dataset.from_generator(examples, output_signature=specs), 5)
    train = training_batches(keep(stored, "memory", "digits"), 2, None, seed=0)
    orders = [np.concatenate([labels for _, labels in part]) for part in (train, train, train, train.at_epoch(9))]
    assert len(reads) == 1
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)


@pytest.mark.costly(keep=0)
def test_fit_under_a_strategy(load, two_devices):
    with two_devices.scope():
        model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    data = load(batch_size=100, augment=True)
    model.fit(data.train, validation_data=data.validation, epochs=2, shuffle=False, verbose=0)
    assert model.optimizer.iterations.numpy() == 2 * 13
    assert np.isfinite(model.evaluate(data.test, verbose=0))


@pytest.mark.costly(keep=0)
def test_limit_and_validation_split(load):
    data = load(limit=10, validation_split=0.5)
    assert (data.info.num_train, data.info.num_validation, data.info.num_test) == (10, 721, 355)
    assert len(images_of(arrays(data.train))) == 10
    assert load(limit=10**6).info.num_train == 1298
    none = load(validation_split=0)
    assert none.validation is None and none.info.num_validation == 0


def test_the_seed_chooses_the_validation_images(load):
    zero, one = (images_of(arrays(load(seed=seed).validation)) for seed in (0, 1))
    assert len(zero) == len(one) and set(zero) != set(one)


@pytest.mark.costly(keep=0)
def test_image_size_and_num_channels(load):
    data = load("digit_scenes", image_size=(16, 24), num_channels=3, limit=8)
    images, masks = arrays(data.train)[0]
    assert images.shape == (8, 16, 24, 3) and masks.shape == (8, 16, 24)
    np.testing.assert_array_equal(images[..., 0], images[..., 2])
    assert data.info.input_shape == (16, 24, 3)
    assert load(image_size=12).info.input_shape == (12, 12, 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(batch_size=0), "`batch_size` must be a positive int. Received: batch_size=0"),
        (dict(batch_size=None), "Received: batch_size=None"),
        (dict(limit=-1), "`limit` must be a positive int. Received: limit=-1"),
        (dict(validation_split=1.0), "`validation_split` must be in [0, 1). Received: validation_split=1.0"),
        (dict(seed=-1), "`seed` must be an int in [0, 2**32). Received: seed=-1"),
        (dict(image_size=(3, 0)), "`image_size` must be a positive int or a pair of them"),
        (dict(num_channels=2), "`num_channels` must be one of None, 1, 3. Received: num_channels=2"),
        (dict(augment="rotations=3"), "Unknown augmentation 'rotations'. Did you mean 'rotation'"),
        (dict(augment="saturation=0.5"), "`saturation` needs RGB images. Received: saturation=0.5, 1 channel"),
        (dict(validation_split=0.9999), "No training image is left. Received: validation_split=0.9999"),
    ],
)
def test_bad_arguments(load, arguments, message):
    with pytest.raises(ValueError) as error:
        load(**arguments)
    assert message in str(error.value)
