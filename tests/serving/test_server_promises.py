"""What the page shows of a calibration: a decision, contours, and sentences."""

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.calibration.facts import Facts
from dropzoo.serving.calibration.guarantee import Guarantee
from dropzoo.serving.calibration.words import calibration_info, promises_in_words
from dropzoo.serving.server.info import Output, read_info
from dropzoo.serving.server.pictures import pictures

CAL = Calibration(
    1.2,
    {"dense1": 0.5},
    {name: Guarantee(name, level, (0.5,), n=(60,)) for name, level in (("set", 0.1), ("error", 0.025))},
    Facts("multi_class", ((8, 8, 1),), (3,), {"dense1": "Dropout"}, 1, 8, "balanced", 0),
    n=90,
    data="digits, validation images",
    date="2026-01-31T12:00:00+00:00",
)
NAMES = ("zero", "one", "two")
P = np.array([[0.2, 0.3, 0.5]], "float32")


@pytest.mark.parametrize(
    ("answer", "decision"),
    [
        ({"set": [[False, True, True]], "defer": [False]}, "two or one"),  # the likeliest first
        ({"set": [[True, True, True]]}, "two, one or zero"),
        ({"set": [[False, False, True]], "defer": [False]}, "two"),
        ({"set": [[False, False, False]]}, "Not sure: no class is likely enough"),
        ({"set": [[False, False, True]], "defer": [True]}, "Ask a human"),
        ({"defer": [False]}, "No need to ask a human"),
    ],
)
@pytest.mark.parametrize("main", ["mean", "probabilities"])
def test_decisions(answer, decision, main):
    output = Output("", "multi_class", NAMES, promises_in_words(CAL), "when")
    arrays = {name: np.array(value) for name, value in answer.items()}
    shown = pictures({main: P, **arrays}, [output])["promise"]
    assert shown["decision"] == decision and shown["human"] == (decision == "Ask a human")
    assert shown["condition"] == "when" and "contours" not in shown
    assert shown["words"][0].startswith("In at least 90 of 100 images, the true class is")
    assert "at least 975 of 1,000 answers are right" in shown["words"][1]
    assert "promise" not in pictures({main: P}, [output])


def test_intervals():
    answer = {"mean": P, "variance": P, "lower": P - 1, "upper": P + 1}
    shown = pictures(answer, [Output("", "regression", NAMES)])["promise"]
    assert shown["decision"].startswith("from -0.8 to 1.2; from -0.7 to 1.3")


def test_contours_lie_over_the_image():
    outer, inner = np.zeros((2, 1, 9, 9, 2), bool)
    outer[0, 1:8, 1:8, 1], inner[0, 3:6, 3:6, 1] = True, True
    answer = {"mean": np.full((1, 9, 9, 2), 0.5, "float32"), "outer": outer, "inner": inner}
    shown = pictures(answer, [Output("", "multi_class")])["promise"]
    image = Image.open(io.BytesIO(base64.b64decode(shown["contours"].split(",")[1])))
    drawn = np.array(image.convert("RGBA"))
    assert (drawn[1, 1:8] == (230, 159, 0, 255)).all() and (drawn[3, 3:6] == (0, 114, 178, 255)).all()
    assert (drawn[..., 3] > 0).sum() == 24 + 8 and shown["decision"] == ""
    assert "promise" in pictures({name: answer[name] for name in ("mean", "inner")}, [Output()])


def test_the_page_reads_the_sentences_from_the_export(tmp_path):
    (tmp_path / "assets.extra").mkdir()
    for calibration in (calibration_info(CAL), None):
        told = {"task": "multi_class", "class_names": NAMES, "calibration": calibration}
        (tmp_path / "assets.extra" / "info.json").write_text(json.dumps(told))
        (output,) = read_info(tmp_path).outputs
        assert output.promises == (promises_in_words(CAL) if calibration else {})
        assert bool(output.condition) == (calibration is not None)
    assert (
        "measured on 2026-01-31 with 90 images (digits, validation images)" in calibration_info(CAL)["condition"]
    )


@pytest.mark.parametrize(
    ("name", "level", "words"),
    [
        ("set", 0.1, "at least 90 of 100 images"),
        ("miss", 0.05, "at least 95 of 100 points"),
        ("false", 0.025, "at least 975 of 1,000 points"),
        ("error", 1 / 3, "at least 6,666 of 10,000 answers"),  # never more than is promised
        ("interval", 0.29, "at least 71 of 100 values"),
    ],
)
def test_levels_in_words(name, level, words):
    cal = replace(CAL, guarantees={name: Guarantee(name, level, (0.5,), n=(60,))})
    assert words in promises_in_words(cal)[name]
