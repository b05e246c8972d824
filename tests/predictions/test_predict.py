"""Predictions of many images: which files are read, what is written, and how a stopped run goes on."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from _cli import run
from dropzoo import models, serving
from dropzoo.predictions import predict_files
from dropzoo.predictions.answers import answers
from dropzoo.predictions.reading import pages_of
from dropzoo.predictions.run import Plan, predict_into
from dropzoo.predictions.summary import urgency
from dropzoo.runs.predictors import load_predictor

RANDOM = np.random.default_rng(0)
GEO = [
    (33550, "d", 3, (0.5, 0.5, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 100.0, 200.0, 0.0), True),
    (34735, "H", 8, (1, 1, 0, 1, 3072, 0, 1, 25832), True),
]


@pytest.fixture(scope="module")
def unet(tmp_path_factory) -> Path:
    """A model of masks of three classes, for grey images of any size."""
    path = tmp_path_factory.mktemp("unet") / "unet.keras"
    plan = {"encoder*": "spatial_dropout2d:0.5"}
    models.build_model("unet", input_shape=(None, None, 1), num_classes=3, depth=1, filters=2, dropout=plan).save(
        path
    )
    return path


@pytest.fixture(scope="module")
def predictor(unet):
    return load_predictor(unet, 3, votes=True, say=lambda text: None)


@pytest.fixture(scope="module")
def fixed(unet):
    return load_predictor(unet, 3, sampling="fixed", say=lambda text: None)


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder of images of several kinds, three of which are damaged, and a file that is no image."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(grey(20, 28)).save(folder / "a.png", dpi=(300, 300))
    Image.fromarray(np.stack([grey(24, 28)] * 3, -1)).save(folder / "sub" / "a.jpg")
    stack = RANDOM.integers(0, 60000, (3, 16, 20), "uint16")
    tifffile.imwrite(
        folder / "b.tif", stack, resolution=(4, 4), resolutionunit="CENTIMETER", photometric="minisblack"
    )
    tiles = {"compression": "zlib", "tile": (16, 16)}
    tifffile.imwrite(folder / "c.tiff", RANDOM.integers(0, 255, (37, 41, 3), "uint8"), extratags=GEO, **tiles)
    (folder / "bad.png").write_bytes((folder / "a.png").read_bytes()[:90])
    (folder / "cut.tif").write_bytes((folder / "c.tiff").read_bytes()[:700])
    (folder / "none.png").write_bytes(b"")
    (folder / "notes.txt").write_text("mine")
    return folder


def grey(*size: int) -> np.ndarray:
    return RANDOM.integers(0, 256, size, "uint8")


@pytest.mark.costly(keep=0)
def test_a_folder_of_all_kinds(predictor, images, tmp_path):
    kinds = ("mask", "probabilities", "entropy", "overlay")
    plan = Plan(tmp_path / "out", kinds, table=tmp_path / "out" / "t.csv")
    report = predict_into(predictor, [images], plan)
    assert {Path(key.partition("#")[0]).name for key, _ in report.failed} == {"bad.png", "cut.tif", "none.png"}
    masks = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / "out").rglob("*_mask.png")}
    sizes = {"a_mask.png": (24, 28)} | {f"b_{i}_mask.png": (16, 20) for i in (1, 2, 3)}
    assert {name: mask.shape for name, mask in masks.items()} == sizes
    assert all(mask.dtype == np.uint8 and mask.max() < 3 for mask in masks.values())
    assert np.asarray(Image.open(tmp_path / "out" / "a_mask.png")).shape == (20, 28)
    with Image.open(tmp_path / "out" / "a_mask.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    p = tifffile.imread(tmp_path / "out" / "sub" / "a_probabilities.tif")
    assert p.shape == (3, 24, 28)
    np.testing.assert_array_equal(p.argmax(0), masks["a_mask.png"])
    for name, kind in (("c_entropy.tif", np.float32), ("c_mask.tif", np.uint8)):  # PNG cannot hold the position
        with tifffile.TiffFile(tmp_path / "out" / name) as file:
            page = file.pages[0]
            assert page.shape == (37, 41) and page.dtype == kind
            assert page.tags[33550].value == GEO[0][3] and page.tags[34735].value == GEO[2][3]
    with tifffile.TiffFile(tmp_path / "out" / "b_1_entropy.tif") as file:
        assert file.pages[0].tags["XResolution"].value == (4, 1)
        assert int(file.pages[0].tags["ResolutionUnit"].value) == 3
    rows = list(csv.DictReader(plan.table.read_text().splitlines()))
    assert list(rows[0])[:4] == ["image", "page", "height", "width"] and len(rows) == 6
    for row in rows:
        assert sum(float(row[f"share_{i}"]) for i in range(3)) == pytest.approx(1)
        assert 0 <= float(row["predictive_entropy_mean"]) <= float(row["predictive_entropy_max"])
    dice = [float(row["pairwise_dice"]) for row in rows if row["pairwise_dice"]]
    assert dice == sorted(dice)  # what the samples agree on least comes first
    assert not list((tmp_path / "out").rglob("*unfinished*"))


def test_a_run_goes_on_where_it_was_stopped(predictor, images, tmp_path):
    plan = Plan(tmp_path / "out", ("mask",), table=tmp_path / "t.json", settings={"samples": 3})
    paths = [images / "a.png", images / "c.tiff"]

    def stopped(found, total):
        yield next(iter(found))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_into(predictor, paths, plan, stopped)
    assert [Path(row["image"]).name for row in json.loads(plan.table.read_text())] == ["a.png"]
    journal = next(tmp_path.rglob(".*.journal"))
    journal.write_text(journal.read_text() + '{"key": "half a li')  # as a process that is killed leaves it
    report = predict_into(predictor, paths, plan)
    assert report.skipped == 1 and len(report.rows) == 2 and len(json.loads(plan.table.read_text())) == 2
    (tmp_path / "out" / "a_mask.png").unlink()
    Image.fromarray(grey(8, 8)).save(images / "a.png")  # another image now
    assert predict_into(predictor, paths, plan).skipped == 1
    assert np.asarray(Image.open(tmp_path / "out" / "a_mask.png")).shape == (8, 8)
    (tmp_path / "other").mkdir()
    Image.fromarray(grey(9, 9)).save(tmp_path / "other" / "a.png")
    predict_into(predictor, [tmp_path / "other"], plan)  # of the same name: it gets one of its own
    assert np.asarray(Image.open(tmp_path / "out" / "a_mask_2.png")).shape == (9, 9)
    assert len(json.loads(plan.table.read_text())) == 3
    only = dataclasses.replace(plan, table=tmp_path / "only.csv")
    assert predict_into(predictor, paths, only).skipped == 2 and len(only.table.read_text().splitlines()) == 3
    assert predict_into(predictor, paths, only).skipped == 2  # the second table is its own too
    with pytest.raises(ValueError, match=r"other settings \(samples: 3 there, 4 now\).*--overwrite"):
        predict_into(predictor, paths, dataclasses.replace(only, settings={"samples": 4}))
    anew = dataclasses.replace(plan, settings={"samples": 4}, overwrite=True)
    assert predict_into(predictor, paths, anew).skipped == 0 and len(json.loads(plan.table.read_text())) == 2
    elsewhere = dataclasses.replace(plan, settings={"samples": 5}, out=tmp_path / "new", table=tmp_path / "5.csv")
    assert predict_into(predictor, paths, elsewhere).skipped == 0


def test_an_image_that_cannot_be_read_any_more_loses_its_row(predictor, images, tmp_path):
    plan = Plan(tmp_path / "out", ("mask",), table=tmp_path / "t.json")
    paths = [images / "a.png", images / "c.tiff"]
    predict_into(predictor, paths, plan)
    (images / "a.png").write_bytes((images / "bad.png").read_bytes())
    for _ in range(2):
        report = predict_into(predictor, paths, plan)
        assert len(report.rows) == len(report.failed) == 1 and len(json.loads(plan.table.read_text())) == 1


def test_nothing_of_the_user_is_overwritten(predictor, images, tmp_path):
    (tmp_path / "t.csv").write_text("mine")
    with pytest.raises(ValueError, match="t.csv exists. Pass --overwrite to replace it"):
        predict_into(predictor, [images / "a.png"], Plan(tmp_path / "out", ("mask",), table=tmp_path / "t.csv"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a_mask.png").write_text("mine")
    with pytest.raises(
        ValueError, match="a_mask.png exists, and was not written by this command.*--overwrite.*--out"
    ):
        predict_into(predictor, [images / "a.png"], Plan(tmp_path / "out", ("mask",)))
    assert (tmp_path / "out" / "a_mask.png").read_text() == "mine"
    Image.fromarray(grey(8, 8)).save(images / "a_mask.png")
    before = (images / "a_mask.png").read_bytes()
    both = [images / "a.png", images / "a_mask.png"]
    with pytest.raises(ValueError, match="a_mask.png is one of the images and is not overwritten"):
        predict_into(predictor, both, Plan(images, ("mask",)))
    assert (images / "a_mask.png").read_bytes() == before and (tmp_path / "t.csv").read_text() == "mine"


def test_outputs_within_the_folder_are_no_images_the_next_time(predictor, images):
    plan = Plan(images / "out", ("mask",), table=images / "out" / "t.csv")
    first = predict_into(predictor, [images], plan)
    again = predict_into(predictor, [images], plan)
    assert again.skipped == len(first.rows) == len(again.rows)


def test_batches_give_what_single_images_give(predictor, images):
    pages = [page for name in ("a.png", "b.tif", "c.tiff") for page in pages_of(images / name, 1)]
    alone = [answer.whole() for answer in answers(predictor, pages, batch_size=1)]
    for size in (2, None):
        for one, other in zip(alone, answers(predictor, pages, batch_size=size), strict=True):
            np.testing.assert_allclose(one["mean"], other.whole()["mean"], atol=1e-6)


@pytest.mark.parametrize("form", ["tiff", "npz"])
def test_other_formats(form, predictor, images, tmp_path):
    plan = Plan(tmp_path / "out", ("mask", "probabilities"), form)
    predict_into(predictor, [images / "c.tiff"], plan)
    if form == "npz":
        found = dict(np.load(tmp_path / "out" / "c.npz"))
        assert found["mask"].shape == (37, 41) and found["probabilities"].shape == (37, 41, 3)
    else:
        with tifffile.TiffFile(tmp_path / "out" / "c_mask.tif") as file:
            assert file.pages[0].tags[33922].value == GEO[1][3] and file.pages[0].dtype == np.uint8


def test_an_npz_file_is_done_if_it_holds_all_kinds(predictor, images, tmp_path):
    plan = Plan(tmp_path, ("mask", "probabilities"), "npz", table=tmp_path / "t.csv")
    for kinds, skipped in ((("mask",), 0), (("mask", "probabilities"), 0), (("mask",), 1), (("entropy",), 0)):
        report = predict_into(predictor, [images / "a.png"], dataclasses.replace(plan, kinds=kinds))
        assert report.skipped == skipped
    assert set(np.load(tmp_path / "a.npz")) == {"entropy"}


@pytest.mark.costly(keep=0)
def test_tiles_of_a_file_are_those_of_the_array(fixed, tmp_path):
    """The strips that are read, computed and written in parts are `predict_tiled` of the whole image."""
    image = RANDOM.integers(0, 65535, (75, 50), "uint16")
    wanted = serving.predict_tiled(fixed.sampler, (image / np.float32(65535))[..., None], 24, 8)
    for name, how in (
        ("plain", {}),
        ("tiled", {"tile": (16, 32), "compression": "zlib"}),
        ("rows", {"rowsperstrip": 7}),
    ):
        tifffile.imwrite(tmp_path / f"{name}.tif", image, **how)
        (page,) = pages_of(tmp_path / f"{name}.tif", 1)
        (answer,) = answers(fixed, [page], tile=24, overlap=8)
        np.testing.assert_allclose(answer.whole()["mean"], wanted["mean"], atol=1e-6)
    plan = Plan(tmp_path / "out", ("mask", "entropy", "overlay", "picture"), "tiff", tile=24, overlap=8)
    predict_into(fixed, [tmp_path / "tiled.tif"], plan)
    found = tifffile.imread(tmp_path / "out" / "tiled_entropy.tif")
    np.testing.assert_allclose(found, wanted["predictive_entropy"], atol=1e-6)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "tiled_mask.tif"), wanted["mean"].argmax(-1))
    assert np.asarray(Image.open(tmp_path / "out" / "tiled_overlay.png")).shape == (75, 50, 3)


def test_a_table_is_written_even_if_no_masks_are(unet, images, tmp_path, capsys):
    """And small tiles need no `--overlap`."""
    asked = ["predict", str(images / "c.tiff"), "--model", str(unet), "--num-samples", "2", "--tile", "24"]
    status, _, error = run(capsys, *asked, "--save", "none", "--out", str(tmp_path / "out"))
    assert status == 0 and len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 2, error


def test_from_python(predictor, images):
    seen = []
    names = [
        a.page.path.name
        for a in predict_files(images, predictor, on_error=lambda path, error: seen.append(path.name))
    ]
    assert names == ["a.png", "b.tif", "b.tif", "b.tif", "c.tiff", "a.jpg"]
    assert {"bad.png", "cut.tif", "none.png"} <= set(seen)
    with pytest.raises(ValueError, match="Cannot read"):
        list(predict_files([images / "bad.png"], predictor))
    with pytest.raises(ValueError, match="its own number of samples.*num_samples=3.*load_predictor"):
        list(predict_files(images, predictor, num_samples=3))


def test_the_answers_of_a_calibration(predictor, images, tmp_path):
    """As a calibrated sampler gives them: masks for each class, and whether to ask a human."""

    def calibrated(batch):
        out = predictor.predict(batch)
        outer = out["mean"] >= 0.3
        return out | {"outer": outer, "inner": outer & (out["mean"] >= 0.9), "defer": np.ones(len(batch), bool)}

    asked = dataclasses.replace(predictor, predict=calibrated, sampler=None)
    plan = Plan(tmp_path / "out", ("inner", "outer"), table=tmp_path / "t.csv")
    (row,) = predict_into(asked, [images / "c.tiff"], plan).rows
    assert row["defer"] is True and urgency(row) > urgency({**row, "defer": False})
    outer = tifffile.imread(tmp_path / "out" / "c_outer.tif")
    assert outer.shape == (3, 37, 41) and outer.dtype == np.uint8 and set(np.unique(outer)) <= {0, 1}
    assert (tifffile.imread(tmp_path / "out" / "c_inner.tif") <= outer).all()
    with pytest.raises(ValueError, match="has no output 'inner'. .* dropzoo calibrate RUN --guarantee false=0.1$"):
        predict_into(predictor, [images / "c.tiff"], dataclasses.replace(plan, out=tmp_path / "o"))
    assert not (tmp_path / "o").exists()
