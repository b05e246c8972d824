"""Exports that answer by a calibration, and exports of ensembles: what they serve is what Python answers."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from _answers import answers
from dropzoo import serving


def small(classes=3, task=None):
    """A classifier or a regression of four numbers, with dropout."""
    x = keras.Input((4,), name="images")
    y = keras.layers.Dropout(0.4, name="wide_dropout")(keras.layers.Dense(8, "relu", name="wide")(x))
    model = keras.Model(x, keras.layers.Dense(classes, name="logits")(y))
    model.compile(loss=task or keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def maps():
    """A model of maps with dropout; the value of a pixel is its logit."""
    x = keras.Input((None, None, 1), name="images")
    y = keras.layers.SpatialDropout2D(0.3, name="wide_dropout")(keras.layers.Conv2D(4, 1, name="wide")(x))
    return keras.Model(x, keras.layers.Conv2D(2, 1)(y))


def data_of(kind, model=None):
    """Images and labels; those of a classifier are mostly what it says."""
    if kind == "masks":
        labels = np.zeros((60, 8, 8), int)
        labels[:, 2:6, 1:7] = 1
        return np.random.default_rng(0).normal(labels)[..., None].astype("float32"), labels
    x, labels = answers(90, classes=3)
    x = np.concatenate([x, x[:, :1]], 1)
    if kind == "values":
        return x, x[:, :2]
    return x, labels if model is None else np.where(labels == 0, 0, model(x).numpy().argmax(1))


# The model, what is calibrated, its data, its guarantees, and the answers that are added.
SHAPES = {
    "samples": (
        small,
        lambda m: serving.MonteCarlo(m, 5),
        "classes",
        {"set": 0.2, "error": 0.9},
        {"set", "defer"},
    ),
    "one pass": (small, lambda m: m, "classes", {"set": 0.2, "error": 0.9}, {"set", "defer"}),
    "an ensemble": (small, lambda m: serving.Ensemble([m, small()]), "classes", {"set": 0.2}, {"set"}),
    "samples of an ensemble": (
        small,
        lambda m: serving.Ensemble([m, small()], num_samples=6),
        "classes",
        {"set": 0.2},
        {"set"},
    ),
    "masks": (
        maps,
        lambda m: serving.MonteCarlo(m, 3),
        "masks",
        {"miss": 0.2, "false": 0.9, "error": 0.9},
        {"outer", "inner", "defer"},
    ),
    "values": (
        lambda: small(2, "mse"),
        lambda m: serving.MonteCarlo(m, 4),
        "values",
        {"interval": 0.2},
        {"lower", "upper"},
    ),
}


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_served_is_what_was_calibrated(shape, tmp_path):
    build, predictor_of, kind, guarantee, added = SHAPES[shape]
    model = build()
    predictor = predictor_of(model)
    images, labels = data_of(kind, model)
    cal = serving.calibrate(predictor, images, labels, guarantee=guarantee, data="held out", verbose=0)
    members = getattr(predictor, "models", [model])
    if len(members) > 1:
        exported, offline = predictor, serving.Ensemble(members, calibration=cal)
    else:
        exported, offline = model, serving.MonteCarlo(model, calibration=cal)
    path = serving.export_model(exported, tmp_path / "m", calibration=cal, input_range=None)
    signatures = (loaded := tf.saved_model.load(str(path))).signatures
    served, expected = signatures["predict_mc"](images=tf.constant(images[:9])), offline(images[:9])
    assert loaded is not None and served.keys() == expected.keys() and added <= served.keys()
    for name, value in expected.items():
        assert (served[name].numpy() == value.numpy()).all(), name
    once = signatures["serving_default"](images=tf.constant(images[:9]))
    assert added <= once.keys() if not cal.sites else not added & once.keys()
    if not cal.sites and kind != "values":
        assert (once["probabilities"].numpy() == expected["mean"].numpy()).all()

    extra = path / "assets.extra"
    assert serving.Calibration.load(extra / "calibration.json") == cal
    info, card = (json.loads((extra / f"{name}.json").read_text()) for name in ("info", "model_card"))
    assert info["calibration"] == card["calibration"] and info["members"] == len(members)
    told = info["calibration"]
    assert (told["data"], told["n"], told["date"]) == ("held out", len(images), cal.date)
    assert {name: each["level"] for name, each in told["guarantees"].items()} == guarantee
    assert all(each["words"] in (extra / "model_card.md").read_text() for each in told["guarantees"].values())


def test_masks_are_resized_with_the_images_and_deferrals_are_not(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 1), name="images"), keras.layers.Conv2D(2, 1)])
    images, labels = data_of("masks")
    cal = serving.calibrate(model, images, labels, guarantee={"miss": 0.2, "error": 0.9}, verbose=0)
    path = serving.export_model(model, tmp_path / "m", calibration=cal, resize=8)
    loaded = tf.saved_model.load(str(path))
    answer = loaded.signatures["serving_default"](images=tf.image.resize(images[:2], (16, 24)))
    assert answer["outer"].shape == (2, 16, 24, 2) and answer["outer"].dtype == tf.bool
    assert answer["defer"].shape == (2,)


@pytest.mark.parametrize("drops", [{}, {"num_samples": 4, "sampling": "fixed", "seed": 5}], ids=["off", "on"])
def test_an_ensemble_without_calibration(drops, tmp_path):
    members = [small(), small()]
    ensemble, plain = serving.Ensemble(members, **drops), serving.Ensemble(members)
    path = serving.export_model(ensemble, tmp_path / "m")
    loaded = tf.saved_model.load(str(path))
    x = tf.constant(data_of("classes")[0][:7])
    served = loaded.signatures["predict_mc"](images=x)
    for name, value in ensemble(x).items():
        assert np.allclose(served[name], value, atol=1e-6, rtol=0)
    expected = plain(x)
    assert np.allclose(
        loaded.signatures["serving_default"](images=x)["probabilities"], expected["mean"], atol=1e-6
    )
    info, card = (json.loads((path / "assets.extra" / f"{n}.json").read_text()) for n in ("info", "model_card"))
    assert (info["members"], info["num_samples"]) == (2, ensemble.num_samples) and card["members"] == 2
    told = {"num_samples": 4, "members": 2, "samples_of_each": 2, "sampling": "fixed", "seed": 5} if drops else {}
    assert card["monte_carlo"] == told
    assert sorted(p.name for p in (path / "assets.extra").glob("member*")) == ["member1.keras", "member2.keras"]
    again = serving.Ensemble([path / "assets.extra" / f"member{i}.keras" for i in (1, 2)])
    assert np.allclose(again(x)["mean"], expected["mean"], atol=1e-6)
    only = serving.export_model(ensemble, tmp_path / "m", 0)
    assert list(tf.saved_model.load(str(only)).signatures) == ["serving_default"]


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path):
    model, (x, y) = small(), data_of("classes")
    cal = serving.calibrate(serving.MonteCarlo(model, 4), x, y, verbose=0)
    ensemble, samples = serving.Ensemble([model, small()]), serving.Ensemble([model] * 2, num_samples=4)
    of_members = serving.calibrate(serving.Ensemble([model] * 2), x, y, verbose=0)
    of_samples = serving.calibrate(samples, x, y, verbose=0)
    refused = [
        (model, {"calibration": cal, "num_samples": 5}, "made for num_samples=4"),
        (model, {"calibration": cal, "num_samples": 0}, "made for num_samples=4"),
        (model, {"calibration": cal, "sampling": "independent"}, "made for sampling='balanced'"),
        (model, {"calibration": "calibration.json"}, "a Calibration"),
        (small(4), {"calibration": cal}, "another predictor"),
        (serving.MonteCarlo(model), {}, "takes the model of a MonteCarlo: pass `mc.model`"),
        (
            serving.TestTimeAugmentation(maps()),
            {},
            "takes a keras.Model or an Ensemble. The transforms of test-time",
        ),
        (model, {"calibration": cal, "card": {"calibration": "mine"}}, "fills in itself"),
        (ensemble, {"calibration": cal}, "number of members"),
        (ensemble, {"num_samples": 7}, "are its 2 members"),
        (ensemble, {"task": "binary"}, "The meaning of the outputs is set in the ensemble"),
        (ensemble, {"sampling": "balanced"}, "sampling and the seed of an ensemble are set in the ensemble"),
        (ensemble, {"seed": 7}, "sampling and the seed of an ensemble are set in the ensemble"),
        (samples, {"num_samples": 7}, "The samples of an ensemble are set in the ensemble"),
        (samples, {"calibration": of_members}, "sampling: None in the calibration, balanced here"),
        (serving.Ensemble([model] * 2, calibration=of_samples), {"num_samples": 0}, "made for num_samples=4"),
    ]
    for what, options, message in refused:
        with pytest.raises(ValueError, match=message):
            serving.export_model(what, tmp_path / "m", **options)
    other = serving.Ensemble([model], calibration=serving.calibrate(model, x, y, verbose=0))
    with pytest.raises(ValueError, match="a different calibration"):
        serving.export_model(other, tmp_path / "m", calibration=replace(other.calibration, data="other"))
    assert not (tmp_path / "m").exists()
