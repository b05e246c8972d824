"""Outputs are no images, whichever command wrote them and whichever command asks.

The rule: a journal says which files a command wrote, and every search for images leaves them out, also when a run
began anew, the journal is damaged, the folder has moved, or a process was killed. An answer belongs to the file
that was read.
"""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dropzoo.common.pixels import Pixels
from dropzoo.predictions.paths import find_images
from dropzoo.predictions.run import Plan, predict_into
from dropzoo.predictions.table import claim_files
from dropzoo.runs.predictor import Predictor


def sees(images):
    return {"mean": np.concatenate([1 - images, images], -1), "predictive_entropy": images[..., 0]}


PREDICTOR = Predictor(sees, (None, None, 1), ("dark", "bright"), Pixels(), is_map=True)


@pytest.fixture
def scans(tmp_path):
    """A folder of images whose predictions lie beside them."""
    folder = tmp_path / "scans"
    for name in ("a.png", "deep/b.png"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(np.full((6, 5), 200, "uint8")).save(folder / name)
    predict_into(PREDICTOR, [folder], plan(folder, kinds=("mask", "entropy")))
    assert (folder / "deep" / "b_mask.png").exists()
    return folder


def plan(out: Path, **changes) -> Plan:
    return dataclasses.replace(Plan(out, ("mask",), table=out / "predictions.csv"), **changes)


def names(*paths) -> list[str]:
    return sorted(each.path.name for each in find_images(paths))


def test_every_search_leaves_outputs_out(scans, tmp_path, monkeypatch):
    assert names(scans) == names(tmp_path) == names(f"{scans}/**/*.png") == ["a.png", "b.png"]
    assert names(scans / "deep") == ["b.png"] and names(f"{scans}/*.png") == ["a.png"]
    monkeypatch.chdir(scans)
    assert names("deep") == names("../scans/deep") == ["b.png"]
    for out in (tmp_path / "other", scans):
        report = predict_into(PREDICTOR, [scans], plan(out, kinds=(), table=tmp_path / f"{out.name}.csv"))
        assert len(report.rows) == 2
    assert names(scans / "a_mask.png") == ["a_mask.png"]  # a file that is named is meant


def test_a_run_anew_keeps_older_claims(scans):
    predict_into(PREDICTOR, [scans / "deep"], plan(scans / "deep", kinds=("mask", "entropy"), overwrite=True))
    predict_into(PREDICTOR, [scans / "a.png"], plan(scans, overwrite=True))
    assert names(scans) == ["a.png", "b.png"]


def test_a_damaged_journal_still_claims(scans):
    journal = scans / ".predictions.csv.journal"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([*lines[:2], "{", *lines[2:]]))
    assert names(scans) == ["a.png", "b.png"]
    predict_into(PREDICTOR, [scans / "a.png"], plan(scans, overwrite=True))
    assert names(scans) == ["a.png", "b.png"]


def test_a_folder_that_moved(scans, tmp_path):
    shutil.move(scans, tmp_path / "new")
    assert names(tmp_path / "new") == ["a.png", "b.png"]


def test_files_of_measurements_and_unfinished_ones(scans):
    made = [scans / "m_files" / f"{name}_labels.tif" for name in "ab"]
    for each in [*made, scans / "a_mask.unfinished.png"]:
        each.parent.mkdir(exist_ok=True)
        Image.new("L", (3, 3)).save(each)
    claim_files(scans / "m.csv", made[:1])
    claim_files(scans / "m.csv", made[1:])
    assert names(scans) == names(f"{scans}/**/*.*") == ["a.png", "b.png"]


def test_an_image_that_is_replaced_while_it_is_read(tmp_path):
    path = tmp_path / "a.png"

    def replacing(images):
        Image.fromarray(np.full((7, 5), 10, "uint8")).save(path)
        return sees(images)

    Image.fromarray(np.full((6, 5), 200, "uint8")).save(path)
    predict_into(dataclasses.replace(PREDICTOR, predict=replacing), [path], plan(tmp_path / "out"))
    report = predict_into(PREDICTOR, [path], plan(tmp_path / "out"))
    assert not report.skipped and report.rows[0]["height"] == 7
