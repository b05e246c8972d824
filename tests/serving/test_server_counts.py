"""Counts of objects on the server's page, with the intervals that an export holds.

The rule: an interval is shown only if the export has one for the class; a file that is damaged counts as none.
"""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from dropzoo.predictions.intervals import fit
from dropzoo.predictions.saved_intervals import export_counts
from dropzoo.serving.server.counts import Count, read_counts
from dropzoo.serving.server.info import read_info
from dropzoo.serving.server.pictures import picture


def export(folder: Path, counts: object) -> Path:
    (folder / "assets.extra").mkdir(exist_ok=True)
    (folder / "assets.extra" / "info.json").write_text(json.dumps({"class_names": ["background", "cell"]}))
    (folder / "assets.extra" / "counts.json").write_text(counts if isinstance(counts, str) else json.dumps(counts))
    return folder


def test_an_interval_is_that_of_the_calibration(tmp_path):
    """The whole numbers within the interval that `dropzoo measure` gives without samples."""
    truths = np.arange(60) % 17
    known = fit(truths + np.random.default_rng(0).normal(0, 2, 60), np.zeros(60), truths)
    (count,) = read_counts(export(tmp_path, {"counts": {"cell": known.to_json()}})).values()
    for found in range(30):
        low, high = known.around(found, 0.0)
        assert count.around(found) == (int(np.ceil(low - 1e-9)), int(np.floor(high + 1e-9)))
    assert count.level == 0.9 and read_info(tmp_path).outputs[0].counts == {"cell": count}


@pytest.mark.parametrize("counts", ["no json", {}, {"counts": {"cell": {"level": 0.9}}}, {"counts": [1]}, [1]])
def test_a_damaged_file_counts_as_none(tmp_path, counts):
    assert read_counts(export(tmp_path, counts)) == read_info(tmp_path).outputs[0].counts == {}
    assert read_counts(tmp_path / "none") == {}


@pytest.mark.parametrize("known", [True, False])
def test_the_page_gets_counts_with_their_ends(known):
    p = np.zeros((1, 6, 6, 2))
    p[..., 0], p[0, :2, :2], p[0, 4:, 4:] = 1.0, (0, 1), (0, 1)
    counts = {"cell": Count(0.9, 0.0, 0.5, 1.0)} if known else {}
    background, cell = picture({"mean": p}, ["background", "cell"], "multi_class", counts)["classes"]
    assert cell["objects"] == 2 and "objects" not in background
    ends = {name: cell[name] for name in ("least", "most", "level") if name in cell}
    assert ends == ({"least": 1, "most": 3, "level": 0.9} if known else {})


@pytest.mark.parametrize(
    ("change", "written"),
    [({}, True), ({"num_samples": 9}, False), ({"calibration": True}, False), ({"model": "x"}, False)]
    + [({"split": True}, False), ({"min_area": 5}, False)],
)
def test_an_export_gets_the_intervals_that_hold_for_it(tmp_path, monkeypatch, change, written):
    from dropzoo.predictions import saved_intervals

    monkeypatch.setattr(saved_intervals, "digest_of", lambda model: "digest")
    answers = {"model": "digest", "num_samples": 30, "calibration": False}
    how = {"split": False, "min_area": 1, "pixel_size": 1.0}
    content = {
        "data": "cells",
        "answers": {name: change.get(name, value) for name, value in answers.items()},
        "how": {name: change.get(name, value) for name, value in how.items()},
        "intervals": {"cell count": {}, "cell bare count": {"level": 0.9}},
    }
    run = tmp_path / "run"
    run.mkdir()
    assert export_counts(run, tmp_path, 30, False) is False
    (run / "measurements.json").write_text(json.dumps(content))
    assert export_counts(run, tmp_path, 30, False) is written
    assert (tmp_path / "assets.extra" / "counts.json").exists() is written
