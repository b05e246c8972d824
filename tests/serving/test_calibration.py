"""`calibrate` and `Calibration`: what is fitted, what is promised, what is kept, and what is refused."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers, serving
from dropzoo.serving.calibration.answers import by_size
from dropzoo.serving.calibration.heldout import HeldOut
from dropzoo.serving.calibration.rows import Rows
from dropzoo.serving.calibration.settings import settings_of
from dropzoo.serving.calibration.temperature import fit_temperature, nll, temper

RANDOM = np.random.default_rng(0)


def answers(count, classes=4, sharpness=3.0, seed=0):
    """Logits that are `sharpness` times too large, as inputs, and labels that agree with the true ones."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(count, classes))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (p.cumsum(1) < random.random((count, 1))).sum(1).clip(0, classes - 1)
    return (sharpness * logits).astype("float32"), labels


@pytest.fixture(scope="module")
def identity():
    x = keras.Input((4,))
    return keras.Model(x, keras.layers.Identity(name="logits")(x))


@pytest.fixture(scope="module")
def dropping():
    """A small classifier with two sites, one of ours with a live rate and one of Keras."""
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    y = layers.Dropout(0.2, name="first_dropout")(keras.layers.Dense(8, name="first", activation="relu")(x))
    y = keras.layers.Dropout(0.4, name="second_dropout")(keras.layers.Dense(8, name="second")(y))
    return keras.Model(x, keras.layers.Dense(4, name="logits")(y))


@pytest.fixture(scope="module")
def masks():
    """A model of maps and images: the value of a pixel is its logit."""
    x = keras.Input((None, None, 2))
    model = keras.Model(x, keras.layers.Identity()(x))
    random = np.random.default_rng(1)
    labels = np.zeros((60, 8, 8), int)
    for each in labels:
        row, column = random.integers(0, 4, 2)
        each[row : row + 4, column : column + 4] = 1
    other = np.where(labels, 2.0, -2.0) + 1.5 * random.normal(size=labels.shape)
    return model, np.stack([np.zeros_like(other), other], -1).astype("float32"), labels


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
        heldout = HeldOut(images, labels, "multi_class", (None, 4), 32)
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
        images = 3 * RANDOM.normal(size=(120, 4)).astype("float32")
        labels = dropping.predict(images, verbose=0).argmax(1)
        mc = serving.MonteCarlo(dropping, 6)
        cal = serving.calibrate(mc, images, labels, sites="search", verbose=0)
        assert (
            cal.sites == {}
            and cal.facts.num_samples == 1
            and set(cal.figures) == {"one_pass", "one_pass_temperature"}
        )
        assert dropping.get_layer("first_dropout").rate == pytest.approx(0.2)

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
        with pytest.raises(ValueError, match="an ensemble"):
            serving.calibrate(serving.Ensemble([dropping] * 2), images, labels, sites="search", verbose=0)
        with pytest.raises(ValueError, match="at least 20 images"):
            serving.calibrate(dropping, images[:15], labels[:15], sites="search", verbose=0)


@pytest.fixture(scope="module")
def cal(identity):
    images, labels = answers(200)
    guarantee = {"set": 0.1, "error": 0.4}
    return serving.calibrate(
        identity, images, labels, temperature="per_class", guarantee=guarantee, data="answers", verbose=0
    )


class TestFile:
    def test_what_is_saved_is_loaded(self, cal, tmp_path):
        cal.save(tmp_path / "calibration.json")
        assert serving.Calibration.load(tmp_path / "calibration.json") == cal
        content = json.loads((tmp_path / "calibration.json").read_text())
        assert content["schema"] == 1 and content["data"] == "answers" and content["n"] == 200
        assert {"dropzoo", "keras", "tensorflow"} <= content["versions"].keys() and content["date"].startswith(
            "20"
        )
        assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]

    def test_it_reads_as_a_promise(self, cal):
        text = str(cal)
        assert "at most 0.1 of images (133 held-out images)" in text and "with a confidence of 0.9" in text

    def test_other_files_are_refused(self, cal, tmp_path):
        path = tmp_path / "calibration.json"
        for text in ("{}", "[]", "no json", '{"schema": 1}', '{"schema": 1, "temperature": 1, "more": 2}'):
            path.write_text(text)
            with pytest.raises(ValueError, match="Calibration.save wrote"):
                serving.Calibration.load(path)
        cal.save(path)
        path.write_text(path.read_text().replace('"schema": 1', '"schema": 7'))
        with pytest.raises(ValueError, match="schema 1; calibrate again"):
            serving.Calibration.load(path)

    def test_another_model_is_refused_with_the_difference(self, cal):
        other = replace(cal.facts, output_shape=(5,), sites={"head": "Dropout"})
        with pytest.raises(
            ValueError, match=r"\(4,\) in the calibration, \(5,\) here; sites that are new here: head"
        ):
            cal.check(other)
        with pytest.warns(UserWarning, match="calibrate again"):
            cal.check(replace(cal.facts, weights=1))
        cal.check(cal.facts)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"guarantee": {"sets": 0.1}}, "Unknown guarantee 'sets'. Did you mean 'set'"),
            ({"guarantee": {"set": 0.0}}, r"level of `set` must be in \(0, 1\)"),
            ({"guarantee": {"set": 1}}, r"level of `set` must be in \(0, 1\)"),
            (
                {"guarantee": {"set": 0.01}, "temperature": False},
                "with 50 held-out images the least level is 0.0197",
            ),
            ({"guarantee": {"set": 0.02}}, "with 33 held-out images the least level is 0.0295"),
            ({"guarantee": {"error": 0.02}}, "with 33 held-out images the least level is 0.0674"),
            (
                {"guarantee": {"miss": 0.1}},
                "`miss` is not a guarantee for multi_class images, which have: set, error",
            ),
            ({"guarantee": {"interval": 0.1}}, "`interval` is not a guarantee"),
            ({"temperature": 1.5}, "`temperature` must be True, False or 'per_class'"),
            ({"temperature": "per class"}, "`temperature` must be"),
            ({"sites": "all"}, "`sites` must be one of 'as_is', 'search'"),
            ({"confidence": 1.0}, "`confidence` must be in"),
            ({"classes": [4]}, "`classes` must be numbers from 0 to 3"),
            ({"classes": []}, "`classes` must be numbers"),
            ({"task": "binary"}, "task='binary' needs"),
            ({"batch_size": 0}, "`batch_size` must be a positive int"),
            ({"seed": -1}, "`seed` must be"),
        ],
    )
    def test_bad_options(self, identity, options, message):
        images, labels = answers(50)
        with pytest.raises(ValueError, match=message):
            serving.calibrate(identity, images, labels, verbose=0, **options)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda x, y: (x, None), "needs `labels`"),
            (lambda x, y: (x[:0], y[:0]), "held-out images. Received: none"),
            (lambda x, y: (x[:9], y), r"one label. Received: \[9\] images, 50 labels"),
            (lambda x, y: (x, np.where(np.arange(50) == 40, 4, y)), "from 0 to 3.*Received: 4 for image 40"),
            (lambda x, y: (x, y - 1), "Received: -1"),
            (lambda x, y: (x, y + 0.5), "whole numbers"),
            (
                lambda x, y: (x, np.eye(4)[y]),
                r"number of a class, of the shape \(images\). Received: the shape \(32, 4\)",
            ),
            (lambda x, y: (x, np.where(y == 0, np.nan, y)), "finite"),
            (lambda x, y: (x[y != 2], y[y != 2]), "none of class 2"),
            (lambda x, y: (tf.data.Dataset.from_tensor_slices((x, y)).batch(8), y), "leave `labels` out"),
            (lambda x, y: (tf.data.Dataset.from_tensor_slices(x).batch(8), None), r"batches \(images, labels\)"),
            (lambda x, y: (tf.data.Dataset.from_tensor_slices((x, y)).batch(8).repeat(), None), "must end"),
        ],
    )
    def test_bad_images_and_labels(self, identity, change, message):
        images, labels = change(*answers(50))
        with pytest.raises(ValueError, match=message):
            serving.calibrate(identity, images, labels, guarantee={"set": 0.2}, verbose=0)

    def test_a_class_can_be_left_out(self, identity):
        images, labels = answers(60)
        images, labels = images[labels != 2], labels[labels != 2]
        serving.calibrate(identity, images, labels, guarantee={"set": 0.2}, classes=[0, 1, 3], verbose=0)

    def test_masks_of_another_size_and_unknown_predictors(self, masks, identity, dropping):
        model, images, labels = masks
        with pytest.raises(ValueError, match="16 labels for an image whose answer has 64"):
            serving.calibrate(model, images, labels[:, :4, :4], verbose=0)
        with pytest.raises(ValueError, match="`set` is not a guarantee for masks, which have: miss, false, error"):
            serving.calibrate(model, images, labels, guarantee={"set": 0.1}, verbose=0)
        for predictor, message in (
            ("model", "must be a model"),
            (serving.MonteCarlo(dropping, "auto"), "fixed number"),
        ):
            with pytest.raises(ValueError, match=message):
                serving.calibrate(predictor, *answers(50), verbose=0)

    def test_a_class_in_too_few_images(self, masks):
        model, images, labels = masks
        labels = np.where(np.arange(60)[:, None, None] < 55, 0, labels)
        with pytest.raises(ValueError, match=r"images of class 1 the least level is 0\.\d+"):
            serving.calibrate(model, images, labels, guarantee={"miss": 0.1}, verbose=0)

    def test_an_error_rate_that_no_threshold_keeps(self, identity):
        images, labels = answers(300)
        with pytest.raises(
            ValueError, match="cannot be promised at the level 0.05.*least level for these 200 images"
        ):
            serving.calibrate(identity, images, (labels + 1) % 4, guarantee={"error": 0.05}, verbose=0)


class TestUse:
    """What was calibrated is what answers: `MonteCarlo` and `Ensemble` take a calibration."""

    def test_monte_carlo_samples_as_it_was_calibrated(self, dropping):
        images, _ = answers(120)
        labels = dropping(images).numpy().argmax(1)
        mc = serving.MonteCarlo(dropping, 5, sites={"second": 0.3}, sampling="fixed", seed=3)
        cal = serving.calibrate(mc, images, labels, guarantee={"set": 0.2, "error": 0.6}, verbose=0)
        assert cal.sites == {"second": 0.3} and cal.facts.sampling == "fixed" and cal.facts.num_samples == 5
        served = serving.MonteCarlo(dropping, calibration=cal, seed=3)
        out = served(images)
        assert served.num_samples == 5 and served.sampling == "fixed"
        samples = serving.MonteCarlo(dropping, 5, "fixed", {"second": 0.3}, 3, return_samples=True)(images)[
            "samples"
        ]
        expected = cal.apply({"mean": tf.reduce_mean(cal.temper(samples), 1)})
        assert np.allclose(out["mean"], expected["mean"], atol=1e-6)
        assert (out["set"].numpy() == expected["set"].numpy()).mean() > 0.99
        assert {"set", "defer", "variance", "mutual_information"} <= out.keys()
        assert (out["mutual_information"].numpy() <= out["predictive_entropy"].numpy()).all()
        again = served(images)
        assert all((out[name].numpy() == again[name].numpy()).all() for name in out)

    def test_one_pass(self, dropping, identity):
        images, labels = answers(90)
        for model in (dropping, identity):
            cal = serving.calibrate(model, images, labels, guarantee={"set": 0.2}, verbose=0)
            out = serving.MonteCarlo(model, calibration=cal)(images)
            alike = serving.Ensemble([model], calibration=cal)(images)
            logits = model(images)
            assert np.allclose(out["mean"], tf.nn.softmax(logits / cal.temperature), atol=1e-6)
            assert np.allclose(out["mean"], alike["mean"], atol=1e-6) and not out["variance"].numpy().any()
            assert (out["set"].numpy() == alike["set"].numpy()).all()

    def test_an_ensemble(self, dropping):
        images, labels = answers(90)
        other = keras.models.clone_model(dropping)
        cal = serving.calibrate(serving.Ensemble([dropping, other]), images, labels, verbose=0)
        out = serving.Ensemble([dropping, other], calibration=cal)(images)
        members = [tf.nn.softmax(m(images) / cal.temperature) for m in (dropping, other)]
        assert np.allclose(out["mean"], (members[0] + members[1]) / 2, atol=1e-6) and cal.facts.members == 2
        for wrong in ([dropping], [dropping, other, other]):
            with pytest.raises(ValueError, match="number of members: 2 in the calibration"):
                serving.Ensemble(wrong, calibration=cal)
        with pytest.warns((UserWarning, DeprecationWarning)) as caught:  # NumPy warns of TensorFlow too
            serving.Ensemble([other, dropping], calibration=cal)
        assert any("calibrate again" in str(each.message) for each in caught)

    def test_what_does_not_fit_is_refused(self, dropping, identity):
        images, labels = answers(60)
        cal = serving.calibrate(serving.MonteCarlo(dropping, 5), images, labels, verbose=0)
        for options, message in (
            ({"num_samples": 7}, "made for num_samples=5"),
            ({"sites": {"first": True}}, "leave `sites` out"),
            ({"num_samples": "auto"}, "made for num_samples=5"),
        ):
            with pytest.raises(ValueError, match=message):
                serving.MonteCarlo(dropping, calibration=cal, **options)
        one = serving.calibrate(identity, images, labels, verbose=0)
        with pytest.raises(ValueError, match="sites that are new here: first, second"):
            serving.MonteCarlo(dropping, calibration=one)
        with pytest.raises(ValueError, match="without its calibration"):
            serving.calibrate(serving.MonteCarlo(dropping, calibration=cal), images, labels, verbose=0)
        with pytest.raises(ValueError, match="a Calibration"):
            serving.MonteCarlo(dropping, calibration="calibration.json")

    def test_tiles_have_the_answers_too(self):
        x = keras.Input((None, None, 2))
        y = layers.SpatialDropout2D(0.2, name="x_dropout")(keras.layers.Identity(name="x")(x))
        model = keras.Model(x, keras.layers.Conv2D(2, 1)(y))
        images = RANDOM.normal(size=(40, 8, 8, 2)).astype("float32")
        labels = (images[..., 1] > images[..., 0]).astype(int)
        mc = serving.MonteCarlo(model, 3, sampling="fixed")
        cal = serving.calibrate(mc, images, labels, guarantee={"miss": 0.2, "false": 0.9}, verbose=0)
        whole = serving.MonteCarlo(model, calibration=cal)(images[:1])
        tiled = serving.predict_tiled(serving.MonteCarlo(model, calibration=cal), images[0], tile=4, overlap=0)
        assert np.allclose(tiled["mean"], whole["mean"][0], atol=1e-5)
        assert tiled["outer"].shape == tiled["inner"].shape == (8, 8, 2)
        assert (tiled["outer"] == whole["outer"][0].numpy()).mean() > 0.98

    def test_several_inputs_and_several_outputs(self):
        a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
        model = keras.Model([a, b], keras.layers.Add(name="sum")([a, b]))
        inputs = {"a": RANDOM.normal(size=(60, 2)).astype("float32"), "b": np.zeros((60, 2), "float32")}
        cal = serving.calibrate(model, inputs, inputs["a"].argmax(1), guarantee={"set": 0.2}, verbose=0)
        assert serving.MonteCarlo(model, calibration=cal)(inputs)["set"].shape == (60, 2)
        two = keras.Model([a, b], [model.output, keras.layers.Dense(1)(a)])
        with pytest.raises(ValueError, match="one output"):
            serving.calibrate(two, inputs, inputs["a"].argmax(1), verbose=0)
