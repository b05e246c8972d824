"""Slips of users and broken models: each gets an answer that helps, and no wrong prediction."""

import os
from collections import Counter

import keras
import numpy as np
import pytest
import tifffile
from PIL import Image

from _cli import run
from dropzoo import models, serving
from dropzoo.common.images import unreadable
from dropzoo.predictions import predict_files
from dropzoo.predictions.paths import find_images
from dropzoo.predictions.run import Plan, predict_into
from dropzoo.predictions.table import check_writable
from dropzoo.runs.predictors import load_predictor

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def unet():
    plan = {"bottleneck*": "spatial_dropout2d:0.5"}
    return models.build_model("unet", input_shape=(None, None, 1), num_classes=2, depth=1, filters=2, dropout=plan)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "ab":
        Image.fromarray(RANDOM.integers(0, 256, (12, 16), "uint8")).save(folder / f"{name}.png")
    return folder


def test_an_answer_that_is_not_finite_is_no_mask(unet, folder, tmp_path):
    """The largest of several NaN is class 0, so the mask would be all background, and look certain."""
    broken = keras.models.clone_model(unet)
    broken.set_weights([np.full_like(each, np.nan) for each in unet.get_weights()])
    plan = Plan(tmp_path / "out", ("mask",), table=tmp_path / "t.csv")
    report = predict_into(load_predictor(broken, 2), [folder], plan)
    said = [str(error) for _, error in report.failed]
    assert len(said) == 2 and all(
        each.startswith("The model's answer is not finite: 384 of its 384") for each in said
    )
    assert not report.rows and not plan.table.exists() and not list(plan.out.glob("*.png"))


def test_values_beyond_the_usual_range_have_an_option(unet, folder, tmp_path, capsys):
    pixels = RANDOM.uniform(-1000, 2000, (12, 16)).astype("float32")
    tifffile.imwrite(folder / "ct.tif", pixels)
    unet.save(tmp_path / "unet.keras")
    command = ["predict", str(folder / "ct.tif"), "--model", str(tmp_path / "unet.keras"), "--mc", "2"]
    command += ["--save", "probabilities", "--out", str(tmp_path)]
    status, _, error = run(capsys, *command)
    assert status == 2 and "(--value-range)" in error
    assert run(capsys, *command, "--value-range=-1000,2000")[0] == 0
    found = tifffile.imread(tmp_path / "ct_probabilities.tif")
    (answer,) = _answers(unet, ((pixels + 1000) / 3000)[None, ..., None])
    np.testing.assert_allclose(np.moveaxis(found, 0, -1), answer, atol=1e-5)


def _answers(model, images):
    return serving.MonteCarlo(model, num_samples=2)(images)["mean"].numpy()


def test_a_keras_model_predicts_files(unet, folder, tmp_path):
    unet.save(tmp_path / "unet.keras")
    ways = [list(predict_files(folder, each, num_samples=3)) for each in (unet, tmp_path / "unet.keras")]
    for ours, saved in zip(*ways, strict=True):
        np.testing.assert_array_equal(ours.whole()["mean"], saved.whole()["mean"])
    ct = load_predictor(unet, 2, value_range=(-5, 5))
    assert ct.value_range == (-5, 5)


def test_no_paths_and_empty_paths(unet, capsys):
    for paths in ([], "", [""]):
        with pytest.raises(ValueError, match="Expected files, folders or patterns"):
            next(predict_files(paths, unet))
    for command in ("predict", "measure"):
        status, _, error = run(capsys, command, "", "--model", "unet.keras")
        assert status == 2 and "Received an empty text, as from a variable that is not set" in error


def test_other_files_are_counted(unet, folder, tmp_path, capsys):
    for name in ("a.heic", "b.heic", "c.dcm"):
        (folder / name).write_bytes(b"?")
    left_out: Counter[str] = Counter()
    find_images([folder], left_out=left_out)
    assert left_out == {".heic": 2, ".dcm": 1}
    unet.save(tmp_path / "unet.keras")
    out = str(tmp_path / "out")
    status, said, _ = run(capsys, "predict", str(folder), "--model", str(tmp_path / "unet.keras"), "--out", out)
    assert status == 0 and "Left out files without the ending of an image file: 2 .heic, 1 .dcm" in said


def test_a_place_that_cannot_be_written_to_is_named_first(tmp_path, monkeypatch):
    """Root may write to every folder, so the test simulates the refusal of the system."""
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    for out, table, option in ((tmp_path / "new" / "o", None, "--out"), (None, tmp_path / "t.csv", "--table")):
        with pytest.raises(ValueError, match=f"Cannot write to the folder {tmp_path}. .* {option}"):
            check_writable(out, table)


def test_options_for_masks_need_a_model_of_masks(folder, tmp_path):
    cnn = models.build_model("simple_cnn", input_shape=(12, 16, 1), filters=(2,), dense=(2,))
    for how in ({"kinds": ("mask",)}, {"form": "tiff"}):
        with pytest.raises(ValueError, match="one answer for an image.*--save, --format.*--table"):
            predict_into(load_predictor(cnn, 1), [folder], Plan(tmp_path / "out", **how))


def test_reasons_why_a_file_cannot_be_read(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="not supported, such as HEIC. Replace it, or convert it to PNG or TIFF"):
        list(predict_files(tmp_path / "a.png", models.build_model("unet", num_classes=2, depth=1, filters=2)))
    said = str(unreadable(tmp_path / "a.png", PermissionError(13, "Permission denied")))
    assert said == f"Cannot read {tmp_path / 'a.png'}, because its permissions do not allow it. Change them"
