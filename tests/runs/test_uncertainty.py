"""What an evaluation shows of the uncertainty: its two ends, and images of another data set."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from dropzoo import layers, serving, training
from dropzoo.pages import pictures
from dropzoo.pages.evaluation import overlays
from dropzoo.runs import uncertainty
from dropzoo.runs.evaluation import log_probabilities


def sampler(maps=False):
    """The first channel says how sure the model is; dropout makes the unsure ones differ between samples."""
    inputs = keras.Input((4, 6, 2))
    x = inputs if maps else keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, layers.Dropout(0.5, name="site_dropout")(x))
    return model, serving.MonteCarlo(model, 8)


def dataset(count, maps=False, seed=0, scale=3.0, batch=8):
    random = np.random.default_rng(seed)
    images = np.ones((count, 4, 6, 2), "float32") * [1, 0] * random.random((count, 1, 1, 1)) * scale
    labels = random.integers(0, 2, (count, 4, 6) if maps else count).astype("int32")
    return tf.data.Dataset.from_tensor_slices((images.astype("float32"), labels)).batch(batch)


def info(task, **options):
    given = {"num_train": 9, "num_validation": 0, "num_test": 9, "input_shape": (4, 6, 2), **options}
    return training.DataInfo("own", task, 2, ("no", "yes"), **given)


@pytest.mark.parametrize("maps", [False, True])
def test_both_ends_of_the_uncertainty(maps):
    _, mc = sampler(maps)
    data = dataset(21, maps)
    found = uncertainty.sample_all(mc, data, keep=3)
    images, labels = (np.concatenate(part) for part in zip(*data.as_numpy_iterator(), strict=True))
    expected = mc(images)
    for name in uncertainty.MEASURES:
        values = expected[name].numpy().reshape(21, -1).mean(1)
        np.testing.assert_allclose(found.measures[name], values, atol=1e-5)
    order = np.argsort(found.measures["predictive_entropy"])
    for examples, rows in ((found.most_certain, order[:3]), (found.least_certain, order[::-1][:3])):
        np.testing.assert_array_equal([e.image for e in examples], images[rows])
        np.testing.assert_array_equal([e.label for e in examples], labels[rows])
        for name, value in expected.items():
            np.testing.assert_allclose([e.answer[name] for e in examples], value.numpy()[rows], atol=1e-5)
    drawn = overlays(found, info("segmentation" if maps else "classification"))
    shown = {name: len(figure.axes) for name, figure in drawn.items()}
    assert shown == dict.fromkeys(("least_certain", "most_certain"), 15 if maps else 6)


def test_foreign_images_are_told_by_each_measure_as_scikit_learn_says():
    model, mc = sampler()
    own, foreign = dataset(40, seed=1, scale=4.0), dataset(30, seed=2, scale=2.0)
    found = uncertainty.sample_all(mc, own)
    predict = log_probabilities(model)
    aurocs = uncertainty.ood_aurocs(mc, predict, found, own, foreign)
    other = uncertainty.sample_all(mc, foreign).measures
    truth = np.repeat([0, 1], [40, 30])
    for name in uncertainty.MEASURES:
        values = np.concatenate([found.measures[name], other[name]])
        assert aurocs[f"{name.replace('_', ' ')}, Monte Carlo"] == pytest.approx(roc_auc_score(truth, values))
    p = [np.exp(predict(images)) for images, _ in (*own, *foreign)]
    values = np.concatenate([-(each * np.log(each)).sum(-1) for each in p])
    assert aurocs["entropy, deterministic"] == pytest.approx(roc_auc_score(truth, values), abs=1e-3)
    assert aurocs["entropy, deterministic"] > 0.6  # the weaker images are less sure


def test_foreign_images_take_the_size_and_channels_of_ours():
    def own(shape):
        return training.Data(None, None, dataset(2), info("classification", input_shape=shape))

    foreign = uncertainty.load_foreign("digits", own((10, 12, 3)), 5)
    assert next(iter(foreign.batches))[0].shape == (5, 10, 12, 3) and foreign.split == "test"
    foreign = uncertainty.load_foreign("digits", own((None, None, 1)), 5)
    assert next(iter(foreign.batches))[0].shape == (5, 4, 6, 1)
    with pytest.raises(ValueError, match="'digits' have 1 channels, but the model takes 2"):
        uncertainty.load_foreign("digits", own((8, 8, 2)), 5)
    data = training.load_data("digits")
    with pytest.raises(ValueError, match="another data set than the run's. Received: 'digits'"):
        uncertainty.load_foreign("digits", data, 5)


def test_blended_colours_stay_in_range():
    white, classes = np.ones((1, 10, 1), "float32"), np.arange(10)[None]
    shown = pictures.blend(white, classes, 10)
    assert shown.shape == (1, 10, 3) and shown.min() >= 0 and shown.max() <= 1
