"""Runs on a folder of images: which one it was, whether it still is, and what is printed of its paths."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from _cli import TINY, run
from dropzoo.cli import app as cli

TRAIN = ("train", "simple_cnn", "--data", "two", "--out", "run", *TINY)


def write_images(folder: Path) -> None:
    """Dark images in `a`, and bright ones in `c`."""
    for name, value in (("a", 0), ("c", 255)):
        (folder / name).mkdir(parents=True)
        for i in range(5):
            Image.new("L", (8, 8), value).save(folder / name / f"{i}.png")


@pytest.fixture
def two_classes(tmp_path, monkeypatch) -> list[str]:
    """The command that trains in the folder `run` on the folder `two`, in a working directory that holds `two`."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "two")
    return list(TRAIN)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory) -> Path:
    """A working directory that holds `two` and the `run` that was trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder / "two")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(SystemExit) as stop:
            cli.main(list(TRAIN))
    assert stop.value.code == 0
    return folder


@pytest.fixture
def trained(trained_once, tmp_path, monkeypatch) -> list[str]:
    """The command of a run that is finished, in a copy of its working directory that a test may change."""
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    record = tmp_path / "run" / "run.json"  # holds the path of its data
    record.write_text(record.read_text().replace(str(trained_once), str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return list(TRAIN)


def renamed(two: Path) -> None:
    (two / "a").rename(two / "z")


def added(two: Path) -> None:
    shutil.copytree(two / "a", two / "b")


def fewer(two: Path) -> None:
    (two / "a" / "0.png").unlink()


@pytest.mark.parametrize(
    "change, says, evaluates",
    [
        (renamed, "class_names: ['a', 'c'] -> ['c', 'z']", False),
        (added, "class_names: ['a', 'c'] -> ['a', 'b', 'c']", False),
        (fewer, "num_train: 8 -> 7", True),
    ],
)
def test_a_run_whose_data_have_changed(trained, capsys, change, says, evaluates):
    before = Path("run/run.json").read_bytes()
    change(Path("two"))
    status, _, err = run(capsys, "evaluate", "run")
    assert (status == 0) is evaluates and (evaluates or says in err), err
    Path("run/results.json").unlink()  # as if it had been stopped
    status, _, err = run(capsys, *trained)
    assert status == 2 and says in err and Path("run/run.json").read_bytes() == before


@pytest.mark.costly(keep=0)
def test_a_run_finds_its_data_from_elsewhere(two_classes, tmp_path, capsys, monkeypatch):
    assert run(capsys, *two_classes)[0] == 0
    shown = run(capsys, "evaluate", "run")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert run(capsys, "evaluate", "../run") == shown
    same = [{"run": "../run"}.get(word, word) for word in two_classes]
    for data in ("two", "../two", str(tmp_path / "two")):
        (tmp_path / "run" / "results.json").unlink()
        status, _, err = run(capsys, *[{"two": data}.get(word, word) for word in same])
        assert status == 0, err
    status, _, err = run(capsys, *[{"two": "digits"}.get(word, word) for word in same])
    assert status == 2 and "holds another run" in err
    assert run(capsys, "evaluate", "../run") == shown


@pytest.mark.costly(keep=0)
def test_what_is_printed_can_be_used(two_classes, tmp_path, capsys):
    """Brackets of a path are there, commands can be pasted, no name is cut, and the images judged on are named."""
    folder = "runs/ü [v2] " + "x" * 80
    two_classes[5] = folder
    (tmp_path / "two" / "c").rename(tmp_path / "two" / "[c]")
    status, out, _ = run(capsys, *two_classes)
    assert status == 0 and f"Saved in {folder}. Next: dropzoo evaluate '{folder}'\n" in out
    assert re.search(r"2 images.* test ", out)
    status, out, _ = run(capsys, *two_classes)
    assert f"{folder} already holds this run" in out
    status, out, _ = run(capsys, "evaluate", folder, "--plots", folder)
    assert status == 0 and "2 test images" in out and f"Saved {folder}/figures.csv\n" in out
    bright = f"{folder}/{'long_' * 10}[1].png"
    Image.new("L", (8, 8), 255).save(bright)
    status, out, _ = run(capsys, "predict", bright, "--model", folder)
    assert status == 0 and bright in out and re.search(r" (a|\[c\]) ", out)
    export = ["export", folder, f"{folder}/saved/1"]
    status, _, err = run(capsys, *export)
    assert status == 2 and "pass --num-samples 0 to leave out" in err
    export += ["--num-samples", "0"]
    status, out, _ = run(capsys, *export)
    assert status == 0 and f"Exported to {export[2]}. Next: dropzoo predict IMAGE --model '{export[2]}'\n" in out
    status, _, err = run(capsys, *export)
    assert status == 2 and "or pass --overwrite" in err
    status, _, err = run(capsys, "[x]")
    assert status == 2 and "'[x]'" in err


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize("split, used", [("0.25", "validation"), ("0", "training")])
def test_the_images_judged_on_are_named(two_classes, tmp_path, capsys, split, used):
    for name in "ac":  # of two, the last fifth is none
        for number in (2, 3, 4):
            (tmp_path / "two" / name / f"{number}.png").unlink()
    status, out, _ = run(capsys, *two_classes, "--validation-split", split)
    assert status == 0 and re.search(rf"images.* {used} ", out)
    assert f"{used} images" in run(capsys, "evaluate", "run")[1]


def test_the_folder_here_has_a_name(two_classes, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path / "two")
    status, out, _ = run(capsys, "train", "simple_cnn", "--data", ".", "--dropout", "dense1=0.2", *TINY)
    assert status == 0 and out.endswith(" --mc 30\n")  # of a network that has dropout to sample
    saved = json.loads((tmp_path / "two" / "runs" / "simple_cnn-two" / "run.json").read_text())
    assert (saved["config"]["data"], saved["info"]["name"]) == (".", "two")
