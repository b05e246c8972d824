"""`Calibration`: the file that it is kept in, what it refuses, and what samplers make of it."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from _answers import RANDOM, answers
from dropzoo import layers, serving
from dropzoo.models import build_model


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
        assert "at most 10 % of images (133 held-out images)" in text and "with a confidence of 0.9" in text

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
        with pytest.warns(UserWarning, match="Calibrate again"):
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
                "50 images are left for it, so the lowest possible level is 0.0197",
            ),
            ({"guarantee": {"set": 0.02}}, "33 images are left for it, so the lowest possible level is 0.0295"),
            ({"guarantee": {"error": 0.02}}, "33 images are left for it, so the lowest possible level is 0.0674"),
            (
                {"guarantee": {"miss": 0.1}},
                "`miss` is not a guarantee for class labels. Choose from: set, error",
            ),
            ({"guarantee": {"interval": 0.1}}, "`interval` is not a guarantee"),
            ({"temperature": 1.5}, "`temperature` must be True, False or 'per_class'"),
            ({"temperature": "per class"}, "`temperature` must be"),
            ({"sites": "all"}, "`sites` must be one of 'as_is', 'search'"),
            ({"confidence": 1.0}, "`confidence` must be in"),
            ({"classes": [4]}, "`classes` must hold at least one number, each from 0 to 3"),
            ({"classes": []}, "`classes` must hold at least one number"),
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
                lambda x, y: (x, np.eye(3)[y % 3]),
                r"number of a class, of the shape \(images\). Received: the shape \(32, 3\)",
            ),
            (lambda x, y: (x, np.where(y == 0, np.nan, y)), "finite"),
            (lambda x, y: (x[y != 2], y[y != 2]), "none of class 2"),
            (lambda x, y: (tf.data.Dataset.from_tensor_slices((x, y)).batch(8), y), "leave `labels` out"),
            (lambda x, y: (tf.data.Dataset.from_tensor_slices(x).batch(8), None), r"batches \(images, labels\)"),
            (lambda x, y: (tf.data.Dataset.from_tensor_slices((x, y)).batch(8).repeat(), None), "must be finite"),
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
        with pytest.raises(ValueError, match="16 labels for an image, but the output has 64"):
            serving.calibrate(model, images, labels[:, :4, :4], verbose=0)
        with pytest.raises(
            ValueError, match="`set` is not a guarantee for masks. Choose from: miss, false, error"
        ):
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
        with pytest.raises(ValueError, match=r"images of class 1 are left.* lowest possible level is 0\.\d+"):
            serving.calibrate(model, images, labels, guarantee={"miss": 0.1}, verbose=0)

    def test_an_error_rate_that_no_threshold_keeps(self, identity):
        images, labels = answers(300)
        with pytest.raises(
            ValueError, match="cannot be guaranteed at the level 0.05.*lowest level for these 200 images"
        ):
            serving.calibrate(identity, images, (labels + 1) % 4, guarantee={"error": 0.05}, verbose=0)


class TestUse:
    """What was calibrated is what answers: `MonteCarlo` and `Ensemble` take a calibration."""

    @pytest.mark.costly(keep=0)
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
        assert any("Calibrate again" in str(each.message) for each in caught)

    def test_samples_of_an_ensemble(self, dropping, tmp_path):
        images, labels = answers(90)
        two = [dropping, keras.models.clone_model(dropping)]
        ensemble = serving.Ensemble(two, num_samples=6, sampling="fixed", seed=2)
        cal = serving.calibrate(ensemble, images, labels, guarantee={"set": 0.2}, verbose=0)
        assert (cal.facts.members, cal.facts.num_samples, cal.facts.sampling) == (2, 6, "fixed")
        assert cal.sites == pytest.approx({"first": 0.2, "second": 0.4}) and cal.temperature != 1
        cal.save(tmp_path / "calibration.json")
        cal = serving.Calibration.load(tmp_path / "calibration.json")
        served = serving.Ensemble(two, calibration=cal, seed=2)
        assert served.num_samples == 6 and served.sampling == "fixed"
        p = np.stack([outputs[0] for outputs in ensemble.each(images)])
        tempered = cal.temper(tf.constant(p))
        np.testing.assert_allclose(served(images)["mean"], tf.reduce_mean(tempered, 0), atol=1e-6)
        np.testing.assert_allclose(served.each(images)[4][0], tempered[4], atol=1e-6)
        assert served(images)["set"].shape == (90, 4)
        off = replace(cal, facts=replace(cal.facts, sampling=None, num_samples=2), sites={})
        for made_for, models, options, message in (
            (cal, two, {"num_samples": 8}, "number of samples: 6 in the calibration, 8 here"),
            (
                cal,
                two,
                {"num_samples": 6, "sampling": "independent"},
                "fixed in the calibration, independent here",
            ),
            (
                cal,
                [dropping] * 3,
                {},
                "number of members: 2 in the calibration, 3 here.*6 in the calibration, 3 here",
            ),
            (off, two, {"num_samples": 6}, "2 in the calibration, 6 here; sampling: None in the calibration"),
        ):
            with pytest.raises(ValueError, match=message):
                serving.Ensemble(models, calibration=made_for, **options)
        with pytest.raises(ValueError, match="number of samples: 6 in the calibration, 2 here; sampling: fixed"):
            cal.check(off.facts)

    def test_members_that_drop_differently_are_refused(self, dropping):
        images, labels = answers(60)
        other = keras.models.clone_model(dropping)
        other.get_layer("first_dropout").rate = 0.3
        ensemble = serving.Ensemble([dropping, other], num_samples=4)
        with pytest.raises(ValueError, match="same sites and rates for all members.*for number 2"):
            serving.calibrate(ensemble, images, labels, verbose=0)

    def test_what_does_not_fit_is_refused(self, dropping, identity):
        images, labels = answers(60)
        cal = serving.calibrate(serving.MonteCarlo(dropping, 5), images, labels, verbose=0)
        for options, message in (
            ({"num_samples": 7}, "made for num_samples=5"),
            ({"sites": {"first": True}}, "leave `sites` out"),
            ({"num_samples": "auto"}, "made for num_samples=5"),
            ({"sampling": "fixed"}, "made for sampling='balanced'"),
        ):
            with pytest.raises(ValueError, match=message):
                serving.MonteCarlo(dropping, calibration=cal, **options)
        one = serving.calibrate(identity, images, labels, verbose=0)
        with pytest.raises(ValueError, match="sites that are new here: first, second"):
            serving.MonteCarlo(dropping, calibration=one)
        plan = {"module1": 0.2}
        shape = {"input_shape": (8, 8, 1), "filters": (2,), "num_classes": 4}
        other = build_model("simple_cnn", dropout=plan, **shape)
        with pytest.raises(
            ValueError,
            match="made for another predictor .shape of the input.*missing here: first, second; sites that are "
            "new here: module1",
        ):
            serving.MonteCarlo(other, calibration=cal)
        with pytest.raises(ValueError, match="made for another predictor .*missing here: first, second"):
            serving.MonteCarlo(build_model("simple_cnn", **shape), calibration=cal)
        of_two = serving.calibrate(serving.Ensemble([dropping] * 2, num_samples=4), images, labels, verbose=0)
        with pytest.raises(ValueError, match="made for another predictor .*missing here: first, second"):
            serving.Ensemble([other] * 2, calibration=of_two)
        with pytest.raises(ValueError, match="already has a calibration"):
            serving.calibrate(serving.MonteCarlo(dropping, calibration=cal), images, labels, verbose=0)
        with pytest.raises(ValueError, match="a Calibration"):
            serving.MonteCarlo(dropping, calibration="calibration.json")

    @pytest.mark.costly(keep=0)
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
