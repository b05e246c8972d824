"""Calibration: test-time augmentation, masks within masks, few images, and progress bars that fill."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from _answers import answers
from dropzoo import serving
from dropzoo.serving.calibration.answers import WholeImage, by_size, reaches, within
from dropzoo.serving.calibration.fitting.forms import pairs_of
from dropzoo.serving.calibration.fitting.heldout import HeldOut
from dropzoo.serving.calibration.grids import probability_grid


class TestTestTimeAugmentation:
    def test_it_is_calibrated_like_an_ensemble(self, masks):
        model, images, labels = masks
        names = ("identity", "flip_horizontal", "rotate_90")
        cal = serving.calibrate(
            serving.TestTimeAugmentation(model, names), images, labels, guarantee={"miss": 0.2}, verbose=0
        )
        assert cal.facts.transforms == names and cal.facts.num_samples == 3
        out = serving.TestTimeAugmentation(model, names, calibration=cal)(images[:4])
        p = tf.nn.softmax(model(images[:4]) / cal.temperature)  # the model sees each pixel alone
        assert np.allclose(out["mean"], p, atol=1e-6) and out["outer"].shape == (4, 8, 8, 2)

    def test_other_transforms_are_refused(self, masks, tmp_path):
        model, images, labels = masks
        tta = serving.TestTimeAugmentation(model)
        cal = serving.calibrate(tta, images, labels, verbose=0)
        cal.save(tmp_path / "calibration.json")
        cal = serving.Calibration.load(tmp_path / "calibration.json")
        serving.TestTimeAugmentation(model, calibration=cal)
        for make in (
            lambda: serving.TestTimeAugmentation(model, ("identity", "flip_vertical"), calibration=cal),
            lambda: serving.Ensemble([model, model], calibration=cal),
        ):
            with pytest.raises(ValueError, match="transforms: .*flip_horizontal"):
                make()
        with pytest.raises(ValueError, match="test-time augmentation"):
            serving.calibrate(tta, images, labels, sites="search", verbose=0)


@pytest.mark.parametrize("shape", [(3, 9, 7, 2), (3, 5, 2), (3, 2)])
@pytest.mark.parametrize("floor", [1.0, 0.1])
def test_inner_masks_lie_in_outer_ones_at_a_threshold_of_the_grid(shape, floor):
    mean = np.random.default_rng(0).random(shape).astype("float32") ** 3
    outer = reaches(by_size(mean, [floor, 1.0]), thresholds := (0.2, 0.4)).numpy()
    share = WholeImage.of(tf.constant(mean), "multi_label").share
    inside = within(tf.constant(mean), [floor, 1.0], thresholds, share).numpy()
    assert not (inside & ~outer).any() and (outer & ~inside).sum() <= 0.1 * outer.sum()
    grid = probability_grid()
    for image, mask in zip(mean.reshape(3, -1, 2), inside.reshape(3, -1, 2), strict=True):
        for k in range(2):
            least = image[mask[:, k], k].min(initial=1.0)
            threshold = grid[np.searchsorted(grid, least, side="right") - 1]
            assert ((image[:, k] >= threshold) == mask[:, k]).all()


def test_one_image_is_too_few_to_fit_and_to_promise(identity):
    images, labels = answers(1)
    with pytest.raises(ValueError, match="Too few images for `error`.*the lowest possible level is 1"):
        serving.calibrate(identity, images, labels, guarantee={"error": 0.5}, verbose=0)
    two = HeldOut(pairs_of(*answers(2), 32), "multi_class", (None, 4))
    two.scan()
    assert [len(part) for part in two.split(1 / 3, 0)] == [1, 1]


def test_a_level_that_the_images_have_chosen_is_no_promise(identity):
    images, labels = answers(60)
    with pytest.raises(ValueError, match="it is not guaranteed: calibrate with other held-out images"):
        serving.calibrate(identity, images, (labels + 1) % 4, guarantee={"error": 0.1}, verbose=0)


@pytest.mark.parametrize(
    ("guarantee", "options"),
    [({}, {}), ({"set": 0.2}, {}), ({"set": 0.2}, {"temperature": False}), ({}, {"temperature": False})],
)
@pytest.mark.parametrize("copies", [1, 2])
def test_the_progress_bar_fills(identity, guarantee, options, copies, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, **_):
            bars.append([total, 0])

        def add(self, count):
            bars[-1][1] += count

    monkeypatch.setattr(keras.utils, "Progbar", Bar)
    images, labels = answers(40)
    images, labels = np.concatenate([images] * copies), np.concatenate([labels] * copies)
    serving.calibrate(identity, images, labels, guarantee=guarantee, verbose=1, **options)
    assert all(total == read for total, read in bars)
    x = keras.Input((2,))
    values = keras.Model(x, keras.layers.Identity()(x))
    values.compile(loss="mse")
    targets = np.random.default_rng(0).normal(size=(40, 2)).astype("float32")
    serving.calibrate(values, targets, targets + 1, guarantee={"interval": 0.2}, verbose=1)
    assert bars[-1][0] == bars[-1][1] > 0
