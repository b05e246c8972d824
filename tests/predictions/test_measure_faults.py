"""Measurements that go wrong in part: what is kept, what is listed, and which options errors name."""

import base64
import csv
import errno
import io
import re
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from _cli import run
from dropzoo.predictions.measure import measure_into
from dropzoo.predictions.measuring import (
    Measure,
    likeliest,
)
from dropzoo.predictions.polygons import write_geojson
from dropzoo.runs.predictors import load_predictor


def measured(model, folder, saved=("objects", "labels", "geojson", "page")):
    predictor = load_predictor(model, 2, votes=True, sampling="fixed", say=lambda text: None)
    return measure_into(predictor, [folder], folder.with_name("m.csv"), Measure(), {}, saved)


def images_in(folder, *names, shape=(8, 8)):
    folder.mkdir()
    for name in names:
        Image.fromarray(np.full(shape, 200, "uint8")).save(folder / f"{name}.png")
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_an_image_whose_name_is_too_long_for_its_files_is_listed(model, tmp_path):
    folder = images_in(tmp_path / "in", "a", "k" * 240, "m" * 250, "z")
    report = measured(model, folder)
    assert [row["image"] for row in report.rows] == [str(folder / "a.png"), str(folder / "z.png")]
    assert [(key[-5], error.errno) for key, error in report.failed] == [(c, errno.ENAMETOOLONG) for c in "km"]
    written = sorted(path.name for path in (tmp_path / "m_files").iterdir())
    assert written == ["a.geojson", "a_labels.tif", "z.geojson", "z_labels.tif"]


@pytest.mark.parametrize(
    "error, done", [(OSError(errno.EIO, "a"), "ac"), (OSError(errno.ENOSPC, "b"), "a"), (KeyboardInterrupt(), "a")]
)
def test_what_was_measured_is_in_the_table_if_files_of_an_image_cannot_be_written(
    error, done, model, tmp_path, monkeypatch
):
    def fails(path, *rest):
        if path.stem == "b":
            raise error
        return write_geojson(path, *rest)

    monkeypatch.setattr("dropzoo.predictions.measure.write_geojson", fails)
    folder = images_in(tmp_path / "in", "a", "b", "c")
    if done == "ac":
        assert measured(model, folder).failed == [(str(folder / "b.png"), error)]
    else:
        with pytest.raises(type(error)):
            measured(model, folder)
    for name in ("m.csv", "m_objects.csv"):
        rows = list(csv.DictReader((tmp_path / name).read_text().splitlines()))
        assert [row["image"] for row in rows] == [str(folder / f"{each}.png") for each in done]
    files = {f"{each}{end}" for each in done for end in (".geojson", "_labels.tif")}
    assert {path.name for path in (tmp_path / "m_files").iterdir()} == files and (tmp_path / "m.html").is_file()


@pytest.mark.parametrize(
    "shape, picture",
    [((2, 3000), (780, 65)), ((3000, 2), (65, 3120)), ((20, 30), (780, 520)), ((1, 1), (780, 780))],
)
def test_the_picture_of_an_image_on_the_page(shape, picture, model, tmp_path):
    measured(model, images_in(tmp_path / "in", "a", shape=shape), ("page",))
    (data,) = re.findall(r"data:image/png;base64,([^\"]+)", (tmp_path / "m.html").read_text())
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == picture


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_class_needs_finite_probabilities(value):
    with pytest.raises(ValueError, match="The model's answer is not finite: 1 of its 12 values"):
        likeliest(np.float32([value, *[0.5] * 11]).reshape(2, 3, 2), (4, 6))


def test_an_answer_that_is_not_finite_is_no_measurement(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = keras.models.load_model(model)
    net.get_layer("logits").bias.assign([np.nan, 0])
    net.save("broken.keras")
    images_in(tmp_path / "in", "a", "b")
    status, _, error = run(capsys, "measure", "in", "--model", "broken.keras", "--num-samples", "2")
    assert status == 2 and not (tmp_path / "measurements.csv").exists()
    assert "2 of 2 images have no answer" in error
    assert error.count("The model's answer is not finite: 128 of its 128 values") == 2


@pytest.mark.parametrize(
    "known, said",
    [
        ("validation", "not say what it was trained on. Pass held-out images: --calibrate DATA"),
        ("in", "Expected images/ and masks/, or at least two class folders, in in"),
        ("in/a.png", "`split_file` (in Python), with the folder"),
        ("far", "If the values are class ids, pass masks_as='ids' (in Python)"),
        ("cut", "Replace or remove the file, or pass broken='skip' (in Python)"),
    ],
)
def test_errors_about_known_images_name_options_that_measure_has(
    known, said, model, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    images_in(tmp_path / "in", "a")
    for kind in ("far", "cut"):
        (tmp_path / kind / "masks").mkdir(parents=True)
        images_in(tmp_path / kind / "images", *range(10))
        for i in range(10):
            mask = np.full((8, 8), 20 * i if kind == "far" else i % 2, "uint8")
            Image.fromarray(mask).save(tmp_path / kind / "masks" / f"{i}.png")
    (tmp_path / "cut" / "images" / "3.png").write_bytes(b"damaged")
    status, _, error = run(capsys, "measure", "--model", str(model), "--num-samples", "2", "--calibrate", known)
    error = error[error.index("Error:") :]
    assert status == 2 and said in error
    assert set(re.findall(r"--[a-z-]+", error)) <= {"--calibrate"}
