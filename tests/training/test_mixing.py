"""Mixup and CutMix: what a mixed batch holds, what its loss is, and what cannot be mixed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo.training.loop.mixing import Mixing
from dropzoo.training.trainer import Trainer

FIRST = tf.constant([3, 0, 0], tf.int64)  # seed, epoch, step


def model(outputs=3):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(outputs)])


def batch(count=4, dtype="float32"):
    images = np.stack([np.full((8, 8, 1), n * 10) for n in range(count)]).astype(dtype)
    return tf.constant(images), tf.range(count) % 3


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("mixup, cutmix", [(0.2, 0), (0, 1.0), (1.0, 0.5)])
def test_the_share_is_that_of_the_pixels(dtype, mixup, cutmix):
    images, labels = batch(dtype=dtype)
    mixing, found = Mixing(mixup, cutmix, model()), set()
    for step in range(6):
        mixed = mixing.apply((images, labels), tf.constant([3, 1, step], tf.int64))
        share = float(mixed.share)
        assert 0.5 <= share <= 1 and mixed.batch[0].dtype == images.dtype
        # Each image is one grey, so the mean pixel shows the share.
        expected = share * np.array([0, 10, 20, 30]) + (1 - share) * np.array([30, 20, 10, 0])
        means = tf.cast(mixed.batch[0], tf.float32).numpy().mean((1, 2, 3))
        np.testing.assert_allclose(means, expected, atol=0.6 if dtype == "uint8" else 0.02)
        np.testing.assert_array_equal(mixed.batch[1], labels)
        np.testing.assert_array_equal(mixed.partner[0], labels[::-1])
        found.add(share)
    assert len(found) > 3
    again = mixing.apply((images, labels), tf.constant([3, 1, 5], tf.int64))
    np.testing.assert_array_equal(again.batch[0], mixed.batch[0])


def test_cutmix_cuts_boxes_out_of_images_and_volumes():
    for shape in [(2, 9, 7, 1), (2, 6, 5, 4, 1)]:
        images = tf.stack([tf.zeros(shape[1:]), tf.ones(shape[1:])])
        first = Mixing(0, 1.0, model()).apply((images, tf.range(2)), FIRST).batch[0][0, ..., 0].numpy()
        assert 0 < first.sum() <= first.size / 2
        for axis in range(first.ndim):  # a box is the product of its sides
            side = first.any(tuple(n for n in range(first.ndim) if n != axis))
            assert np.diff(side.astype(int), prepend=0).clip(0).sum() == 1
            first = first[np.ix_(*[side if n == axis else np.ones(m, bool) for n, m in enumerate(first.shape)])]
        assert first.all()


@pytest.mark.parametrize("weights, jit", [(None, False), (np.array([1.0, 2, 0, 1], "float32"), True)])
def test_the_loss_is_that_of_both_labels(weights, jit):
    images, labels = batch()
    rows = (images, labels) if weights is None else (images, labels, tf.constant(weights))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net = model()
    trainer = Trainer(net, keras.optimizers.SGD(0.0), loss, mixup=0.4, jit_compile=jit)
    history = trainer.fit(tf.data.Dataset.from_tensors(rows), verbose=0).history
    mixed = Mixing(0.4, 0, net).apply(rows, tf.constant([_seed_of_the_run(), 0, 0], tf.int64))
    logits, share = net(mixed.batch[0]), float(mixed.share)
    partner = None if weights is None else mixed.partner[1]
    expected = share * loss(labels, logits, weights) + (1 - share) * loss(mixed.partner[0], logits, partner)
    assert history["loss"][0] == pytest.approx(float(expected), rel=1e-5)


def _seed_of_the_run():
    """The next number of NumPy's state, which `model` sets."""
    model()
    return np.random.randint(2**31)


def test_replicas_mix_as_one_device_does(two_devices):
    ends = []
    for strategy in (None, two_devices):
        with two_devices.scope() if strategy else tf.init_scope():
            net = model()
        trainer = Trainer(net, keras.optimizers.SGD(0.001), mixup=0.5, cutmix=1.0, strategy=strategy)
        trainer.fit(tf.data.Dataset.from_tensor_slices(batch(8)).batch(4), epochs=2, verbose=0)
        ends.append([variable.numpy() for variable in net.weights])
    for one, two in zip(*ends, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_labels_of_all_forms_and_r_drop_mix():
    images, labels = batch()
    for y in (labels, tf.one_hot(labels, 3), tf.cast(labels, tf.float32)):
        outputs = 1 if y.dtype == tf.float32 and len(y.shape) == 1 else 3
        loss = "mse" if outputs == 1 else None
        trainer = Trainer(model(outputs), loss=loss, mixup=0.3, r_drop=0.5 if loss is None else 0.0)
        trainer.fit(tf.data.Dataset.from_tensors((images, y)), class_weight=None, verbose=0)
    trainer = Trainer(model(), cutmix=1)
    trainer.fit(tf.data.Dataset.from_tensors((images, labels)), class_weight={0: 2.0}, verbose=0)


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return {"loss": 0.0}


@pytest.mark.parametrize(
    "net, options, match",
    [
        (model, {"mixup": -1}, "`mixup` must be a number of 0 or more"),
        (model, {"cutmix": True}, "`cutmix` must be a number"),
        (lambda: keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 1)]), {"mixup": 1}, "masks"),
        (lambda: OwnStep([keras.Input((8, 8, 1)), keras.layers.Dense(2)]), {"mixup": 1}, "has its own"),
    ],
)
def test_what_cannot_be_mixed(net, options, match):
    with pytest.raises(ValueError, match=match):
        Trainer(net(), **options)


@pytest.mark.parametrize(
    "rows, match",
    [
        ((tf.zeros((2, 4)),), "also mix the targets"),
        (((tf.zeros((2, 4)), tf.zeros((2, 4))), tf.zeros(2)), "one input: images"),
        ((tf.zeros((2, 4), tf.int32), tf.zeros(2)), "one input: images"),
    ],
)
def test_batches_that_cannot_be_mixed(rows, match):
    with pytest.raises(ValueError, match=match):
        Mixing(0.2, 0, model()).apply(rows, FIRST)


def test_cutmix_needs_images():
    with pytest.raises(ValueError, match="`cutmix` needs images"):
        Mixing(0, 1.0, model()).apply((tf.zeros((2, 4)), tf.zeros(2)), FIRST)


def test_a_run_goes_on_only_with_the_same_mix(tmp_path):
    data = tf.data.Dataset.from_tensors(batch())
    Trainer(model(), mixup=0.2).fit(data, checkpoint_dir=tmp_path, verbose=0)
    with pytest.raises(ValueError, match="trainer.mixup: 0.2"):
        Trainer(model(), mixup=0.3).fit(data, epochs=2, checkpoint_dir=tmp_path, verbose=0)
