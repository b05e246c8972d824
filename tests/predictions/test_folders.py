"""Outputs beside the images, and answers that are written while the next are computed.

The rule: a folder may be searched and written to at once, and what was written there is no image; answers keep
their order, and an image whose files cannot be written fails alone.
"""

import dataclasses
import os
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from dropzoo import layers, serving
from dropzoo.common.pixels import Pixels
from dropzoo.predictions.answers import Answer, answers
from dropzoo.predictions.behind import written_behind
from dropzoo.predictions.paths import find_images
from dropzoo.predictions.reading import Page
from dropzoo.predictions.run import Plan, predict_into
from dropzoo.runs.predictor import Predictor
from dropzoo.runs.predictors import load_predictor


def sees(images):
    """Two classes: bright and dark pixels."""
    return {"mean": np.concatenate([1 - images, images], -1), "predictive_entropy": images[..., 0]}


PREDICTOR = Predictor(sees, (None, None, 1), ("dark", "bright"), Pixels(), is_map=True)


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "deep/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((6, 5), 200, "uint8")).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("paths", "out", "count"),
    [
        (["."], ".", 2),
        (["*.png"], ".", 1),
        (["**/*.png"], ".", 2),
        (["."], "deep", 1),  # what lies in a folder of outputs below the images is left out
        (["deep"], ".", 1),
        (["deep"], "deep", 1),
    ],
)
def test_outputs_beside_the_images(folder, monkeypatch, paths, out, count):
    monkeypatch.chdir(folder)
    plan = Plan(Path(out), ("mask", "entropy"), table=Path(out) / "predictions.csv")
    first = predict_into(PREDICTOR, paths, plan)
    assert len(first.rows) == len(first.written) == count and not first.failed
    again = predict_into(PREDICTOR, paths, plan)
    assert again.skipped == count and again.rows == first.rows
    anew = predict_into(PREDICTOR, paths, Plan(**{**vars(plan), "overwrite": True}))
    assert len(anew.rows) == count and not anew.skipped


@pytest.mark.skipif(sys.platform == "win32", reason="links need a permission there")
def test_linked_folders_are_searched_as_in_training(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("store")
    Image.fromarray(np.full((6, 5), 100, "uint8")).save(other / "c.png")
    (folder / "link").symlink_to(other)
    (folder / "circle").symlink_to(folder)
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    names = {str(each.name) for each in find_images([folder])}
    assert names == {"a", "deep/b", "link/c", "gone"}
    report = predict_into(PREDICTOR, [folder], Plan(folder / "out", ("mask",)))
    assert len(report.written) == 3 and "Cannot read" in str(report.failed[0][1])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("given", [".", "*.png", "K\udcf6ln.png"])
def test_a_name_that_is_not_in_utf_8_is_refused_before_anything_is_written(folder, given, monkeypatch):
    monkeypatch.chdir(folder)
    os.rename("a.png", "K\udcf6ln.png")
    plan = Plan(Path("out"), ("mask",), table=Path("out/predictions.csv"))
    with pytest.raises(ValueError, match=r"must be in UTF-8. Received: b'K\\xf6ln.png'. Rename"):
        predict_into(PREDICTOR, [given], plan)
    assert not Path("out").exists()


def test_what_a_model_cannot_give_is_refused_before_anything_is_written(folder):
    """An export without a calibration and without samples."""
    exported = dataclasses.replace(PREDICTOR, outputs=frozenset({"probabilities", "classes"}))
    for kind in ("outer", "inner", "mutual_information", "deviation"):
        with pytest.raises(ValueError, match=f"The model has no output '{kind}'"):
            predict_into(exported, [folder], Plan(folder / "out", ("mask", kind), table=folder / "out" / "t.csv"))
    assert not (folder / "out").exists()
    calibrated = dataclasses.replace(exported, outputs=frozenset({"mean", "outer", "mutual_information"}))
    assert not calibrated.lacks("outer") and not calibrated.lacks("mutual_information")


def answer(name: str, strips: object = (), error: Exception | None = None) -> Answer:
    return Answer(Page(Path(name)), (4, 4), True, strips, error=error)


@pytest.mark.parametrize("lazy", [False, True])
def test_answers_are_written_behind_in_order(lazy):
    def write(each):
        names.add(threading.current_thread().name.split("_")[0])
        if each.page.path.name == "full":
            raise OSError("no space left")
        return {"image": each.page.path.name}

    names, begun = set(), []
    strips = iter(()) if lazy else []
    found = [answer("a", strips), answer("bad", error=RuntimeError("of a decoder")), answer("full", strips)]
    got = list(written_behind([*found, answer("c", strips)], write, lambda: begun.append(1)))
    assert [each.page.path.name for each, _ in got] == ["a", "bad", "full", "c"]
    outcomes = [row for _, row in got]
    assert outcomes[0] == {"image": "a"} and outcomes[3] == {"image": "c"}
    assert names == {threading.current_thread().name if lazy else "write"}
    assert isinstance(outcomes[1], ValueError) and isinstance(outcomes[2], OSError) and len(begun) == 3


def test_other_errors_stop_the_run():
    def write(each):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(written_behind([answer("a", [])], write, lambda: None))
    assert isinstance(list(written_behind([answer("a", [])], write, lambda: 1 + _full()))[0][1], OSError)


def _full() -> int:
    raise OSError("no space left")


def test_a_run_claims_its_files_once(folder, monkeypatch):
    """The cost of an image does not grow with the number of images."""
    from dropzoo.predictions.table import Journal

    calls = []
    claim = Journal.claim
    monkeypatch.setattr(Journal, "claim", lambda self, *args: calls.append(1) or claim(self, *args))
    plan = Plan(folder / "out", ("mask",), table=folder / "t.csv")
    assert len(predict_into(PREDICTOR, [folder], plan).rows) == 2 and len(calls) == 1


@pytest.mark.costly(keep=0)
def test_tiles_have_the_answers_of_a_calibration(tmp_path):
    """An inner or outer mask depends on the whole image, and is the same as from `predict_tiled`."""
    x = keras.Input((None, None, 1))
    y = layers.SpatialDropout2D(0.2, name="x_dropout")(keras.layers.Identity(name="x")(x))
    model = keras.Model(x, keras.layers.Conv2D(2, 1)(y))
    model.set_weights([np.float32([[[[-6.0, 6.0]]]]), np.float32([3.0, -3.0])])
    random = np.random.default_rng(0)
    labels = (random.random((30, 8, 8)) < 0.3).astype(int)
    images = (labels * 0.4 + random.random(labels.shape) * 0.6)[..., None].astype("float32")
    guarantee = {"miss": 0.2, "false": 0.5, "error": 0.3}
    mc = serving.MonteCarlo(model, 3, sampling="fixed")
    cal = serving.calibrate(mc, images, labels, guarantee=guarantee, verbose=0)
    model.save(tmp_path / "m.keras")
    cal.save(tmp_path / "m.keras")
    large = np.round(random.random((30, 13)) * 255).astype("uint8")
    Image.fromarray(large).save(tmp_path / "a.png")
    said = {"sampling": "fixed", "say": lambda text: None, "input_range": (0, 1)}
    predictor = load_predictor(tmp_path / "m.keras", **said)
    (found,) = answers(predictor, [Page(tmp_path / "a.png")], tile=8, overlap=2)
    whole = found.whole()
    expected = serving.predict_tiled(
        serving.MonteCarlo(model, calibration=cal), large[..., None] / np.float32(255), tile=8, overlap=2
    )
    for name in ("outer", "inner", "mean"):
        np.testing.assert_allclose(whole[name], expected[name], atol=1e-6)
    assert bool(whole["defer"]) == bool(expected["defer"])
    assert whole["outer"].any() and not whole["outer"].all() and whole["outer"].shape == (30, 13, 2)
    (again,) = answers(predictor, [Page(tmp_path / "a.png")], tile=8, overlap=2)
    assert {"inner_1", "outer_1", "defer"} <= again.row(predictor).keys()


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["images/0", "masks/0"], 1),
        (["JPEGImages/0", "SegmentationClass/0"], 1),
        (["images/train/0", "labels/train/0"], 1),
        (["train/0", "trainannot/0", "test/1", "testannot/1"], 2),
        (["with_mask/0", "without_mask/0"], 2),  # classes
        (["masks/0", "faces/1"], 2),
        (["labels/0"], 1),
    ],
)
def test_masks_of_a_data_set_are_no_images(tmp_path, names, count):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
    assert len(find_images([tmp_path])) == count
