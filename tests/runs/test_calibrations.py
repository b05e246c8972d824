"""The calibration that belongs to what a user names: a run, a `.keras` file, a SavedModel."""

import pytest

from dropzoo import serving
from dropzoo.runs.calibrations import find_calibration
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
