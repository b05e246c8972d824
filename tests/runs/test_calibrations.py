"""The calibration that belongs to what a user names: a run, a `.keras` file, a SavedModel."""

import zipfile

import keras
import numpy as np
import pytest

from dropzoo import layers, serving
from dropzoo.common.pixels import Pixels
from dropzoo.models.graph.record import read_record, recorded, remember
from dropzoo.runs.calibrations import calibration_file, find_calibration, keep_calibration
from dropzoo.runs.predictors import load_predictor
from dropzoo.serving.calibration.facts import Facts

CAL = serving.Calibration(1.5, {}, {}, Facts("multi_class", ((4,),), (4,), {}, 1, 1, None, 0), data="digits")

# What a user names, the files that make it what it is, and where its calibration is kept.
PLACES = {
    "a run": ("run", ["run/run.json", "run/model.keras"], "run/calibration.json"),
    "the model of a run": ("run/model.keras", ["run/run.json", "run/model.keras"], "run/calibration.json"),
    "the last snapshot": (
        "snap/model.keras",
        ["snap/ensemble.json", "snap/run.json", "snap/model.keras"],
        "snap/model.calibration.json",
    ),
    "a file": ("mine.keras", ["mine.keras", "calibration.json"], "mine.calibration.json"),
    "an export": ("cnn/3", ["cnn/3/saved_model.pb"], "cnn/3/assets.extra/calibration.json"),
    "the newest version": (
        "cnn",
        ["cnn/9/saved_model.pb", "cnn/10/saved_model.pb"],
        "cnn/10/assets.extra/calibration.json",
    ),
}


@pytest.mark.parametrize("named", PLACES)
def test_it_is_found(named, tmp_path):
    path, files, place = PLACES[named]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert find_calibration(tmp_path / path) is None
    CAL.save(tmp_path / place)
    assert find_calibration(tmp_path / path) == CAL
    if "saved_model.pb" in files[0]:
        with pytest.raises(ValueError, match="export the run again with --no-calibration"):
            find_calibration(tmp_path / path, wanted=False)
    else:
        assert find_calibration(tmp_path / path, wanted=False) is None


def test_a_path_of_nothing_has_none(tmp_path):
    assert find_calibration(tmp_path / "nothing") is find_calibration(tmp_path / "nothing.keras") is None


def test_a_file_takes_its_calibration_along(tmp_path):
    """Where both exist, the file beside it counts. Keras loads the archive; a model saved anew has none."""
    path, moved = tmp_path / "mine.keras", tmp_path / "moved" / "other.keras"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    remember(model, Pixels(0.0, 255.0))
    model.save(path)
    members = zipfile.ZipFile(path).namelist()
    keep_calibration(path, CAL)
    keep_calibration(path, CAL)  # again: in place of the first
    assert sorted(zipfile.ZipFile(path).namelist()) == sorted([*members, "assets/dropzoo_calibration.json"])
    moved.parent.mkdir()
    path.rename(moved)
    assert find_calibration(moved) == serving.Calibration.load(moved) == CAL
    assert find_calibration(moved, wanted=False) is None
    newer = serving.Calibration(**{**vars(CAL), "temperature": 2.0})
    newer.save(calibration_file(moved))
    assert find_calibration(moved) == newer
    loaded = keras.models.load_model(moved)
    assert recorded(loaded) == read_record(moved) == Pixels(0.0, 255.0)
    loaded.save(path)
    with pytest.raises(ValueError, match="holds no calibration. To make one, run: dropzoo calibrate"):
        serving.Calibration.load(path)
    with pytest.raises(ValueError, match="an existing .keras file"):
        CAL.save(tmp_path / "none.keras")
    assert not (tmp_path / "none.keras").exists()


def test_who_asks_for_another_number_of_samples_is_told(tmp_path):
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, keras.layers.Dense(3)(layers.Dropout(0.5)(keras.layers.Flatten()(inputs))))
    random = np.random.default_rng(0)
    images, labels = random.random((20, 4, 4, 1), "float32"), random.integers(0, 3, 20)
    calibration = serving.calibrate(serving.MonteCarlo(model, 4), images, labels, verbose=0)
    model.save(tmp_path / "m.keras")
    calibration.save(tmp_path / "m.keras")
    said: list[str] = []
    for asked, calibrated, expected in ((None, True, 4), (4, True, 4), (6, False, 6), (6, True, 4)):
        assert not any("changes nothing" in line for line in said)
        found = load_predictor(tmp_path / "m.keras", asked, say=said.append, calibrated=calibrated)
        assert found.num_samples == expected
    assert "The calibration is for 4 samples, so --mc 6 changes nothing. Pass --no-calibration" in said[-1]
