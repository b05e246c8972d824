"""Folders of models that hold other folders too, and the sizes and the types of maps."""

import logging

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from dropzoo.serving.server.files import check_image
from dropzoo.serving.server.forms import in_size, likeliest
from dropzoo.serving.server.limits import Limits, Refused
from dropzoo.serving.server.models import Models


def test_a_plain_saved_model_does_not_stop_the_others(tmp_path, caplog):
    for name in ("a/1", "b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "saved_model.pb").touch()
    models = Models(tmp_path, 2)
    with caplog.at_level(logging.WARNING, "dropzoo.serving"):
        models.refresh()
        models.refresh()
    assert set(models.by_name) == {"a"}
    assert sum("is not a model, but a version" in record.getMessage() for record in caplog.records) == 1
    (tmp_path / "a").rename(tmp_path / ".a")
    with pytest.raises(ValueError, match="Received a version"):
        Models(tmp_path / "b", 2)


def test_a_folder_of_plain_saved_models_is_refused(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "saved_model.pb").touch()
    with pytest.raises(ValueError, match="Received a version"):
        Models(tmp_path, 2)


@pytest.mark.parametrize(
    "classes, kind, dtype",
    [
        (1, "multi_class", "uint8"),
        (256, "multi_class", "uint8"),
        (257, "multi_class", "uint16"),
        (255, "multi_label", "uint8"),
        (256, "multi_label", "uint16"),
    ],
)
def test_a_mask_holds_its_largest_class(classes, kind, dtype):
    p = np.zeros((2, 2, classes))
    p[..., -1] = 1
    found = likeliest(p, kind)
    assert found.dtype == dtype and (found == (classes if kind == "multi_label" else max(1, classes - 1))).all()


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "float32"])
def test_maps_get_the_size_of_the_image(dtype):
    values = np.repeat(np.repeat(np.eye(2), 2, 0), 2, 1).astype(dtype)
    found = in_size(values, (8, 12))
    assert found.shape == (8, 12) and found.dtype == dtype and {found[0, 0], found[0, -1]} == {0, 1}


def test_a_tiff_file_in_base64_says_how_to_send_it():
    with pytest.raises(Refused, match="Send a TIFF file as the body"):
        check_image(b"II*\0rest", Limits())
