"""Exports: integers keep their values, every input has a name of its own, and only an export is replaced."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo.models.graph.record import taken_by_each
from dropzoo.serving.export.checks import check_path
from dropzoo.serving.export.inputs import inputs_of, specs_of
from dropzoo.serving.export.predictors import Predictors
from dropzoo.serving.export.saved_model_folder import _whole_version
from dropzoo.serving.export.signatures import Signatures
from dropzoo.serving.montecarlo.reader import Reader

kl = keras.layers
RANDOM = np.random.default_rng(0)


def of_labels(dtype="int32", photo=False):
    """A model of a map of labels, and of a photograph if `photo`."""
    keras.utils.set_random_seed(0)
    labels = keras.Input((4, 6, 1), dtype=dtype, name="labels")
    x = kl.Flatten()(kl.Embedding(256, 2, embeddings_initializer="normal")(labels))
    if not photo:
        return keras.Model(labels, kl.Dense(3)(x))
    image = keras.Input((4, 6, 3), name="photo")
    return keras.Model([image, labels], kl.Dense(3)(kl.Concatenate()([kl.Flatten()(image), x])))


def signatures_of(model, image_dtype="float32"):
    reader = Reader(model, from_logits=True)
    specs = specs_of(reader, None)
    pixels = taken_by_each(model, {name: tuple(spec.shape) for name, spec in specs.items()})
    inputs = inputs_of(specs, image_dtype, None, pixels)
    return Signatures(Predictors([model], reader, None, None, None), inputs, 0)


@pytest.mark.parametrize("dtype", ["int32", "int64", "int16", "uint8"])
def test_a_map_of_labels_arrives_as_it_is(dtype):
    model, given = of_labels(dtype), RANDOM.integers(0, 256, (3, 4, 6, 1)).astype("uint8")
    wanted = tf.nn.softmax(model(given.astype(dtype)))
    functions = signatures_of(model, "uint8").functions()
    np.testing.assert_allclose(functions["serving_default"](images=given)["probabilities"], wanted, atol=1e-6)
    files = tf.map_fn(tf.io.encode_png, tf.constant(given), tf.TensorSpec([], tf.string))
    np.testing.assert_allclose(functions["predict_bytes"](image_bytes=files)["probabilities"], wanted, atol=1e-6)


@pytest.mark.parametrize(("image_dtype", "sent"), [("float32", "int32"), ("uint16", "int32"), ("uint8", "uint8")])
def test_beside_a_photograph_integers_keep_their_dtype(image_dtype, sent):
    model, labels = of_labels(photo=True), RANDOM.integers(0, 256, (2, 4, 6, 1))
    photo = RANDOM.random((2, 4, 6, 3), "float32")
    signatures = signatures_of(model, image_dtype)
    assert [each.dtype for each in signatures.inputs] == [image_dtype, sent]
    whole = np.float32(1) if image_dtype == "float32" else np.iinfo(image_dtype).max
    found = signatures.functions()["serving_default"](
        photo=tf.constant((photo * whole).astype(image_dtype)), labels=tf.constant(labels.astype(sent))
    )
    wanted = tf.nn.softmax(model([photo, labels.astype("int32")]))
    np.testing.assert_allclose(found["probabilities"], wanted, atol=0.02)


@pytest.mark.parametrize(
    ("names", "shapes", "twice"),
    [
        (("crop-1", "crop_1"), ((4,), (4,)), "crop_1"),
        (("a b", "a.b"), ((4, 4, 3), (2,)), "a_b"),
        (("photo", "photo_bytes"), ((4, 4, 3), (4,)), "photo_bytes"),
        (("photo", "photo-bytes"), ((4, 4, 3), (4,)), "photo_bytes"),
        (("photo", "photo_bytes"), ((4,), (4,)), None),
        (("a", "b"), ((4, 4, 3), (4, 4, 3)), None),
    ],
)
def test_every_input_has_a_name_of_its_own(names, shapes, twice):
    inputs = [keras.Input(shape, name=name) for shape, name in zip(shapes, names, strict=True)]
    model = keras.Model(inputs, kl.Dense(2)(kl.Concatenate()([kl.Flatten()(x) for x in inputs])))
    if twice is None:
        assert len({each.name for each in signatures_of(model).inputs}) == 2
        return
    with pytest.raises(ValueError, match=f"two would be called '{twice}'"):
        signatures_of(model)


@pytest.mark.parametrize(
    ("files", "fits"),
    [
        ((), True),
        (("saved_model.pb",), True),
        (("image.png",), False),
        (("1/saved_model.pb",), False),
        (("assets.extra/info.json",), False),
    ],
)
def test_only_an_export_is_replaced(files, fits, tmp_path):
    version = tmp_path / "2024"
    version.mkdir()
    for name in files:
        (version / name).parent.mkdir(exist_ok=True)
        (version / name).write_text("mine")
    if fits:
        assert check_path(version, True) == version
        return
    with pytest.raises(ValueError, match=r"2024 holds no export .*overwrite=True would delete other files"):
        check_path(version, True)


def test_two_exports_of_one_process_do_not_meet(tmp_path):
    """Threads, or a process with the number of one that was killed, which is usual in containers."""
    leftover = tmp_path / f".1-{os.getpid()}-unfinished" / "assets.extra"
    leftover.mkdir(parents=True)
    (tmp_path / f".1-{os.getpid()}-unfinished-old" / "x").mkdir(parents=True)
    with _whole_version(tmp_path / "1", True) as first, _whole_version(tmp_path / "1", True) as second:
        assert first != second and not first.exists() and not second.exists()
        for each in (first, second):
            each.mkdir()
            (each / "which").write_text(each.name)
    assert (tmp_path / "1" / "which").read_text() == first.name  # the block that ends last
    assert leftover.exists() and len(list(tmp_path.iterdir())) == 3
