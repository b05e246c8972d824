"""Exports: what they hold, that they run without this package, and that they appear as a whole or not at all."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import models, serving
from dropzoo.serving.export import saved_model_folder

# Answers for the images from a process that has TensorFlow, but neither this package nor Keras.
FRESH = """
import sys
sys.modules["dropzoo"] = sys.modules["keras"] = None
import numpy as np, tensorflow as tf
for folder in sys.argv[1:]:
    model = tf.saved_model.load(folder + "/1")
    x = np.load(folder + "/x.npy")
    out = {}
    for name, batch in {"whole": x, "alone": x[1:2], "again": x}.items():
        for signature in ("serving_default", "predict_mc"):
            for key, value in model.signatures[signature](images=tf.constant(batch)).items():
                out[f"{name} {signature} {key}"] = value.numpy()
    np.savez(folder + "/out.npz", **out)
"""
SIZES = {"simple_cnn": (8, 8), "unet": (9, 7)}
OPTIONS = {
    "simple_cnn": {"input_shape": (8, 8, 1), "filters": (4,), "dropout": {"module1": 0.3, "head": 0.3}},
    "unet": {
        "depth": 1,
        "filters": 4,
        "num_classes": 3,
        "dropout": {"encoder*": "spatial_dropout2d:0.3", "head": 0.2},
    },
}


def build(name: str = "simple_cnn", **options) -> keras.Model:
    return models.build_model(name, **{**OPTIONS[name], **options})


def images(name: str = "simple_cnn") -> np.ndarray:
    return np.random.default_rng(0).random((3, *SIZES[name], 1), "float32")


@pytest.mark.costly(keep=0)  # the demo does it, too
def test_answers_in_a_process_without_this_package(tmp_path):
    built = {name: build(name) for name in OPTIONS}
    for name, model in built.items():
        serving.export_model(model, tmp_path / name / "1", num_samples=4, seed=2)
        np.save(tmp_path / name / "x.npy", images(name))
    folders = [str(tmp_path / name) for name in OPTIONS]
    subprocess.run([sys.executable, "-c", FRESH, *folders], check=True, capture_output=True)
    for name, model in built.items():
        x = images(name)
        with np.load(tmp_path / name / "out.npz") as out:
            answers = dict(out)
        p = tf.nn.softmax(model(x)).numpy()
        np.testing.assert_allclose(answers["whole serving_default probabilities"], p, atol=1e-5)
        np.testing.assert_array_equal(answers["whole serving_default classes"], p.argmax(-1))
        sampled = serving.MonteCarlo(model, 4, "fixed", seed=2)(x)
        for key, value in sampled.items():
            np.testing.assert_allclose(answers[f"whole predict_mc {key}"], value, atol=1e-5)
            np.testing.assert_array_equal(answers[f"again predict_mc {key}"], answers[f"whole predict_mc {key}"])
            np.testing.assert_allclose(answers[f"alone predict_mc {key}"], value[1:2], atol=1e-5)


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize("sampling", ["balanced", "independent"])
def test_an_image_has_the_same_answer_alone_whatever_the_sampling(sampling, tmp_path):
    model, x = build(), images()
    loaded = tf.saved_model.load(str(serving.export_model(model, tmp_path / "1", 3, sampling=sampling, seed=4)))
    answer = lambda batch: loaded.signatures["predict_mc"](images=tf.constant(batch))  # noqa: E731
    expected, whole, alone = serving.MonteCarlo(model, 3, sampling, seed=4)(x), answer(x), answer(x[1:2])
    for key, value in expected.items():
        np.testing.assert_allclose(whole[key], value, atol=1e-5)
        np.testing.assert_allclose(alone[key], whole[key][1:2], atol=1e-6)


@pytest.mark.costly(keep=0)
def test_a_model_with_keras_own_layers(tmp_path):
    kl = keras.layers
    stack = [kl.Conv2D(4, 3), kl.SpatialDropout2D(0.3), kl.Flatten(), kl.Dropout(0.3), kl.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *stack])
    loaded = tf.saved_model.load(str(serving.export_model(model, tmp_path / "1", 3)))
    for key, value in serving.MonteCarlo(model, 3, "fixed")(images()).items():
        np.testing.assert_allclose(loaded.signatures["predict_mc"](images=images())[key], value, atol=1e-5)


def test_signatures(tmp_path):
    model, x = build("unet"), images("unet")
    loaded = tf.saved_model.load(str(serving.export_model(model, tmp_path / "1", num_samples=3)))
    default, sampled = loaded.signatures["serving_default"], loaded.signatures["predict_mc"]
    assert set(default.structured_outputs) == {"probabilities", "classes"}
    assert set(sampled.structured_outputs) == {"mean", "variance", "predictive_entropy", "mutual_information"}
    assert default.structured_input_signature[1]["images"].shape.as_list() == [None, None, None, 1]
    graph = default.graph.as_graph_def()
    operations = {n.op for n in graph.node} | {n.op for f in graph.library.function for n in f.node_def}
    assert "Conv2D" in operations
    assert not [op for op in operations if "Random" in op or "Stateless" in op or "Assign" in op]
    before = default(images=tf.constant(x))["probabilities"].numpy()
    for _ in range(20):
        sampled(images=tf.constant(x))
    np.testing.assert_array_equal(default(images=tf.constant(x))["probabilities"], before)


@pytest.mark.costly(keep=0)
def test_bytes_are_scaled_inside(tmp_path):
    model = build()
    loaded = tf.saved_model.load(str(serving.export_model(model, tmp_path / "1", 3, image_dtype="uint8")))
    x = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), "uint8")
    p = loaded.signatures["serving_default"](images=tf.constant(x))["probabilities"]
    np.testing.assert_allclose(p, tf.nn.softmax(model(x / np.float32(255))), atol=1e-6)
    sampled = loaded.signatures["predict_mc"](images=tf.constant(x))["mean"]
    np.testing.assert_allclose(
        sampled, serving.MonteCarlo(model, 3, "fixed")(x / np.float32(255))["mean"], atol=1e-6
    )


def test_bytes_go_as_they_are_into_a_model_that_takes_them(tmp_path):
    inputs = keras.Input((8, 8, 1), dtype="uint8")
    x = keras.layers.Dropout(0.3)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs)))
    model = keras.Model(inputs, {"logits": keras.layers.Dense(3, kernel_initializer="he_normal")(x)})
    with pytest.raises(ValueError, match="so pixels are not converted: pass image_dtype='uint8'"):
        serving.export_model(model, tmp_path / "1", 2)
    path = serving.export_model(model, tmp_path / "1", 2, image_dtype="uint8", resize=8)
    found = tf.saved_model.load(str(path)).signatures
    x = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), "uint8")
    p = tf.nn.softmax(model(x)["logits"])
    png = [tf.io.encode_png(image) for image in x]
    np.testing.assert_allclose(found["serving_default"](images=tf.constant(x))["probabilities"], p, atol=1e-6)
    np.testing.assert_allclose(found["predict_bytes"](image_bytes=tf.stack(png))["probabilities"], p, atol=1e-6)


def test_single_logit_and_mixed_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = build(num_classes=1)
    loaded = tf.saved_model.load(str(serving.export_model(model, tmp_path / "1", 2)))
    out = loaded.signatures["serving_default"](images=tf.constant(images()))
    p = tf.sigmoid(model(images()))
    assert out["probabilities"].dtype == tf.float32
    np.testing.assert_array_equal(out["classes"], tf.cast(out["probabilities"][:, 0] > 0.5, tf.int32))
    np.testing.assert_allclose(out["probabilities"], p, atol=0.02)


def test_what_lies_beside_it(tmp_path, capfd):
    model = build()
    path = serving.export_model(model, tmp_path / "cnn" / "1", 0, class_names=list("abcdefghij"))
    assert capfd.readouterr().out == ""
    again = keras.models.load_model(path / "assets.extra" / "model.keras")
    np.testing.assert_array_equal(again(images()), model(images()))
    assert json.loads((path / "assets.extra" / "info.json").read_text())["class_names"] == list("abcdefghij")
    assert [p.name for p in (tmp_path / "cnn").iterdir()] == ["1"]


def test_without_samples(tmp_path):
    model = build(dropout=None)
    loaded = tf.saved_model.load(str(serving.export_model(model, tmp_path / "1", num_samples=0)))
    assert set(loaded.signatures) == {"serving_default", "predict_bytes"}
    with pytest.raises(ValueError, match="no dropout layer to sample; pass num_samples=0"):
        serving.export_model(model, tmp_path / "2")
    assert not (tmp_path / "2").exists()


@pytest.mark.costly(keep=0)
def test_overwriting_is_asked_for_and_failure_leaves_all_as_it_was(tmp_path, monkeypatch):
    path = serving.export_model(build(), tmp_path / "1", num_samples=0)
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="exists already"):
        serving.export_model(build(), path)

    def fail(*args, **kwargs):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", fail)  # after the SavedModel is written, before it is in place
        for target in (path, tmp_path / "2"):
            with pytest.raises(OSError, match="no space left"):
                serving.export_model(build(), target, 0, overwrite=True)
    with monkeypatch.context() as patch:  # after the old one is moved out of the way
        patch.setattr(os, "rename", renaming(lambda source: source.endswith("-unfinished") and fail()))
        with pytest.raises(OSError, match="no space left"):
            serving.export_model(build(), path, 0, overwrite=True)
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before
    model = build()
    serving.export_model(model, path, num_samples=0, overwrite=True)
    again = keras.models.load_model(path / "assets.extra" / "model.keras")
    np.testing.assert_array_equal(again(images()), model(images()))
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def renaming(before):
    """`os.rename`, which calls `before` with the source first."""
    rename = os.rename

    def renamed(source, target):
        before(str(source))
        rename(source, target)

    return renamed


def folder_of(path, text):
    path.mkdir()
    (path / "model").write_text(text)
    return path


def texts(folder):
    return {p.name: (p / "model").read_text() for p in folder.iterdir()}


def test_the_old_and_the_new_one_are_both_there_at_every_step(tmp_path, monkeypatch):
    """So that a kill loses neither."""
    path, new, seen = folder_of(tmp_path / "1", "old"), folder_of(tmp_path / ".1-7-unfinished", "new"), []
    monkeypatch.setattr(os, "rename", renaming(lambda source: seen.append(texts(tmp_path))))
    saved_model_folder._replace(new, path)
    assert seen == [
        {"1": "old", ".1-7-unfinished": "new"},
        {".1-7-unfinished-old": "old", ".1-7-unfinished": "new"},
    ]
    assert texts(tmp_path) == {"1": "new"}


@pytest.mark.parametrize("ending", ["1", "-unfinished"])  # the old one away, the new one to its place
def test_the_old_one_stays_if_a_rename_fails(ending, tmp_path, monkeypatch):
    path, new = folder_of(tmp_path / "1", "old"), folder_of(tmp_path / ".1-7-unfinished", "new")

    def fail(source):
        if source.endswith(ending):
            raise OSError("no space left")

    monkeypatch.setattr(os, "rename", renaming(fail))
    with pytest.raises(OSError, match="no space left"):
        saved_model_folder._replace(new, path)
    assert texts(tmp_path) == {"1": "old", ".1-7-unfinished": "new"}  # which `export_model` removes


def test_another_export_that_is_faster_stays(tmp_path, monkeypatch):
    path, new = folder_of(tmp_path / "1", "old"), folder_of(tmp_path / ".1-7-unfinished", "mine")
    other = lambda source: source.endswith("-unfinished") and folder_of(path, "another's")  # noqa: E731
    monkeypatch.setattr(os, "rename", renaming(other))
    with pytest.raises(OSError):
        saved_model_folder._replace(new, path)
    assert texts(tmp_path) == {"1": "another's", ".1-7-unfinished": "mine"}


def test_a_file_or_a_link_is_no_folder_to_replace(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("file", "link"):
        with pytest.raises(ValueError, match="is a file or a link"):
            serving.export_model(build(), tmp_path / name, 2, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "link"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_dtype": "float16"}, "image_dtype='float16'"),
        ({"num_samples": -1}, "num_samples=-1"),
        ({"class_names": "abcdefghij"}, "must be a list of names. Received: class_names='abcdefghij'"),
        ({"num_samples": 0, "sampling": "balanced"}, "num_samples=0 asks for none. Received: sampling='balanced'"),
        ({"num_samples": 0, "seed": 3}, "num_samples=0 asks for none.*seed=3"),
    ],
)
def test_bad_arguments(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        serving.export_model(build(), tmp_path / "1", **options)
