"""`dropzoo inspect`: what it prints and draws, and how it says that files are broken."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from _cli import run
from dropzoo.cli.data import _advice
from dropzoo.common.images import unreadable


def write(root: Path, count: int = 6) -> None:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for n in range(count):
        pixels = np.random.default_rng(n).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{n}.png")
        Image.fromarray((pixels[..., 0] > 127).astype(np.uint8)).save(root / "masks" / f"{n}.png")


def test_a_folder_of_masks_and_its_page(tmp_path, capsys):
    write(tmp_path / "cells")
    page = tmp_path / "sheet.html"
    status, out, err = run(
        capsys, "inspect", str(tmp_path / "cells"), "--class-names", "back,<cell>", "--out", str(page)
    )
    assert status == 0, err
    for text in ("pixels of class", "<cell>", "8x8x3", f"Saved {page}", "dropzoo train unet"):
        assert text in out
    html = page.read_text()
    assert html.count("<figure>") == 6 and "&lt;cell&gt;" in html and "<cell>" not in html


@pytest.mark.parametrize("option, value", [("--broken", "drop"), ("--cache", "ram")])
def test_values_that_training_refuses_are_refused(tmp_path, capsys, option, value):
    write(tmp_path / "cells")
    status, out, err = run(capsys, "inspect", str(tmp_path / "cells"), option, value)
    assert status == 2 and not out and f"`{option}` must be one of" in err


def test_broken_files_are_all_listed_and_the_status_is_2(tmp_path, capsys):
    write(tmp_path / "cells")
    for n, size in ((1, 0), (4, 60)):
        path = tmp_path / "cells" / "images" / f"{n}.png"
        path.write_bytes(path.read_bytes()[:size])
    status, out, err = run(capsys, "inspect", str(tmp_path / "cells"))
    assert status == 2 and "2 files cannot be read" in err
    assert "Replace or remove them" in err
    assert all(f"{tmp_path / 'cells' / 'images' / name}" in out for name in ("1.png", "4.png"))


@pytest.mark.parametrize(
    "lacking, damaged, says",
    [
        (0, 1, "1 file cannot be read. Replace or remove it, or train with --broken skip"),
        (1, 0, "1 file cannot be read, because a package is missing. Install it: pip install imagecodecs"),
        (
            1,
            2,
            "3 files cannot be read. For 1 of them, install a package: pip install imagecodecs. Replace or remove",
        ),
    ],
)
def test_advice_about_broken_files(lacking, damaged, says):
    missing = str(unreadable(Path("a.tif"), ValueError("Install it: pip install imagecodecs")))
    assert _advice([missing] * lacking + [str(unreadable(Path("b.png"), OSError()))] * damaged).startswith(says)


@pytest.mark.parametrize(
    "words, says",
    [
        (["nowhere"], "No such folder"),
        (["--masks-as", "instance"], "'instances'"),
        (["--pages", "x"], "'channels'"),
    ],
)
def test_bad_input(tmp_path, capsys, words, says):
    write(tmp_path / "cells", 2)
    given = [str(tmp_path / words[0])] if words[0] == "nowhere" else [str(tmp_path / "cells"), *words]
    status, _, err = run(capsys, "inspect", *given)
    assert status == 2 and says in err
