"""Answers of unusual shapes, and how many images and answers wait."""

import dataclasses
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from dropzoo.cli.console import console, rows_of
from dropzoo.cli.predictions import _print_labels
from dropzoo.common.pixels import Pixels
from dropzoo.predictions import answers as room
from dropzoo.predictions.answers import answers
from dropzoo.predictions.reading import Page
from dropzoo.predictions.run import Plan, predict_into
from dropzoo.predictions.summary import urgency
from dropzoo.runs import predictors as predictors_room
from dropzoo.runs.predictor import Predictor, is_of_pixels
from dropzoo.runs.predictors import load_predictor
from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.calibration.facts import Facts
from dropzoo.serving.calibration.guarantee import Guarantee

kl = keras.layers


def images(folder: Path, *sides: int) -> list[Page]:
    for i, side in enumerate(sides):
        Image.new("L", (side, side), 100).save(folder / f"{i:02}.png")
    return [Page(folder / f"{i:02}.png") for i in range(len(sides))]


def test_a_map_of_values_without_samples(tmp_path):
    images(tmp_path, 5, 6)
    predictor = Predictor(lambda x: {"mean": x}, (None, None, 1), None, Pixels(), is_map=True, task="regression")
    report = predict_into(predictor, [tmp_path], Plan(tmp_path / "out", table=tmp_path / "t.csv"))
    assert not report.failed and [path.name for _, path in report.written] == ["00_values.tif", "01_values.tif"]


@pytest.mark.parametrize("shape", [(None, 17, 2), (None, 8, 8)])
def test_an_output_that_is_neither_of_an_image_nor_of_pixels(shape):
    with pytest.raises(ValueError, match=r"add keras.layers.Flatten\(\).*Reshape"):
        is_of_pixels(shape)
    assert not is_of_pixels((None,)) and not is_of_pixels((None, 3)) and is_of_pixels((None, 8, 8, 1))


def test_small_images_before_large_ones(tmp_path, monkeypatch):
    """Images are read ahead only up to a number of pixels, and keep their order."""
    monkeypatch.setattr(room, "_HELD_PIXELS", 500)
    most, lock_held = [0], room._Held._count

    def count(self, result, sign):
        lock_held(self, result, sign)
        most[0] = max(most[0], self._pixels)

    monkeypatch.setattr(room._Held, "_count", count)
    predictor = Predictor(lambda x: {"mean": x.mean((1, 2))}, (None, None, 1), None, Pixels(), task="regression")
    pages = images(tmp_path, *[1] * 20, *[30] * 30)
    assert [each.page for each in answers(predictor, pages)] == pages
    assert 0 < most[0] <= 7 * 900


class Noise(kl.Layer):
    """Draws noise of its own, which is sampled by plain passes."""

    def call(self, x, training=False):
        return x + keras.random.normal(keras.ops.shape(x)) if training else x


@pytest.mark.parametrize(("layer", "at_once"), [(kl.Dropout(0.5), 2), (Noise(), 1)])
def test_batches_are_computed_side_by_side_where_they_may(layer, at_once, tmp_path):
    """The answers are those of single images, in order, also where the last batch is not full."""
    pages = images(tmp_path, *[6] * 5, 4, 4, *[6] * 4)
    for i, page in enumerate(pages):
        Image.fromarray((np.asarray(Image.open(page.path)) - i).astype("uint8")).save(page.path)
    inputs = keras.Input((None, None, 1))
    outputs = kl.Dense(3, "softmax")(kl.GlobalAveragePooling2D()(layer(kl.Conv2D(4, 3, padding="same")(inputs))))
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")
    with keras.saving.custom_object_scope({"Noise": Noise}):
        predictor = load_predictor(tmp_path / "m.keras", 4, say=lambda text: None)
    lock, running, most = threading.Lock(), [0], [0]
    met, threads = threading.Barrier(at_once), set()

    def predict(x):
        threads.add(threading.get_ident())
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        met.wait(60)  # four batches, then two: an even number each time
        found = predictor.predict(x)
        with lock:
            running[0] -= 1
        return found

    found = []
    for answer in answers(dataclasses.replace(predictor, predict=predict), pages, batch_size=2):
        found.append(answer)
        assert at_once == 2 or running[0] == 0  # the caller may use the model itself
    assert threads == {threading.get_ident()} or at_once == 2
    assert most[0] == at_once and predictor.side_by_side == (at_once == 2)
    assert [each.page for each in found] == pages
    for answer in found:
        if at_once == 2:  # other samples belong to other batches if the layer draws by itself
            alone = predictor.answer(predictor.read(answer.page.path))
            np.testing.assert_allclose(answer.whole()["mean"], alone["mean"], atol=1e-6)


def test_large_images_are_computed_one_at_a_time(tmp_path, monkeypatch):
    """Each of them is a batch of its own, so two would need twice the memory."""
    monkeypatch.setattr(room, "_BATCH_VALUES", 30)
    inputs = keras.Input((None, None, 1))
    outputs = kl.Dense(3, "softmax")(kl.Dropout(0.5)(kl.GlobalAveragePooling2D()(kl.Conv2D(4, 3)(inputs))))
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")
    predictor = load_predictor(tmp_path / "m.keras", 2, say=lambda text: None)
    threads = []

    def predict(x):
        threads.append(threading.get_ident())
        return predictor.predict(x)

    for side, here in ((6, True), (5, False)):
        threads.clear()
        pages = images(tmp_path, *[side] * 4)
        found = list(answers(dataclasses.replace(predictor, predict=predict), pages))
        assert [each.page for each in found] == pages and predictor.side_by_side
        assert [each == threading.get_ident() for each in threads] == [here] * len(threads) != []


def test_the_largest_deviation_comes_first():
    few, many = {"deviation_a": 0.5, "deviation_b": 0.1}, {"deviation_a": 0.1, "deviation_b": 0.9}
    assert urgency(many) > urgency(few)
    maps = [
        {"height": 2, "deviation_mean_a": a, "deviation_max_a": 9.0, "deviation_mean_b": 0.2} for a in (0.1, 0.3)
    ]
    assert urgency(maps[1]) > urgency(maps[0])


def test_tiles_of_channels_first_are_refused_once(tmp_path):
    x = keras.Input((3, None, None))
    y = kl.Dense(2, activation="softmax")(kl.Dropout(0.5)(kl.Permute((2, 3, 1))(x)))
    keras.Model(x, y).save(tmp_path / "m.keras")
    predictor = load_predictor(
        tmp_path / "m.keras", 2, say=lambda text: None, sampling="fixed", input_range=(0, 1)
    )
    assert predictor.input_shape == (None, None, 3)
    pages = images(tmp_path, 20, 20)
    with pytest.raises(ValueError, match="Tiles need images with channels last"):
        list(answers(predictor, pages, tile=8, overlap=2))
    assert len(list(answers(predictor, pages, tile=32))) == 2


@pytest.mark.parametrize("task", ["binary", "regression", "multi_class"])
def test_a_calibration_of_answers_without_an_axis(task):
    facts = Facts(**{each.name: None for each in dataclasses.fields(Facts)} | {"task": task})
    calibration = Calibration(1.0, {}, {}, facts)
    assert set(calibration.apply({"mean": np.float32([0.2, 0.7])})) == {"mean"}
    interval = Guarantee(**{each.name: None for each in dataclasses.fields(Guarantee)})
    interval = dataclasses.replace(interval, thresholds=(2.0,), floors=(0.0,))
    found = dataclasses.replace(calibration, guarantees={"interval": interval})
    out = found.apply({"mean": np.float32([1.0, 2.0]), "variance": np.float32([1.0, 4.0])})
    np.testing.assert_allclose(out["upper"], [3.0, 6.0])


def test_json_holds_all_rows_and_columns():
    rows = [{"image": f"{i}.png", "class": "[a]", "probability": i / 7, "p_x_y": 0.123456789} for i in range(60)]
    rows.append({"image": "m.png", "height": 4, "defer": True})
    tables: list[Table] = []
    console.kept = tables
    try:
        _print_labels(rows)
    finally:
        console.kept = None
    found = rows_of(tables[0])
    assert len(found) == 61 and found[59]["p_x_y"] == 0.123456789 and found[59]["class"] == "[a]"
    assert found[60]["height"] == 4 and found[60]["probability"] is None
    assert '"height": 4,' in json.dumps(found[60]) and '"probability": 0.0,' in json.dumps(found[0])


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_the_task_of_an_ensemble(task, tmp_path, monkeypatch):
    members = []
    for _ in range(2):
        x = keras.Input((4, 4, 1))
        members.append(keras.Model(x, kl.Dense(3)(kl.Flatten()(x))))
    (tmp_path / "ensemble.json").write_text("{}")
    monkeypatch.setattr(predictors_room, "load_members", lambda path: members)
    described = SimpleNamespace(value_range=None), SimpleNamespace(class_names=None)
    monkeypatch.setattr(predictors_room, "load_run", lambda path: (None, *described))
    monkeypatch.setattr(predictors_room, "first_run", lambda path: path)
    found = load_predictor(tmp_path, say=lambda text: None, input_range=(0, 1), task=task)
    assert found.task == found.sampler.task == task
