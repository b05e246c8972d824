"""`calibrate` and `Calibration`: what is fitted, what is promised, what is kept, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from _answers import RANDOM, answers
from dropzoo import layers, serving
from dropzoo.serving.calibration.answers import by_size
from dropzoo.serving.calibration.fitting.forms import pairs_of
from dropzoo.serving.calibration.fitting.heldout import HeldOut
from dropzoo.serving.calibration.fitting.rows import Rows
from dropzoo.serving.calibration.fitting.settings import settings_of
from dropzoo.serving.calibration.temperature import fit_temperature, mean_at, nll, temper


class TestTemperature:
    def test_it_finds_the_temperature_that_was_hidden(self, identity):
        images, labels = answers(4000)
        cal = serving.calibrate(identity, images, labels, verbose=0)
        assert cal.temperature == pytest.approx(3.0, rel=0.1)
        before, after = cal.figures["one_pass"], cal.figures["one_pass_temperature"]
        assert after["nll"] < before["nll"] and after["ece"] < 0.3 * before["ece"]
        assert after["accuracy"] == before["accuracy"]

    def test_each_class_can_have_its_own(self, identity):
        images, labels = answers(3000)
        one = serving.calibrate(identity, images, labels, verbose=0)
        each = serving.calibrate(identity, images, labels, temperature="per_class", verbose=0)
        assert len(each.temperature) == 4 and np.allclose(each.temperature, 3.0, rtol=0.25)
        assert each.figures["one_pass_temperature"]["nll"] <= one.figures["one_pass_temperature"]["nll"] + 1e-6

    def test_samples_are_tempered_one_by_one(self):
        """So the mutual information stays within the entropy, and logits are divided by the temperature."""
        logits = tf.constant(RANDOM.normal(size=(5, 3, 4)), tf.float32)
        assert np.allclose(
            temper(tf.nn.softmax(logits), 2.5, "multi_class"), tf.nn.softmax(logits / 2.5), atol=1e-6
        )
        assert np.allclose(temper(tf.sigmoid(logits), 2.5, "multi_label"), tf.sigmoid(logits / 2.5), atol=1e-6)
        assert np.allclose(
            temper(tf.sigmoid(logits[..., :1]), 0.5, "binary"), tf.sigmoid(logits[..., :1] / 0.5), atol=1e-6
        )
        values = temper(logits, 2.0, "regression")
        assert values is logits

    def test_certain_probabilities_stay_finite(self):
        p = np.array([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]], "float32")
        for kind in ("multi_class", "multi_label"):
            assert np.isfinite(temper(tf.constant(p), 3.0, kind)).all()
        labels = np.array([0, 2])
        assert np.isfinite(nll(p, labels, "multi_class", fit_temperature(p, labels, "multi_class")))

    @pytest.mark.parametrize("kind", ["multi_class", "binary"])
    def test_few_rows_that_are_all_right_are_not_endless_certainty(self, kind):
        """30 right of 30 are as certain as 31 right of 32, whatever the samples say."""
        logits = RANDOM.normal(3.0, 1.0, (30, 20, 1)).astype("float32")
        p = tf.sigmoid(tf.concat([-logits, logits], -1) if kind == "multi_class" else logits).numpy()
        labels = np.ones(30, int)
        p = p / p.sum(-1, keepdims=True) if kind == "multi_class" else p
        found = fit_temperature(p, labels, kind)
        assert mean_at(p, kind, found)[:, -1].mean() == pytest.approx(31 / 32, abs=0.01)

    def test_none_is_fitted_if_none_is_asked(self, identity):
        images, labels = answers(60)
        cal = serving.calibrate(identity, images, labels, temperature=False, guarantee={"set": 0.1}, verbose=0)
        assert cal.temperature == 1.0 and cal.guarantees["set"].n == (60,)


class TestGuarantees:
    """New images from the same source: the risk is near the level, and never far above it."""

    @pytest.mark.parametrize("level", [0.05, 0.2])
    def test_sets(self, identity, level):
        images, labels = answers(900)
        cal = serving.calibrate(identity, images, labels, guarantee={"set": level}, verbose=0)
        new, truth = answers(4000, seed=9)
        out = cal.apply({"mean": cal.temper(tf.nn.softmax(new))})
        missed = 1 - out["set"].numpy()[np.arange(len(truth)), truth].mean()
        assert missed == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 600))
        assert out["set"].dtype == tf.bool and out["set"].numpy().any(1).mean() > 0.9

    def test_deferral(self, identity):
        images, labels = answers(1500)
        cal = serving.calibrate(identity, images, labels, guarantee={"error": 0.1}, verbose=0)
        new, truth = answers(4000, seed=9)
        out = cal.apply({"mean": cal.temper(tf.nn.softmax(new))})
        kept = ~out["defer"].numpy()
        wrong = new.argmax(1) != truth
        assert wrong.mean() > 0.2 and kept.mean() > 0.15
        assert 0.05 < wrong[kept].mean() < 0.13 and cal.guarantees["error"].confidence == 0.9
        assert cal.guarantees["error"].figures["kept"] == pytest.approx(kept.mean(), abs=0.06)

    def test_masks(self, masks):
        model, images, labels = masks
        cal = serving.calibrate(
            model, images[:50], labels[:50], temperature=False, guarantee={"miss": 0.1, "false": 0.1}, verbose=0
        )
        out = cal.apply({"mean": tf.nn.softmax(images)})
        inner, outer = out["inner"].numpy()[..., 1], out["outer"].numpy()[..., 1]
        assert inner.shape == labels.shape and (inner <= outer).all()
        missed = ((labels == 1) & ~outer).sum((1, 2)) / labels.sum((1, 2))
        false = ((labels == 0) & inner).sum((1, 2)) / np.maximum(inner.sum((1, 2)), 1)
        assert 0.04 < missed.mean() <= 0.11 and 0.01 < false.mean() <= 0.11
        assert cal.guarantees["miss"].classes == (0, 1) and cal.guarantees["miss"].n == (33, 33)

    def test_one_class_only(self, masks):
        model, images, labels = masks
        cal = serving.calibrate(model, images, labels, guarantee={"miss": 0.1}, classes=[1], verbose=0)
        out = cal.apply({"mean": tf.nn.softmax(images)})["outer"].numpy()
        assert out[..., 1].any() and not out[..., 0].any()

    def test_outer_masks_of_small_objects_have_a_lower_threshold(self):
        """A pixel of a small object is a larger share of what can be missed; an empty image gains nothing."""
        p = np.full((3, 8, 8, 1), 1e-4, "float32")
        p[0, :2, :2], p[1, :6, :6] = 0.5, 0.5
        small, large, empty = by_size(tf.constant(p), [4 / 64]).numpy().reshape(3, -1).max(1)
        assert small > 4 * large and empty == pytest.approx(1e-4) and small <= 0.5
        assert (by_size(tf.constant(p), [1.0]).numpy() == p).all()

    def test_masks_of_one_logit(self, masks):
        _, images, labels = masks
        x = keras.Input((8, 8, 1))
        model = keras.Model(x, keras.layers.Identity()(x))
        guarantee = {"miss": 0.1, "false": 0.1, "error": 0.2}
        cal = serving.calibrate(
            model, images[..., 1:], labels[..., None], guarantee=guarantee, task="binary", verbose=0
        )
        out = cal.apply({"mean": tf.sigmoid(images[..., 1:])})
        assert out["inner"].shape == out["outer"].shape == (60, 8, 8, 1) and out["defer"].shape == (60,)

    def test_labels(self):
        x = keras.Input((3,))
        model = keras.Model(x, keras.layers.Identity()(x))
        images = RANDOM.normal(size=(300, 3)).astype("float32") * 2
        labels = (RANDOM.random((300, 3)) < 1 / (1 + np.exp(-images))).astype(int)
        cal = serving.calibrate(model, images, labels, guarantee={"miss": 0.1}, task="multi_label", verbose=0)
        out = cal.apply({"mean": cal.temper(tf.sigmoid(images))})["outer"].numpy()
        assert ((labels == 1) & ~out).sum() / labels.sum() == pytest.approx(0.1, abs=0.06)

    @pytest.mark.parametrize("shape", [(2,), (6, 5, 1)])
    def test_intervals(self, shape):
        x = keras.Input(shape)
        model = keras.Model(x, keras.layers.Identity()(x))
        images = RANDOM.normal(size=(400, *shape)).astype("float32")
        labels = images + 0.5 * RANDOM.normal(size=images.shape)
        cal = serving.calibrate(
            model, images[:300], labels[:300], guarantee={"interval": 0.1}, task="regression", verbose=0
        )
        out = cal.apply({"mean": images, "variance": np.zeros_like(images)})
        outside = (labels < out["lower"].numpy()) | (labels > out["upper"].numpy())
        assert outside.mean() == pytest.approx(0.1, abs=0.05) and cal.temperature == 1.0
        assert (out["upper"] - out["lower"]).numpy().mean() == pytest.approx(2 * 1.645 * 0.5, rel=0.15)

    def test_intervals_follow_the_spread_of_the_samples(self):
        """Where the members of an ensemble disagree, the intervals are longer."""
        members = []
        for sign in (1.0, -1.0):
            x = keras.Input((1,))
            members.append(keras.Model(x, keras.layers.Lambda(lambda v, s=sign: v + s * tf.nn.relu(v))(x)))
        images = RANDOM.uniform(-3, 3, (300, 1)).astype("float32")
        labels = images + (0.05 + np.maximum(images, 0)) * RANDOM.normal(size=images.shape)
        ensemble = serving.Ensemble(members, task="regression")
        cal = serving.calibrate(ensemble, images, labels, guarantee={"interval": 0.1}, verbose=0)
        out = cal.apply(ensemble(np.float32([[-2.0], [2.0]])))
        short, long = (out["upper"] - out["lower"]).numpy().ravel()
        assert long > 3 * short

    def test_the_answers_are_pure_tensorflow(self, identity):
        images, labels = answers(300)
        cal = serving.calibrate(identity, images, labels, guarantee={"set": 0.1, "error": 0.2}, verbose=0)
        new, _ = answers(300, seed=5)  # a held-out image lies exactly on a threshold
        out = tf.function(lambda p: cal.apply({"mean": cal.temper(p)}), autograph=False)(tf.nn.softmax(new))
        eager = cal.apply({"mean": cal.temper(tf.nn.softmax(new))})
        assert all((out[name].numpy() == eager[name].numpy()).all() for name in ("set", "defer"))


class TestHeldOutImages:
    def test_a_dataset_gives_what_arrays_give_in_any_order(self, identity):
        images, labels = answers(200)
        expected = serving.calibrate(identity, images, labels, guarantee={"set": 0.1}, verbose=0)
        pairs = tf.data.Dataset.from_tensor_slices((images, labels))
        for data in (pairs.batch(7), pairs.shuffle(200).batch(64)):
            found = serving.calibrate(identity, data, guarantee={"set": 0.1}, verbose=0)
            assert found.temperature == pytest.approx(expected.temperature, rel=1e-3)
            assert found.guarantees["set"].n == expected.guarantees["set"].n
            assert found.guarantees["set"].thresholds[0] == pytest.approx(
                expected.guarantees["set"].thresholds[0], rel=1e-2
            )

    def test_images_that_fit_are_not_those_that_promise(self, identity):
        """A third fits the temperature, the others promise, and copies of an image stay together."""
        images, labels = answers(90)
        images[1::2] = images[::2]
        heldout = HeldOut(pairs_of(images, labels, 32), "multi_class", (None, 4))
        heldout.scan()
        first, then = heldout.split(1 / 3, 0)
        assert not first & then and heldout.count(first) + heldout.count(then) == 90 and heldout.count(first) == 30

    def test_what_is_kept_is_bounded(self):
        rows = Rows(samples=2, classes=64)
        for key in range(300):
            rows.add(np.array([key], np.uint64), np.ones((1, 2, 1000, 64), "float32"), np.zeros((1, 1000), int))
        keys, kept, labels = rows.arrays()
        assert len(keys) == len(labels) <= 1 << 15 and kept.shape[1:] == (2, 64) and len(np.unique(keys)) > 290

    def test_augmented_images_are_refused(self, identity):
        images, labels = answers(60)
        random = np.random.default_rng(0)

        def augmented():
            yield from zip(images + random.normal(size=images.shape).astype("float32"), labels, strict=True)

        pairs = tf.data.Dataset.from_generator(
            augmented, output_types=(tf.float32, tf.int64), output_shapes=([4], [])
        )
        with pytest.raises(ValueError, match="same images each time"):
            serving.calibrate(identity, pairs.batch(8), verbose=0)


class TestSearch:
    def test_settings_are_many_and_differ(self):
        for rates in ([0.5], [0.2, 0.4], [0.1, 0.2, 0.3], [0.1] * 12):
            settings = settings_of(rates)
            assert 1 < len(settings) <= 200 and len(np.unique(settings, axis=0)) == len(settings)
            assert np.allclose(settings[0], rates) and settings.any(1).all() and settings.max() < 1

    def test_it_is_never_worse_than_one_pass(self, dropping):
        """The labels follow one pass of the model, so noise in its answers can only hurt."""
        images = 3 * np.random.default_rng(0).normal(size=(120, 4)).astype("float32")
        labels = dropping(images).numpy().argmax(1)
        mc = serving.MonteCarlo(dropping, 6)
        cal = serving.calibrate(mc, images, labels, sites="search", verbose=0)
        assert (
            cal.sites == {}
            and cal.facts.num_samples == 1
            and set(cal.figures) == {"one_pass", "one_pass_temperature"}
        )
        assert dropping.get_layer("first_dropout").rate == pytest.approx(0.2)

    @pytest.mark.costly(keep=0)
    def test_it_finds_noise_that_helps(self):
        """One pass is sure and often wrong where a unit is on; dropping that unit says so."""
        x = keras.Input((3,))
        y = layers.Dropout(0.5, name="x_dropout")(keras.layers.Identity(name="x")(x))
        model = keras.Model(
            x, keras.layers.Lambda(lambda v: tf.concat([v[:, :1] + v[:, 2:], v[:, 1:2] + v[:, 2:]], -1))(y)
        )
        random = np.random.default_rng(0)
        truth = random.integers(0, 2, 240)
        noisy = random.random(240) < 0.5
        images = np.zeros((240, 3), "float32")
        images[np.arange(240), np.where(noisy, random.integers(0, 2, 240), truth)] = np.where(noisy, 4.0, 5.0)
        images[:, 2] = random.normal(size=240)
        cal = serving.calibrate(model, images, truth, sites="search", temperature=False, verbose=0)
        assert cal.sites and cal.figures["samples"]["nll"] < cal.figures["one_pass"]["nll"]

    def test_what_it_needs(self, identity, dropping):
        images, labels = answers(30)
        with pytest.raises(ValueError, match="retrofit"):
            serving.calibrate(identity, images, labels, sites="search", verbose=0)
        for members, drops in ((2, {}), (2, {"num_samples": 4}), (1, {"num_samples": 4})):
            ensemble = serving.Ensemble([dropping] * members, **drops)
            with pytest.raises(ValueError, match="an ensemble"):
                serving.calibrate(ensemble, images, labels, sites="search", verbose=0)
        with pytest.raises(ValueError, match="at least 20 images"):
            serving.calibrate(dropping, images[:15], labels[:15], sites="search", verbose=0)
        with pytest.raises(ValueError, match="Received: a regression model. Pass sites='as_is'"):
            serving.calibrate(dropping, images, images[:, :2], sites="search", task="regression", verbose=0)
