"""Masks where the first axis is not the batch: windows, patches and frames that are folded into it.

Rule: a mask is drawn for what the layer sees. Where each image has the same number of rows, one after another, the
mask of a row depends on the content of its image and on its place, so samples can be folded and an image has the
same answer in any batch. Everywhere else samples are computed one at a time. At a rate of 0 nothing changes, and
the variance is that of plain passes.
"""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from keras import ops

from dropzoo import layers, serving


def windows(x):
    """(batch, 8, 8, c) as (batch * 16, 4, c)."""
    cut = ops.reshape(x, (-1, 4, 2, 4, 2, x.shape[-1]))
    return ops.reshape(ops.transpose(cut, (0, 1, 3, 2, 4, 5)), (-1, 4, x.shape[-1]))


def whole(x):
    cut = ops.reshape(x, (-1, 4, 4, 2, 2, x.shape[-1]))
    return ops.reshape(ops.transpose(cut, (0, 1, 3, 2, 4, 5)), (-1, 8, 8, x.shape[-1]))


FOLDS = {  # into the batch, and back
    "windows": (windows, whole),
    "rows": (lambda x: ops.reshape(x, (-1, 8, 3)), lambda x: ops.reshape(x, (-1, 8, 8, 3))),
    "windows first": (
        lambda x: ops.concatenate([x[:, :4], x[:, 4:]], 0),
        lambda x: ops.concatenate(ops.split(x, 2), 1),
    ),
    "time first": (lambda x: ops.transpose(x, (1, 0, 2, 3)), lambda x: ops.transpose(x, (1, 0, 2, 3))),
    "all in one": (lambda x: ops.reshape(x, (1, -1)), lambda x: ops.reshape(x, (-1, 8, 8, 3))),
    "one more row": (lambda x: ops.concatenate([x, x[:1]], 0), lambda x: x[:-1]),
}
IN_ORDER = ("windows", "rows")


class Folded(kl.Layer):
    """Drops in rows that are not the batch."""

    def __init__(self, fold, drop, **kwargs):
        super().__init__(**kwargs)
        self.forth, self.back = FOLDS[fold]
        self.drop = drop

    def call(self, x, training=None):
        return self.back(self.drop(self.forth(x), training=training))

    def compute_output_shape(self, shape):
        return shape


def model_of(body, shape=(8, 8, 3)):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    return keras.Model(inputs, kl.Dense(2)(kl.Flatten()(body(inputs))))


def batch(shape=(8, 8, 3), rows=6):
    return np.random.default_rng(0).normal(size=(rows, *shape)).astype("float32")


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    ("fold", "drop"), [*[(name, "dropout:0.5") for name in FOLDS], ("windows", "drop_path:0.4")]
)
def test_inside_a_layer(fold, drop):
    model, x = model_of(lambda inputs: Folded(fold, layers.get(drop))(inputs)), batch()
    options = {"task": "regression", "seed": 3}
    loop = serving.MonteCarlo(model, 5, fold=1, **options)(x)
    assert loop["variance"].numpy().min() > 0
    if fold in IN_ORDER:
        folded = serving.MonteCarlo(model, 5, **options)
        assert folded._stage.why_not_folded is None
        for name, value in folded(x).items():
            np.testing.assert_allclose(value, loop[name], atol=1e-5)
        np.testing.assert_allclose(folded(x[2:4])["mean"], loop["mean"][2:4], atol=1e-5)
    else:
        with pytest.raises(ValueError, match="do not match the images one by one; pass fold=1"):
            serving.MonteCarlo(model, 5, fold=3, **options)
    if fold in ("windows", "all in one"):
        off = serving.MonteCarlo(model, 2, sites={"*": 0.0}, **options)(x)
        np.testing.assert_allclose(off["mean"], model(x), atol=1e-6)


@pytest.mark.parametrize("fold", ["windows", "time first"])
def test_the_variance_is_that_of_plain_passes(fold):
    model, x = model_of(lambda inputs: Folded(fold, kl.Dropout(0.5))(inputs)), batch()
    passes = tf.function(lambda images: model(images, training=True))
    drawn = np.stack([passes(x) for _ in range(300)]).var(0).mean()
    found = serving.MonteCarlo(model, 300, task="regression")(x)["variance"].numpy().mean()
    assert 0.85 < found / drawn < 1.18


@pytest.mark.parametrize("sampling", ["balanced", "fixed"])
@pytest.mark.parametrize("fold", ["time first", "windows first"])
def test_rows_out_of_order_have_masks_of_their_own(fold, sampling):
    """Also those of images that are equal, whose masks have the same key elsewhere."""
    inputs = keras.Input((8, 8, 3))
    model, x = keras.Model(inputs, Folded(fold, kl.Dropout(0.5))(inputs)), np.ones((4, 8, 8, 3), "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of masks that are not fixed
        mc = serving.MonteCarlo(model, 1, sampling, task="regression")
    assert "its rows do not match the images one by one" in mc.plain_passes
    dropped = FOLDS[fold][0](mc(x)["mean"]).numpy().reshape(8, -1) == 0
    assert len({tuple(row) for row in dropped}) == 8


def test_windows_and_images_have_masks_of_their_own():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, Folded("windows", kl.Dropout(0.5))(inputs))
    ones = np.ones((2, 8, 8, 3), "float32")
    ones[1] *= 2
    dropped = windows(serving.MonteCarlo(model, 1, task="regression")(ones)["mean"]).numpy().reshape(32, 12) == 0
    assert len({tuple(row) for row in dropped}) > 28
    fixed = windows(serving.MonteCarlo(model, 1, "fixed", task="regression")(ones)["mean"]).numpy() == 0
    np.testing.assert_array_equal(fixed[:16], fixed[16:])


@pytest.mark.parametrize("place", ["the graph", "frames", "a model"])
def test_elsewhere(place):
    inner = keras.Sequential([keras.Input((4, 3)), kl.Dense(3), kl.Dropout(0.4)])

    class Inside(Folded):
        def call(self, x, training=None):
            return whole(inner(windows(x), training=training))

    model, shape = {
        "the graph": lambda: (model_of(lambda x: whole(kl.Dropout(0.5)(windows(kl.Conv2D(3, 1)(x))))), (8, 8, 3)),
        "frames": lambda: (
            model_of(lambda x: kl.TimeDistributed(Folded("windows", kl.Dropout(0.4)))(x), (3, 8, 8, 3)),
            (3, 8, 8, 3),
        ),
        "a model": lambda: (model_of(lambda x: Inside("windows", inner)(x)), (8, 8, 3)),
    }[place]()
    x = batch(shape, 4)
    loop, folded = (serving.MonteCarlo(model, 4, fold=fold, task="regression")(x) for fold in (1, 3))
    assert loop["variance"].numpy().min() > 0
    for name, value in loop.items():
        np.testing.assert_allclose(folded[name], value, atol=1e-5)
