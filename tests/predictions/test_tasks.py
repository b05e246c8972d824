"""Predictions of models for several labels and of regressions, for images and for pixels.

The rule: the model says what its output means, or the user does. Labels are 0 or 1 each, values are numbers with a
deviation, and neither is put through the words of classes: no class, no picture, no background.
"""

import csv
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from dropzoo import serving
from dropzoo.common.pixels import Pixels
from dropzoo.predictions.run import Plan, predict_into
from dropzoo.predictions.summary import urgency
from dropzoo.predictions.writing import kinds_for
from dropzoo.runs.predictor import Predictor
from dropzoo.runs.predictors import load_predictor
from dropzoo.runs.statistics import arranged

kl = keras.layers
TASKS = ("multi_label", "regression")


@pytest.fixture
def folder(tmp_path):
    for name, level in (("a", 50), ("b", 200)):
        Image.fromarray(np.full((6, 5), level, "uint8")).save(tmp_path / f"{name}.png")
    return tmp_path


def predictor(task: str, is_map: bool, names: tuple[str, ...] | None = None, units: int = 2) -> Predictor:
    """A model whose samples are 0.8 and 1.2 times the brightness."""

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        level = images if is_map else images.mean((1, 2))
        samples = np.stack([np.repeat(level * gain, units, -1) for gain in (0.8, 1.2)], 1)
        out = {"mean": samples.mean(1), "variance": samples.var(1), "samples": samples}
        return arranged(out if task == "regression" else out | {"mutual_information": level[..., 0]}, task)

    return Predictor(predict, (None, None, 1), names, Pixels(), num_samples=2, is_map=is_map, task=task)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_images_of_several_labels(folder):
    plan = Plan(folder / "out", table=folder / "t.csv")
    predict_into(predictor("multi_label", False, ("cat", "dog")), [folder], plan)
    rows = {Path(row["image"]).stem: row for row in rows_of(folder / "t.csv")}
    assert rows["a"]["labels"] == "" and rows["b"]["labels"] == "cat; dog"
    assert float(rows["b"]["p_dog"]) == pytest.approx(200 / 255, abs=1e-5) and "class" not in rows["b"]
    p = 50 / 255
    coins = -2 * (p * np.log(p) + (1 - p) * np.log(1 - p))
    assert float(rows["a"]["predictive_entropy"]) == pytest.approx(coins, abs=1e-4)


@pytest.mark.parametrize(
    ("names", "units", "columns"),
    [
        (None, 1, ["value", "deviation"]),
        (("height", "age"), 2, ["value_height", "deviation_height", "value_age", "deviation_age"]),
        (None, 2, ["value_0", "deviation_0", "value_1", "deviation_1"]),
    ],
)
def test_images_of_values(folder, names, units, columns):
    plan = Plan(folder / "out", table=folder / "t.csv")
    report = predict_into(predictor("regression", False, names, units), [folder], plan)
    rows = rows_of(folder / "t.csv")
    assert list(rows[0]) == ["image", *columns]
    assert [Path(row["image"]).stem for row in rows] == ["b", "a"]  # the largest deviation first
    assert float(rows[0][columns[1]]) == pytest.approx(0.2 * 200 / 255, abs=1e-5)
    assert urgency(report.rows[0]) > urgency(report.rows[1])


def test_pixels_of_several_labels(folder):
    plan = Plan(folder / "out", table=folder / "t.csv")
    predict_into(predictor("multi_label", True, ("cat", "dog")), [folder], plan)
    mask = tifffile.imread(folder / "out" / "b_mask.tif")
    assert mask.shape == (2, 6, 5) and mask.dtype == np.uint8 and (mask == 1).all()
    assert tifffile.imread(folder / "out" / "b_entropy.tif").shape == (6, 5)
    rows = {Path(row["image"]).stem: row for row in rows_of(folder / "t.csv")}
    assert rows["b"]["share_cat"] == rows["b"]["share_dog"] == rows["b"]["dice_cat"] == "1"
    assert rows["a"]["share_cat"] == "0" and rows["a"]["dice_cat"] == ""  # no sample sees it


def test_pixels_of_values(folder):
    plan = Plan(folder / "out", table=folder / "t.csv")
    predict_into(predictor("regression", True, None, 1), [folder], plan)
    np.testing.assert_allclose(tifffile.imread(folder / "out" / "b_values.tif"), 200 / 255, rtol=1e-5)
    np.testing.assert_allclose(tifffile.imread(folder / "out" / "b_deviation.tif"), 40 / 255, rtol=1e-5)
    row = rows_of(folder / "t.csv")[0]
    assert row["height"] == "6" and float(row["value_mean"]) == pytest.approx(200 / 255, abs=1e-5)
    assert float(row["deviation_max"]) == pytest.approx(40 / 255, abs=1e-5)
    npz = Plan(folder / "o", ("values", "deviation"), "npz", table=folder / "u.csv")
    predict_into(predictor("regression", True, None, 1), [folder / "a.png"], npz)
    with np.load(folder / "o" / "a.npz") as found:
        assert sorted(found.files) == ["deviation", "values"]


@pytest.mark.parametrize(
    ("task", "wanted", "words"),
    [
        ("regression", ["mask"], "has no output 'mask'. Pass --save with some of: values, deviation"),
        ("regression", ["values", "entropy"], "has no output 'entropy'"),
        ("multi_label", ["picture"], "has no output 'picture'. Pass --save with some of: mask, probabilities"),
        ("multi_class", ["values"], "has no output 'values'"),
    ],
)
def test_what_a_kind_of_output_does_not_give(task, wanted, words):
    with pytest.raises(ValueError, match=words):
        kinds_for(task, wanted)


def net(units: int, flat: bool = False) -> keras.Model:
    x = inputs = keras.Input((6, 5, 1))
    x = kl.Dense(units)(kl.Dropout(0.5)(kl.Flatten()(x)))
    return keras.Model(inputs, keras.ops.squeeze(x, -1) if flat else x)


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    ("units", "flat", "loss", "said", "task"),
    [
        (3, False, "mse", None, "regression"),
        (1, True, "mae", None, "regression"),
        (3, False, keras.losses.BinaryCrossentropy(from_logits=True), None, "multi_label"),
        (3, False, None, "multi_label", "multi_label"),
        (3, False, None, "regression", "regression"),
        (1, True, None, "binary", "binary"),
    ],
)
def test_models_say_what_they_mean(folder, units, flat, loss, said, task):
    model = net(units, flat)
    if loss is not None:
        model.compile("sgd", loss)
    model.save(folder / "m.keras")
    loaded = load_predictor(folder / "m.keras", 2, votes=True, say=lambda text: None, task=said, from_logits=None)
    out = loaded.predict(np.full((2, 6, 5, 1), 0.5, "float32"))
    assert loaded.task == task and out["mean"].shape == (2, 2 if task == "binary" else units)
    assert ("votes" in out) == (task != "regression") == ("predictive_entropy" in out)
    assert out["variance"].shape == out["mean"].shape


@pytest.mark.costly(keep=2)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("samples", [0, 2])
def test_exports_of_labels_and_values(folder, task, samples):
    model = net(2)
    path = serving.export_model(model, folder / "e" / "1", samples, task=task, class_names=["x", "y"])
    loaded = load_predictor(path, say=lambda text: None)
    image = np.full((1, 6, 5, 1), 0.5, "float32")
    out, raw = loaded.predict(image), model(image)
    assert loaded.task == task and loaded.class_names == ("x", "y")
    if not samples:
        np.testing.assert_allclose(out["mean"], raw if task == "regression" else tf.sigmoid(raw), atol=1e-6)
    predict_into(loaded, [folder / "a.png"], Plan(folder / "out", table=folder / "t.csv"))
    (row,) = rows_of(folder / "t.csv")
    assert ("value_x" in row) == (task == "regression") and ("labels" in row) == (task == "multi_label")
    with pytest.raises(ValueError, match="Leave out task='binary'"):
        load_predictor(path, task="binary")


def test_statistics_of_classes_are_as_they_were():
    p = np.float32([[0.2], [0.9]])
    out = arranged({"mean": p, "variance": p * 0 + 0.1, "samples": np.float32([[[0.1], [0.6]], [[0.9], [0.9]]])})
    np.testing.assert_allclose(out["mean"], [[0.8, 0.2], [0.1, 0.9]], atol=1e-6)
    np.testing.assert_array_equal(out["votes"], [[1, 1], [0, 2]])
    three = np.random.default_rng(0).dirichlet([1, 1, 1], (2, 5)).astype("float32")
    votes = arranged({"mean": three.mean(1), "samples": three})["votes"]
    np.testing.assert_array_equal(votes, np.stack([(three.argmax(-1) == i).sum(1) for i in range(3)], -1))
