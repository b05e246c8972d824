"""Runs that several tests of the command line share."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from _cli import TINY
from dropzoo.cli import app as cli


@pytest.fixture(scope="session")
def cnn_run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "cnn"
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "simple_cnn", "--data", "digits", "--dropout", "head=0.3", "--out", str(out), *TINY])
    assert stop.value.code == 0
    return out


@pytest.fixture(scope="session")
def unet_run(tmp_path_factory) -> Path:
    """On a folder of RGB images of a size that is no power of two."""
    root = tmp_path_factory.mktemp("cells")
    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for i in range(10):
        mask = random.random((22, 30)) > 0.5
        noisy = (mask[..., None] * 180 + random.random((22, 30, 3)) * 60).astype("uint8")
        Image.fromarray(noisy).save(root / "images" / f"{i}.png")
        Image.fromarray(mask.astype("uint8")).save(root / "masks" / f"{i}.png")
    out = root / "run"
    options = ["--option", "depth=2", "--option", "filters=4", "--epochs", "2", "--batch-size", "2"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "unet", "--data", str(root), "--dropout", "paper", "--out", str(out), *options])
    assert stop.value.code == 0
    return out
