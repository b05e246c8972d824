"""The reference weights of the repository: by name, by file, and what is refused."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import models, training
from dropzoo.models.reference import FOLDER
from dropzoo.runs.evaluation import evaluate


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*/reference.json")), ids=lambda path: path.parent.name)
def test_reference_is_complete_and_small(path):
    told = json.loads(path.read_text())
    model = models.build_model(told["model"], weights=told["weights"], dropout=told["dropout"])
    original = keras.models.load_model(path.with_name("model.keras"))
    x = np.random.default_rng(0).random((2, *(n or 32 for n in model.input_shape[1:])), "float32")
    np.testing.assert_array_equal(model(x), original(x))
    exported = keras.models.load_model(path.parent / "1" / "assets.extra" / "model.keras")
    np.testing.assert_array_equal(exported(x), original(x))
    served = tf.saved_model.load(str(path.parent / "1")).signatures
    probabilities = served["serving_default"](images=tf.constant(x))["probabilities"]
    np.testing.assert_allclose(probabilities, tf.nn.softmax(original(x)), atol=1e-5)
    assert set(served["predict_mc"](images=tf.constant(x))) >= {"mean", "variance"}
    card = json.loads((path.parent / "1" / "assets.extra" / "model_card.json").read_text())
    assert card["metrics"]["one pass"]["accuracy"] > 0.8 and path.parent.name in card["command"]
    for file in path.parent.rglob("*"):
        assert file.is_dir() or file.stat().st_size < 5e6, file


def test_reference_scores_what_its_card_says():
    data = training.load_data("digits")
    found = evaluate(models.build_model("simple_cnn", weights="digits"), data.test, data.info)
    card = json.loads((FOLDER / "digits_cnn" / "1" / "assets.extra" / "model_card.json").read_text())
    assert found["accuracy"] == pytest.approx(card["metrics"]["one pass"]["accuracy"], abs=1e-3)


def test_weights_from_a_file_and_other_plans(tmp_path):
    options = {"input_shape": (8, 8, 1), "filters": (4,), "dense": 8}
    model = models.build_model("simple_cnn", **options)
    model.save_weights(tmp_path / "own.weights.h5")
    for file in (tmp_path / "own.weights.h5", str(tmp_path / "own.weights.h5")):
        copy = models.build_model("simple_cnn", dropout=0.3, weights=file, **options)
        for weight, other in zip(model.get_weights(), copy.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, other)


def test_bad_weights():
    with pytest.raises(ValueError, match="Unknown weights of simple_cnn 'digit'. Did you mean 'digits'"):
        models.build_model("simple_cnn", weights="digit")
    with pytest.raises(ValueError, match="Unknown weights of lenet5 'digits'"):
        models.build_model("lenet5", weights="digits")
    assert models.build_model("simple_cnn", weights="digits", num_classes=np.int64(10)).count_params() > 0
    with pytest.raises(ValueError, match="with num_classes=10. Received: num_classes=3. Leave `num_classes` out"):
        models.build_model("simple_cnn", weights="digits", num_classes=3)
    with pytest.raises(ValueError, match="a unet with the default `skip`. Received: skip='add'"):
        models.build_model("unet", weights="digit_scenes", skip="add")
    assert Path(FOLDER).name == "saved_models"


def test_the_weights_of_a_model_are_listed_by_its_name():
    assert "digits" in models.list_weights("simple_cnn") and models.list_weights("vgg16") == []
    with pytest.raises(ValueError, match="Unknown model 'simple_cn'. Did you mean 'simple_cnn'"):
        models.list_weights("simple_cn")
