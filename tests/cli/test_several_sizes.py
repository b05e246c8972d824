"""Model files on data that no batch can hold, and on data without splits to join."""

import numpy as np
import pytest
from PIL import Image

from _cli import run
from dropzoo import models


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    """A U-Net of any size, beside a folder of images of two sizes."""
    root = tmp_path_factory.mktemp("sizes")
    random = np.random.default_rng(0)
    for i in range(20):
        mask = random.random((12, 20) if i % 2 else (24, 16)) > 0.5
        for folder, values in (("images", mask * 200 + random.random(mask.shape) * 50), ("masks", mask)):
            (root / "data" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype("uint8")).save(root / "data" / folder / f"{i}.png")
    options = {"input_shape": (None, None, 1), "num_classes": 2, "depth": 2, "filters": 4, "dropout": 0.2}
    models.build_model("unet", **options).save(root / "unet.keras")
    return root / "unet.keras"


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_a_file_takes_images_of_several_sizes(unet, command, capsys):
    options = ["--split", "all"] if command == "evaluate" else ["--sites", "as_is"]
    status, out, error = run(
        capsys, command, str(unet), "--data", str(unet.parent / "data"), "--mc", "2", *options
    )
    assert status == 0, error
    assert "samples" in out


def test_only_folders_have_splits_to_join(unet, capsys):
    status, _, error = run(capsys, "evaluate", str(unet), "--data", "digits", "--split", "all")
    assert status == 2 and "--split all is for folders of files. Received: the data set 'digits'" in error


def test_calibrate_reads_folders_as_the_options_say(unet, capsys):
    status, _, error = run(capsys, "calibrate", str(unet), "--masks-as", "ids")
    assert status == 2 and "--masks-as says how the folder of --data is read" in error
    data = str(unet.parent / "data")
    status, _, error = run(capsys, "calibrate", str(unet), "--data", data, "--images", "nowhere/*")
    assert status == 2 and "nowhere" in error
