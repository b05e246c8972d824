"""Measurements: objects and their numbers by hand, intervals that cover, and the files that are written."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
import tifffile
from PIL import Image

from _cli import run
from dropzoo import serving
from dropzoo.common.pixels import Pixels
from dropzoo.predictions.intervals import Interval, fit, of_samples
from dropzoo.predictions.measure import measure_into
from dropzoo.predictions.measuring import (
    NUMBERS,
    Measure,
    fit_measurements,
    likeliest,
    masks_of_samples,
    measure_image,
)
from dropzoo.predictions.objects import find_objects
from dropzoo.predictions.polygons import outlines, write_geojson
from dropzoo.predictions.saved_intervals import load_intervals, save_intervals
from dropzoo.predictions.tags import Tags
from dropzoo.runs import calibrate
from dropzoo.runs.config import RunConfig
from dropzoo.runs.predictors import load_predictor

Y, X = np.mgrid[:120, :120]
MEMBERS = {"num_samples": 2}
ONES = np.ones((120, 120, 1), "float32")


def disc(y: int, x: int, r: int) -> np.ndarray:
    return (Y - y) ** 2 + (X - x) ** 2 <= r * r


@pytest.mark.parametrize("radius", [6, 15, 30])
def test_a_disc(radius):
    found = find_objects(disc(60, 60, radius), ONES * 0.5)
    assert len(found) == 1 and found.area[0] == pytest.approx(np.pi * radius**2, rel=0.05)
    assert found.perimeter[0] == pytest.approx(2 * np.pi * radius, rel=0.05) and found.intensity[0, 0] == 0.5


@pytest.mark.parametrize(
    "mask, whole, cut",
    [
        (disc(40, 40, 20) | disc(40, 74, 20), 1, 2),
        (disc(30, 30, 12) | disc(90, 90, 12), 2, 2),
        (disc(60, 60, 25), 1, 1),
        (disc(60, 60, 25) & ~disc(60, 60, 8), 1, None),
        (np.zeros((120, 120), bool), 0, 0),
        (np.ones((120, 120), bool), 1, 1),
        (disc(30, 60, 14) | disc(52, 60, 14) | disc(76, 60, 14), 1, 3),
    ],
)
def test_objects_that_touch_are_cut_if_asked(mask, whole, cut):
    assert len(find_objects(mask, ONES)) == whole
    found = find_objects(mask, ONES, split=True)
    assert cut in (None, len(found)) and found.area.sum() == mask.sum()
    np.testing.assert_array_equal(found.labels > 0, mask)


def test_small_objects_are_left_out():
    mask = disc(30, 30, 9) | disc(80, 80, 1)
    found = find_objects(mask, ONES, min_area=10)
    assert len(find_objects(mask, ONES)) == 2 and len(found) == 1 and found.labels.max() == 1


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_intervals_cover_at_their_level_and_are_short_where_samples_agree(level):
    random = np.random.default_rng(0)
    covered, width = [], []
    for _ in range(60):
        e, sd = random.poisson(30, 260).astype(float), random.gamma(2, 1, 260)
        t = e + 2 + 1.5 * sd * random.normal(size=260)
        found = fit(e[:160], sd[:160], t[:160], level)
        low, high = np.array([found.around(*each) for each in zip(e[160:], sd[160:], strict=True)]).T
        covered.append(np.mean((low <= t[160:]) & (t[160:] <= high)))
        width.append((high - low).mean() / 2 / np.quantile(np.abs(t - e), level))
    assert np.mean(covered) == pytest.approx(level, abs=0.02) and np.mean(width) < 0.85
    assert Interval.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert found.around(0.0, 0.0)[0] >= 0


@pytest.mark.parametrize("level, least", [(0.5, 2), (0.8, 6), (0.9, 14), (0.95, 29), (0.99, 149)])
def test_too_few_images_for_intervals(level, least):
    with pytest.raises(ValueError, match=f"need at least {least} images with known masks. Received: {least - 1}$"):
        fit(*np.ones((3, least - 1)), level=level)
    assert fit(*np.ones((3, least)), level=level).level == level


def test_the_interval_of_samples():
    assert of_samples(np.arange(101.0)) == pytest.approx((5, 95))


@pytest.mark.parametrize("classes", [2, 256, 300])
def test_ids_of_many_classes_stay(classes):
    p = np.zeros((2, 3, classes), "float32")
    p[..., -1] = 1
    assert (likeliest(p, (2, 3)) == classes - 1).all()


def test_an_object_exists_in_a_share_of_the_samples():
    mean = disc(30, 30, 10) | disc(80, 80, 10)
    samples = np.stack([disc(30, 30, 10) | (disc(80, 80, 10) & (i < 3)) for i in range(10)])
    found = measure_image(mean.astype("uint8"), samples.astype("uint8"), ONES, ["none", "cell"], Measure(), {})
    assert [row["existence"] for row in found.objects] == [1.0, 0.3]
    (row,) = found.rows
    assert (row["count"], row["count_low"], row["count_high"]) == (2, 1, 2) and row["area"] == mean.sum()
    halved = measure_image(mean, samples.astype("uint8"), ONES, ["none", "cell"], Measure(pixel_size=0.5), {})
    assert halved.rows[0]["area"] == mean.sum() / 4 and halved.objects[0]["x"] == pytest.approx(30)


def test_outlines_and_their_place_on_the_map(tmp_path):
    labels = np.zeros((40, 40), int)
    labels[5:15, 5:25] = 1
    labels[8:12, 8:12] = 0  # a hole
    labels[30, 30] = 2
    rings = outlines(labels, 2)
    assert [len(each) for each in rings] == [2, 1]
    assert rings[0][0].min(0).tolist() == [5, 5] and rings[0][0].max(0).tolist() == [25, 15]
    geo = ((33550, 12, 3, (2.0, 2.0, 0.0), True), (33922, 12, 6, (0, 0, 0, 100.0, 500.0, 0), True))
    geo += ((34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, 25832), True),)
    write_geojson(tmp_path / "a.geojson", labels, [{"object": 1}, {"object": 2}], Tags(geo=geo))
    content = json.loads((tmp_path / "a.geojson").read_text())
    first = content["features"][0]["geometry"]
    assert content["crs"]["properties"]["name"].endswith("25832") and first["type"] == "Polygon"
    assert np.min(first["coordinates"][0], 0).tolist() == [110, 470] and len(first["coordinates"]) == 2


MATRIX = (34264, 12, 16, (2.0, 1.0, 0, 100.0, 1.0, -2.0, 0, 500.0, *[0] * 4, 0, 0, 0, 1), True)
SCALE = ((33550, 12, 3, (2.0, 2.0, 0.0), True), (33922, 12, 6, (0, 0, 0, 100.0, 500.0, 0), True))


@pytest.mark.parametrize(
    "geo, pixel, middle",
    [
        ((MATRIX,), 1, [115.5, 496.5]),  # x = 2 * 5.5 + 4.5 + 100, y = 5.5 - 2 * 4.5 + 500
        ((MATRIX,), 2, [114.0, 497.0]),
        (SCALE, 1, [111.0, 491.0]),
        (SCALE, 2, [110.0, 492.0]),
        ((), 2, [5.5, 4.5]),
        (SCALE[:1], 1, [5.5, 4.5]),
    ],
)
def test_the_place_of_a_pixel_on_the_map(geo, pixel, middle, tmp_path):
    labels = np.zeros((9, 9), int)
    labels[4, 5] = 1
    keys = (34735, 3, 12, (1, 1, 0, 2, 1025, 0, 1, pixel, 3072, 0, 1, 25832), True)
    write_geojson(tmp_path / "a.geojson", labels, [{"object": 1}], Tags(geo=(*geo, keys)))
    content = json.loads((tmp_path / "a.geojson").read_text())
    (ring,) = content["features"][0]["geometry"]["coordinates"]
    np.testing.assert_allclose(np.mean(ring[:-1], 0), middle)
    assert ("crs" in content) == (middle[0] > 100)


def test_an_object_that_shares_just_a_half_is_another_one():
    whole, half = np.zeros((1, 8, 8), "uint8"), np.zeros((1, 8, 8), "uint8")
    whole[0, 2:4, 2:6] = half[0, 2, 2:6] = 1
    for mean, samples in ((whole[0], half), (half[0], whole)):
        found = measure_image(mean, samples, ONES[:8, :8], ["none", "cell"], Measure(), {})
        assert [row["existence"] for row in found.objects] == [0.0]


def test_files_of_the_user_stay(model, tmp_path):
    (tmp_path / "scans" / "x_files").mkdir(parents=True)
    Image.fromarray(np.full((8, 8), 200, "uint8")).save(tmp_path / "scans" / "x_files" / "a.png")
    predictor = load_predictor(model, 2, votes=True, sampling="fixed", say=lambda text: None)
    saved, out = ("objects", "labels", "geojson", "page"), tmp_path / "scans" / "x.csv"
    for name in ("x_objects.csv", "x.html", "x_files/a_labels.tif", "x_files/a.geojson", "x.csv"):
        (tmp_path / "scans" / name).write_text("mine")
        with pytest.raises(ValueError, match=f"{name} exists. Pass --overwrite to replace it"):
            measure_into(predictor, [tmp_path / "scans" / "x_files" / "a.png"], out, Measure(), {}, saved)
        assert (tmp_path / "scans" / name).read_text() == "mine"
        (tmp_path / "scans" / name).unlink()
    labels = tmp_path / "scans" / "x_files" / "a_labels.tif"
    tifffile.imwrite(labels, np.zeros((8, 8), "uint8"))
    both = [tmp_path / "scans" / "x_files" / "a.png", labels]
    with pytest.raises(ValueError, match="a_labels.tif is one of the images"):
        measure_into(predictor, both, out, Measure(), {}, saved, overwrite=True)
    report = measure_into(
        predictor, [tmp_path / "scans" / "x_files" / "a.png"], out, Measure(), {}, saved, overwrite=True
    )
    assert len(report.written) == 5 and all(path.is_file() for path in report.written)


@pytest.mark.parametrize(("drops", "samples"), [({}, 2), ({"num_samples": 6, "sampling": "fixed"}, 6)])
def test_an_ensemble_is_measured_by_its_samples(model, drops, samples, tmp_path):
    ensemble = serving.Ensemble([keras.models.load_model(model) for _ in range(2)], **drops)
    loaded = load_predictor(model, 2, votes=True, sampling="fixed", say=lambda text: None)
    predictor = dataclasses.replace(loaded, sampler=ensemble, num_samples=ensemble.num_samples)
    grey = np.where(disc(60, 60, 20), 0.45, 0.0)[..., None].astype("float32")
    mean, found = masks_of_samples(predictor, grey)
    assert found.shape == (samples, 120, 120) and mean.shape == (120, 120)
    assert (len(np.unique(found.sum((1, 2)))) > 1) == bool(drops)  # the object is in some of the samples
    path = save_intervals(predictor, model, {}, Measure(), "scenes")
    assert load_intervals(predictor, model, Measure()) == {}
    assert predictor.members_drop == bool(drops) == ("members_drop" in path.read_text())
    other = dataclasses.replace(predictor, sampler=serving.Ensemble(ensemble.models, **({} if drops else MEMBERS)))
    with pytest.raises(ValueError, match="what differs: members drop"):
        load_intervals(other, model, Measure())
    path.unlink()


def scene(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image of bright and of grey squares, and the mask of the true ones: the bright, and half of the grey."""
    image, mask = np.zeros((48, 48), "float32"), np.zeros((48, 48), "uint8")
    for i in range(9):
        place = slice(16 * (i // 3) + 3, 16 * (i // 3) + 12), slice(16 * (i % 3) + 3, 16 * (i % 3) + 12)
        image[place] = kind = random.choice([0.0, 0.45, 0.9])
        mask[place] = kind > 0.5 or (kind > 0 and random.random() < 0.5)
    return image[..., None], mask


@pytest.mark.costly(keep=0)
def test_calibrated_intervals_cover_and_the_command_uses_them(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    known = [scene(random) for _ in range(40)]
    predictor = load_predictor(model, 8, votes=True, sampling="fixed", say=lambda text: None)
    found = fit_measurements(predictor, known, Measure())
    assert set(found) == {"1 bare count", *(f"1 {number}" for number in NUMBERS)} and found["1 count"].level == 0.9
    for i in range(3):
        Image.fromarray((known[i][0][..., 0] * 255).astype("uint8")).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"damaged")
    images = [f"{i}.png" for i in range(4)]
    command = ["measure", *images, "--model", str(model), "--num-samples", "8"]
    status, _, error = run(capsys, *command, "--intervals", "calibrated")
    assert status == 2 and "--calibrate DATA" in error and "--intervals samples" in error
    status, out, error = run(capsys, *command, "--save", "objects,labels,geojson,page")
    assert status == 1 and "3.png" in error and "may be too narrow" in out
    for kind, index in (("images", 0), ("masks", 1)):
        (tmp_path / "known" / kind).mkdir(parents=True)
        for i, each in enumerate(known):
            pixels = (each[index].reshape(48, 48) * (255, 1)[index]).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "known" / kind / f"{i}.png")
    status, out, error = run(capsys, *command[:1], *command[5:], "--calibrate", str(tmp_path / "known"))
    assert status == 0 and "grey.measurements.json" in out, error
    # The last fifth stays for tests.
    assert load_intervals(predictor, model, Measure())["1 count"].n < found["1 count"].n
    save_intervals(predictor, model, found, Measure(), "scenes")
    status, _, error = run(capsys, *command)
    assert status == 2 and "measurements.csv exists" in error
    before = list(csv.DictReader((tmp_path / "measurements.csv").read_text().splitlines()))
    status, out, _ = run(capsys, *command, "--overwrite")
    after = list(csv.DictReader((tmp_path / "measurements.csv").read_text().splitlines()))
    assert status == 1 and "may be too narrow" not in out and len(before) == len(after) == 3
    assert before[0]["count"] == after[0]["count"] and before[0]["area_high"] != after[0]["area_high"]
    labels = tifffile.imread(tmp_path / "measurements_files" / "0_labels.tif")
    objects = list(csv.DictReader((tmp_path / "measurements_objects.csv").read_text().splitlines()))
    assert labels.shape == (48, 48) and labels.max() == sum(row["image"] == "0.png" for row in objects)
    assert len(json.loads((tmp_path / "measurements_files" / "0.geojson").read_text())["features"]) == labels.max()
    assert "<img" in (tmp_path / "measurements.html").read_text()
    with pytest.raises(ValueError, match="calibrated with other options"):
        load_intervals(predictor, model, Measure(split=True))
    assert load_intervals(predictor, model, Measure(pixel_size=2.0))["1 area"].around(4.0, 0.0) != found[
        "1 area"
    ].around(1, 0)
    for name, other in (("num samples", {"num_samples": 9}), ("input range", {"pixels": Pixels(0.0, 255.0)})):
        with pytest.raises(
            ValueError, match=f"calibrated with other settings .*: {name}.*num_samples=8.*--intervals samples"
        ):
            load_intervals(dataclasses.replace(predictor, **other), model, Measure())
    (model.with_name("grey.measurements.json")).unlink()


def test_intervals_are_calibrated_in_the_pixels_of_the_files(model, tmp_path, monkeypatch):
    """A run may train on images of another size; areas are those of the files."""
    seen = []
    for kind in ("images", "masks"):
        (tmp_path / "known" / kind).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(np.full((20, 24), i % 2, "uint8")).save(tmp_path / "known" / kind / f"{i}.png")
    config = RunConfig(model="unet", data=str(tmp_path / "known"), image_size=8, num_channels=1)
    monkeypatch.setattr(calibrate, "load_model_for", lambda *_, **__: (None, config, config.load_data()))
    for own_size, size in ((True, (20, 24)), (False, (8, 8))):
        wanted = calibrate.CalibrationConfig(data=config.data)
        _, images, _, _ = calibrate.held_out(model, wanted, seen.append, own_size=own_size)
        assert {tuple(image.shape[1:3]) for image, _ in images} == {size}
