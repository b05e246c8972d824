"""The names of outputs, and what the rows of the table say."""

import csv
from pathlib import Path

import numpy as np
import pytest

from dropzoo.predictions.paths import Names
from dropzoo.predictions.summary import MaskSummary, urgency
from dropzoo.predictions.table import Journal, write_table
from dropzoo.predictions.writing import files_of, parse_kinds


def test_names_and_kinds():
    names = Names([("x_2", "old")])
    assert [names.of(key, Path("x")) for key in ("a", "b", "a", "old")] == [
        (Path("x"), ""), (Path("x"), "_3"), (Path("x"), ""), (Path("x"), "_2")
    ]  # fmt: skip
    assert Names([("A", "one")]).of("two", Path("a")) == (Path("a"), "_2")  # one file on some systems
    assert (
        parse_kinds("mask, mutual-information,mask") == ("mask", "mutual_information")
        and parse_kinds("none") == ()
    )
    with pytest.raises(ValueError, match="Did you mean 'mask'"):
        parse_kinds("masks")
    files = files_of(Path("o"), Path("s/x"), "_2", ("mask", "entropy", "picture"), "png")
    assert [str(path) for path in files.values()] == [
        "o/s/x_mask_2.png",
        "o/s/x_entropy_2.tif",
        "o/s/x_prediction_2.png",
    ]


def test_the_pairwise_dice_of_samples_by_hand():
    samples = np.array([[[0, 1, 1, 0]], [[0, 1, 0, 0]], [[1, 1, 0, 0]]])  # (samples, 1, 4)
    votes = np.stack([(samples == i).sum(0) for i in (0, 1)], -1).astype("float32")
    summary = MaskSummary(None, 3)
    summary.add({"mean": votes[:, :2] / 3, "votes": votes[:, :2]})
    summary.add({"mean": votes[:, 2:] / 3, "votes": votes[:, 2:]})  # in two strips, as for the whole
    pairs = [(a, b) for i, a in enumerate(samples) for b in samples[i + 1 :]]
    for name in (0, 1):
        both = sum(((a == name) & (b == name)).sum() for a, b in pairs)
        each = sum((a == name).sum() + (b == name).sum() for a, b in pairs)
        assert summary.row((1, 4))[f"dice_{name}"] == pytest.approx(2 * both / each)
    assert summary.row((1, 4))["pairwise_dice"] == summary.row((1, 4))["dice_1"]


def test_a_class_that_is_nowhere_sure_has_no_sure_pixels():
    for promised, wanted in (({}, {"inner_a": 1, "inner_b": 0}), ({"inner": (1,)}, {"inner_b": 0})):
        summary = MaskSummary(("a", "b"), 1, promised)
        inner = np.stack([np.ones((2, 2), bool), np.zeros((2, 2), bool)], -1)
        summary.add({"mean": np.full((2, 2, 2), 0.5, "float32"), "inner": inner})
        row = summary.row((2, 2))
        assert {name: row[name] for name in row if name.startswith("inner")} == wanted


def test_what_to_look_at_first(tmp_path):
    rows = [{"image": n, "pairwise_dice": d, "predictive_entropy_mean": 0.1} for n, d in (("a", 0.9), ("b", 0.2))]
    rows += [{"image": "c", "pairwise_dice": None, "predictive_entropy_mean": 0.2}]
    rows += [{"image": "d", "pairwise_dice": 0.99, "predictive_entropy_mean": 0.0, "defer": True}]
    write_table(tmp_path / "t.csv", rows, urgency)
    assert [row["image"] for row in csv.DictReader((tmp_path / "t.csv").read_text().splitlines())] == [
        "d",
        "b",
        "a",
        "c",
    ]
    with pytest.raises(ValueError, match="is damaged"):
        (tmp_path / ".t.csv.journal").write_text("x\ny\n")
        Journal(tmp_path / "t.csv", {})
