"""`dropzoo calibrate`: which images it takes, what it writes and prints, and what it refuses."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from _cli import TINY, run
from dropzoo import serving
from dropzoo.cli import app as cli
from dropzoo.common.checks import check_positive
from dropzoo.predictions import saved_intervals
from dropzoo.runs import calibrate


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run on a folder of images of two classes, with dropout."""
    root = tmp_path_factory.mktemp("shades")
    random = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 110)):
        (root / "data" / name).mkdir(parents=True)
        for i in range(90):
            Image.fromarray(random.integers(low, low + 120, (8, 8)).astype("uint8")).save(
                root / "data" / name / f"{i}.png"
            )
    out = root / "run"
    options = ["--dropout", "dense1=0.3", "--validation-split", "0.5", "--out", str(out), *TINY]
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "simple_cnn", "--data", str(root / "data"), *options])
    assert stop.value.code == 0
    return out


@pytest.fixture
def own(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.mark.costly(keep=0)
def test_a_run_is_calibrated_on_its_validation_images(own, capsys):
    status, out, error = run(
        capsys, "calibrate", str(own), "--guarantee", "set=0.1", "--guarantee", "error=0.8", "--mc", "4"
    )
    assert status == 0, error
    cal = serving.Calibration.load(own / "calibration.json")
    info = json.loads((own / "run.json").read_text())["info"]
    assert cal.n == info["num_validation"] and cal.data == "data, validation images"
    assert cal.guarantees.keys() == {"set", "error"}
    assert "one pass, with temperature" in out and "In at least 90 of 100 images" in out
    assert "It does not hold for images from elsewhere" in out and "Saved" in out


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--guarantee", "set=0.001"], "the lowest possible level is 0.0"),
        (["--guarantee", "set=0"], "must be in (0, 1)"),
        (["--guarantee", "set"], '"name=level"'),
        (["--guarantee", "set=0.1", "--guarantee", "set=0.2"], "can be given only once"),
        (["--guarantee", "sets=0.1"], "Did you mean 'set'"),
        (["--guarantee", "miss=0.1"], "Choose from: set, error"),
        (["--guarantee", "set=0.1", "--classes", "lite"], "Did you mean 'light'"),
        (["--temperature", "two"], "Unknown temperature 'two'"),
        (["--sites", "all"], "'as_is', 'search'"),
        (["--confidence", "2"], "`confidence` must be in (0, 1)"),
        (["--data", "digits"], "differ from the data that"),
        (["--manual-dir", "."], "Pass --data too"),
    ],
)
def test_bad_input_writes_nothing(trained, capsys, options, message):
    before = sorted(trained.iterdir())
    status, _, error = run(capsys, "calibrate", str(trained), "--mc", "2", "--sites", "as_is", *options)
    assert status == 2 and message in error and len(error.strip().splitlines()) == 1, error
    assert sorted(trained.iterdir()) == before


def test_void_labels_are_left_out(monkeypatch):
    """The label that a run ignores in its masks is ignored in its calibration."""
    asked = {}
    info = SimpleNamespace(ignore_class=255)
    monkeypatch.setattr(calibrate, "held_out", lambda path, wanted, say: (["model"], "images", info, "cells"))
    for name in ("settle_range", "check_bits", "keep_calibration", "_predictor", "_classes"):
        monkeypatch.setattr(calibrate, name, lambda *_: None)
    monkeypatch.setattr(calibrate, "fed", lambda images, model: images)
    monkeypatch.setattr(calibrate, "named_sites", lambda model: {})
    monkeypatch.setattr(serving, "calibrate", lambda *args, **options: asked.update(options))
    calibrate.calibrate_run(Path("run"), calibrate.CalibrationConfig())
    assert asked["ignore_class"] == 255


@pytest.mark.costly(keep=0)
@pytest.mark.filterwarnings("always:.*training images of the run")
def test_training_images_are_warned_of(own, capsys, tmp_path):
    """A folder of another name that holds images that the run was trained on."""
    data = Path(json.loads((own / "run.json").read_text())["folder"])
    shutil.copytree(data, tmp_path / "again")
    options = ["--data", str(tmp_path / "again"), "--mc", "0"]
    status, _, error = run(capsys, "calibrate", str(own), *options)
    assert status == 0 and "were training images of the run, so no guarantee holds" in error
    assert serving.Calibration.load(own / "calibration.json").sites == {}


def test_a_file_is_calibrated_on_the_images_that_are_given(own, capsys, tmp_path):
    shutil.copy(own / "model.keras", tmp_path / "mine.keras")
    status, _, error = run(capsys, "calibrate", str(tmp_path / "mine.keras"))
    assert status == 2 and "--data" in error
    data = json.loads((own / "run.json").read_text())["folder"]
    status, out, error = run(capsys, "calibrate", str(tmp_path / "mine.keras"), "--data", data, "--mc", "0")
    assert status == 0 and "must be new to the model" in out, error
    calibration = serving.Calibration.load(tmp_path / "mine.calibration.json")
    assert calibration.data == "data" and calibration.facts.num_samples == 1  # --mc 0 searches no sites


@pytest.mark.costly(keep=0)
def test_masks_get_contours_and_intervals_of_measurements(capsys, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "cells" / folder).mkdir(parents=True)
    for i in range(30):
        mask = np.zeros((16, 16), "uint8")
        row, column = random.integers(2, 9, 2)
        mask[row : row + 5, column : column + 5] = 1
        grey = (mask * 130 + random.random((16, 16)) * 120).astype("uint8")
        Image.fromarray(grey).save(tmp_path / "cells" / "images" / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / "cells" / "masks" / f"{i}.png")
    x = keras.Input((16, 16, 1))
    y = keras.layers.SpatialDropout2D(0.3, name="grey_dropout")(keras.layers.Conv2D(4, 3, padding="same")(x))
    keras.Model(x, keras.layers.Conv2D(2, 1, name="logits")(y)).save(tmp_path / "cells.keras")
    options = ["--data", str(tmp_path / "cells"), "--class-names", "none,cell", "--mc", "3", "--sites", "as_is"]
    options += ["--guarantee", "miss=0.2", "--guarantee", "false=0.9", "--classes", "1", "--input-range", "0,1"]
    status, out, error = run(capsys, "calibrate", str(tmp_path / "cells.keras"), *options)
    assert status == 0 and "At least" not in error, error
    cal = serving.Calibration.load(tmp_path / "cells.calibration.json")
    assert cal.guarantees.keys() == {"miss", "false"} and cal.guarantees["miss"].classes == (1,)
    assert "The outer contour holds at least 80 of 100 points" in out
    assert "area of class cell" in out
    measured = tmp_path / "cells.measurements.json"
    assert json.loads(measured.read_text())["how"]["split"] is False, out
    # The objects that the user chose stay; intervals that cannot be fitted again go.
    measured.write_text(measured.read_text().replace('"split": false', '"split": true'))
    assert run(capsys, "calibrate", str(tmp_path / "cells.keras"), *options)[0] == 0
    assert json.loads(measured.read_text())["how"]["split"] is True
    monkeypatch.setattr(saved_intervals, "fit_measurements", lambda *_: check_positive(0, "images"))
    status, out, _ = run(capsys, "calibrate", str(tmp_path / "cells.keras"), *options)
    assert status == 0 and "intervals of dropzoo measure were not calibrated" in out and not measured.exists()
