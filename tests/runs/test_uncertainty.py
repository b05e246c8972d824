"""What an evaluation shows of the uncertainty: its two ends, and images of another data set."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from sklearn.metrics import roc_auc_score

from dropzoo import layers, serving, training
from dropzoo.common.pixels import Pixels
from dropzoo.pages import pictures
from dropzoo.pages.evaluation import overlays
from dropzoo.runs import uncertainty
from dropzoo.runs.config import RunConfig
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


@pytest.mark.costly(keep=1)
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
        assert aurocs[f"{name.replace('_', ' ')}, Monte Carlo, 8 samples"] == pytest.approx(
            roc_auc_score(truth, values)
        )
    p = [np.exp(predict(images)) for images, _ in (*own, *foreign)]
    values = np.concatenate([-(each * np.log(each)).sum(-1) for each in p])
    assert aurocs["entropy, deterministic"] == pytest.approx(roc_auc_score(truth, values), abs=1e-3)
    assert aurocs["entropy, deterministic"] > 0.6  # the weaker images are less sure


HERE = RunConfig(model="x", data="own", batch_size=5)
GREY = Pixels(0, 1, source="the training images")


@pytest.mark.costly(keep=0)
def test_foreign_images_take_the_size_and_channels_of_ours():
    def own(shape):
        return training.Data(None, None, dataset(2), info("classification", input_shape=shape))

    foreign = uncertainty.load_foreign("digits", own((10, 12, 3)), HERE, GREY)
    assert next(iter(foreign.batches))[0].shape == (5, 10, 12, 3) and foreign.split == "test"
    foreign = uncertainty.load_foreign("digits", own((None, None, 1)), HERE, GREY)
    assert next(iter(foreign.batches))[0].shape == (5, 4, 6, 1)
    with pytest.raises(ValueError, match="'digits' have 1 channel, but the model takes 2"):
        uncertainty.load_foreign("digits", own((8, 8, 2)), HERE, GREY)
    data = training.load_data("digits")
    with pytest.raises(ValueError, match="a different data set from that of the run. Received: 'digits'"):
        uncertainty.load_foreign("digits", data, HERE, GREY)


def scans(folder, kind=np.uint16, masks=(0, 255)):
    """Images from 0 to 4095, as many scanners make them."""
    for number in range(4):
        for name, pixels in (
            ("images", np.array([[0, 4095]] * 2)),
            ("masks", np.array([masks] * 2, np.uint8)),
        ):
            (folder / name).mkdir(parents=True, exist_ok=True)
            kept = pixels.astype(kind if name == "images" else np.uint8)
            tifffile.imwrite(folder / name / f"{number}.tif", kept + number % 2)
    return folder


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32])
def test_foreign_files_are_scaled_as_ours(tmp_path, kind):
    """Two folders of one name, each with black at 0 and white at 4095; the model alone may know that."""
    read = {"value_range": (0, 4096), "masks_as": "threshold"}
    own = training.load_data(scans(tmp_path / "a" / "scans", kind, (0, 200)), **read)
    other = str(scans(tmp_path / "b" / "scans", kind, (0, 200)))
    for config, taken in (
        (RunConfig(model="x", data="own", **read), GREY),
        (RunConfig(model="x", data="own", masks_as="threshold"), Pixels(stored=(0, 4096))),
    ):
        foreign = uncertainty.load_foreign(other, own, config, taken)
        images = next(iter(foreign.batches))[0]
        np.testing.assert_allclose(images[0], next(iter(own.test))[0][0])
        assert images.numpy().max() > 0.99
    with pytest.raises(ValueError, match="must be a different data set"):
        uncertainty.load_foreign(f"{tmp_path}/b/../a/scans", own, config, taken)


def test_foreign_images_of_8_bits_do_not_test_a_model_of_16():
    own = training.Data(None, None, dataset(2), info("classification", input_shape=(8, 8, 1)))
    with pytest.raises(ValueError, match="takes 16-bit images.*'digits', whose images have 8 bits"):
        uncertainty.load_foreign("digits", own, HERE, Pixels(bits=16))


def test_blended_colours_stay_in_range():
    white, classes = np.ones((1, 10, 1), "float32"), np.arange(10)[None]
    shown = pictures.blend(white, classes, 10)
    assert shown.shape == (1, 10, 3) and shown.min() >= 0 and shown.max() <= 1
