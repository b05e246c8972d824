"""Outputs beside the images, and answers that are written while the next are computed.

The rule: a folder may be searched and written to at once, and what was written there is no image; answers keep
their order, and an image whose files cannot be written fails alone.
"""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dropzoo.common.pixels import Pixels
from dropzoo.predictions.answers import Answer
from dropzoo.predictions.behind import written_behind
from dropzoo.predictions.reading import Page
from dropzoo.predictions.run import Plan, predict_into
from dropzoo.runs.predictor import Predictor


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
    assert outcomes[0] == {"image": "a"} and outcomes[3] == {"image": "c"} and names == {"write"}
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
