"""What `export_model` says to formats, precisions and paths that it cannot write."""

import importlib.util

import numpy as np
import pytest

from _small_cnn import images, small_cnn
from dropzoo import serving


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("a.onnx", {"format": "onxx"}, "`format` must be"),
        ("a.onnx", {}, "Pass format='onnx' for a .onnx file"),
        ("a", {"format": "onnx"}, "`path` must end in '.onnx'"),
        ("a.onnx", {"format": "onnx", "precision": "int8"}, "`precision` must be one of float32, float16"),
        ("a.onnx", {"format": "litert"}, "`path` must end in '.tflite'"),
        ("a.tflite", {}, "Pass format='litert' for a .tflite file"),
        ("a.onnx", {"format": "openvino"}, "`path` must end in '.xml'"),
        ("a", {"precision": "float16"}, "`precision` must be float32 for format='saved_model'"),
    ],
)
def test_bad_arguments(name, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        serving.export_model(small_cnn(), tmp_path / name, 2, **options)
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"onnxruntime, tf2onnx: pip install '\.\[onnx\]'"):
        serving.export_model(small_cnn(), tmp_path / "a.onnx", 2, format="onnx")


def test_an_existing_file_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    (tmp_path / "a.onnx").write_text("mine")
    with pytest.raises(ValueError, match="exists already; choose another path, or pass overwrite=True"):
        serving.export_model(small_cnn(), tmp_path / "a.onnx", 2, format="onnx")
    assert (tmp_path / "a.onnx").read_text() == "mine"


@pytest.mark.parametrize("overwrite, kind", [(False, "file"), (True, "folder")])
def test_existing_weights_of_openvino_are_kept(overwrite, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    beside = tmp_path / "a.bin"
    beside.write_text("mine") if kind == "file" else beside.mkdir()
    with pytest.raises(ValueError, match="a.bin exists already"):
        serving.export_model(small_cnn(), tmp_path / "a.xml", 0, format="openvino", overwrite=overwrite)
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("of_ensemble", [False, True])
def test_a_calibration_needs_float32(of_ensemble, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    x, labels = images(40), np.arange(40) % 4
    model = serving.Ensemble([small_cnn(), small_cnn(weights_seed=1)]) if of_ensemble else small_cnn()
    found = serving.calibrate(model, x, labels, guarantee={"set": 0.3})
    if of_ensemble:
        model, found = serving.Ensemble(model.models, calibration=found), None
    for precision, options in [("float16", {}), ("int8", {"examples": x})]:
        with pytest.raises(ValueError, match="holds for float32 answers: pass precision='float32'"):
            options |= {"format": "litert", "precision": precision, "calibration": found}
            serving.export_model(model, tmp_path / "a.tflite", 0, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("a", {"examples": np.zeros((2, 8, 8, 1), "float32")}, "only for this precision"),
        (
            "a.tflite",
            {"format": "litert", "precision": "int8", "image_dtype": "uint8"},
            "has the dtype uint8.*float64",
        ),
    ],
)
def test_bad_examples(name, options, message, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(ValueError, match=message):
        serving.export_model(small_cnn(), tmp_path / name, 0, **{"examples": np.ones((2, 8, 8, 1)), **options})
    assert not list(tmp_path.iterdir())
