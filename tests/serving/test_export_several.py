"""Exports of models of several inputs and outputs, of integers and texts, of code of one's own, and of any ending.

The rule: each input and each output keeps its name, requests may have rows or columns, and an export answers as
`MonteCarlo` and the model do. What an output means is known, said or asked of random images; else the error names
the two ways out.
"""

import base64
import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from _live import live
from dropzoo import serving
from dropzoo.runs.predictors import load_predictor
from dropzoo.serving.server.limits import Limits, Refused
from dropzoo.serving.server.pictures import pictures
from dropzoo.serving.server.requests import read_predict, to_arrays
from dropzoo.serving.server.versions import load

kl = keras.layers
RANDOM = np.random.default_rng(0)
PHOTO = RANDOM.integers(0, 256, (3, 8, 8, 3)).astype("float32")
TABLE = RANDOM.normal(size=(3, 5)).astype("float32")
GREY = RANDOM.random((3, 8, 8, 1), "float32")
WORDS = np.array([["a b"], ["c"], ["zzz"]], object)
TOKENS = RANDOM.integers(0, 20, (3, 6)).astype("int32")


@keras.saving.register_keras_serializable("tests")
class Own(keras.Model):
    """A model with a `call` of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.scale, self.conv, self.drop = kl.Rescaling(1 / 255), kl.Conv2D(2, 3), kl.Dropout(0.5)
        self.flat, self.head = kl.Flatten(), kl.Dense(3)

    def call(self, x, training=None):
        return self.head(self.flat(self.drop(self.conv(self.scale(x)), training=training)))


@keras.saving.register_keras_serializable("tests")
class OwnDrop(kl.Layer):
    """Dropout of a user's own, which no sampler can redirect."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, x, training=None):
        return keras.random.dropout(x, 0.4, seed=self.seed_generator) if training else x


def two_inputs(structure):
    photo, table = keras.Input((8, 8, 3), name="photo"), keras.Input((5,), name="table")
    x = kl.Concatenate()([kl.Flatten()(kl.Conv2D(2, 3)(kl.Rescaling(1 / 255)(photo))), kl.Dense(4)(table)])
    inputs = {"photo": photo, "table": table} if structure is dict else [photo, table]
    return keras.Model(inputs, kl.Dense(3)(kl.Dropout(0.4)(x)))


def two_outputs(structure=dict, channels=1):
    image = keras.Input((8, 8, channels))
    x = kl.Dropout(0.4)(kl.Conv2D(4, 3, padding="same")(image))
    prob, dist = kl.Conv2D(1, 1, name="prob")(x), kl.Dense(2, name="dist")(kl.GlobalAveragePooling2D()(x))
    return keras.Model(image, {"prob": prob, "dist": dist} if structure is dict else [prob, dist])


def one_of(*layers, shape=(8, 8, 1), dtype=None, name=None):
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input(shape, dtype=dtype, name=name)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


@keras.saving.register_keras_serializable("tests")
class Certain(keras.Model):
    """A model with a `call` of its own and without dropout."""

    def __init__(self, **options):
        super().__init__(**options)
        self.flat, self.head = kl.Flatten(), kl.Dense(3)

    def call(self, x):
        return self.head(self.flat(x))


def built_by_a_call(cls=Own):
    model = cls()
    model(PHOTO)
    return model


def texts():
    words = kl.TextVectorization(vocabulary=["a", "b", "c"], output_sequence_length=4)
    layers = [words, kl.Embedding(9, 4), kl.GlobalAveragePooling1D(), kl.Dropout(0.4), kl.Dense(3)]
    return one_of(*layers, shape=(1,), dtype="string", name="text")


def tokens():
    layers = [kl.Embedding(20, 4), kl.GlobalAveragePooling1D(), kl.Dropout(0.4), kl.Dense(3)]
    return one_of(*layers, shape=(6,), dtype="int32", name="tokens")


TASKS = {"prob": "binary", "dist": "regression"}
MODELS = {
    "a list of inputs": (lambda: two_inputs(list), {"photo": PHOTO, "table": TABLE}, {}),
    "a dict of inputs": (lambda: two_inputs(dict), {"photo": PHOTO, "table": TABLE}, {}),
    "a dict of outputs": (lambda: two_outputs(dict), {"images": GREY}, {"task": TASKS}),
    "a list of outputs": (lambda: two_outputs(list), {"images": GREY}, {"task": ["binary", "regression"]}),
    "tokens": (tokens, {"tokens": TOKENS}, {}),
    "texts": (texts, {"text": WORDS}, {}),
    "a call of its own": (built_by_a_call, {"images": PHOTO}, {}),
}


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(("make", "x", "options"), MODELS.values(), ids=MODELS)
def test_an_export_answers_as_the_sampler_and_the_model(make, x, options, tmp_path):
    model = make()
    version = load(serving.export_model(model, tmp_path / "m" / "1", 4, **options))
    inputs = next(iter(x.values())) if len(x) == 1 else x
    sampled = serving.MonteCarlo(model, 4, "fixed", **options)(inputs)
    if isinstance(sampled["mean"] if "mean" in sampled else sampled["prob"], dict):
        sampled = {f"{name}_{key}": value for name, each in sampled.items() for key, value in each.items()}
    found = version.signatures["predict_mc"].run(x)
    assert found.keys() == sampled.keys()
    for key, value in sampled.items():
        np.testing.assert_allclose(found[key], value, atol=1e-5, err_msg=key)
    turned = version.signatures["predict_mc"].run({name: value[::-1] for name, value in x.items()})
    for key, value in found.items():  # a pure function of each row
        np.testing.assert_allclose(turned[key][::-1], value, atol=1e-5, err_msg=key)

    plain, raw = version.signatures["serving_default"].run(x), model(inputs, training=False)
    if "task" not in options:
        np.testing.assert_allclose(plain["probabilities"], tf.nn.softmax(raw), atol=1e-6)
        return
    prob, dist = (raw["prob"], raw["dist"]) if isinstance(raw, dict) else raw
    assert plain.keys() == {"prob_probabilities", "prob_classes", "dist_values"}
    np.testing.assert_allclose(plain["prob_probabilities"], tf.sigmoid(prob), atol=1e-6)
    np.testing.assert_allclose(plain["dist_values"], dist, atol=1e-6)


def test_requests_of_several_inputs(tmp_path):
    """Rows, columns and files have one answer; texts and numbers that do not fit are refused."""
    model, options = two_inputs(dict), {"card": {"data": "photos"}}
    path = serving.export_model(model, tmp_path / "m" / "1", 2, **options)
    expected = tf.nn.softmax(model({"photo": PHOTO, "table": TABLE}))
    files = [{"b64": base64.b64encode(tf.io.encode_png(each.astype("uint8")).numpy()).decode()} for each in PHOTO]
    rows = [{"photo": p.tolist(), "table": t.tolist()} for p, t in zip(PHOTO, TABLE, strict=True)]
    columns = {"photo": PHOTO.tolist(), "table": TABLE.tolist()}
    by_file = [{"photo_bytes": f, "table": t.tolist()} for f, t in zip(files, TABLE, strict=True)]
    with live(path.parent) as running:
        for body in (
            {"instances": rows},
            {"inputs": columns},
            {"signature_name": "predict_bytes", "instances": by_file},
            {"signature_name": "predict_bytes", "inputs": {"photo_bytes": files, "table": TABLE.tolist()}},
        ):
            status, answer = running.post("/v1/models/m:predict", body)
            assert status == 200, answer
            found = answer.get("outputs") or {
                "probabilities": [row["probabilities"] for row in answer["predictions"]]
            }
            np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
        assert running.post("/v1/models/m:predict_mc", {"instances": rows})[0] == 200
        for body, words in (
            (
                {"instances": [{"photo": PHOTO[0].tolist()}]},
                "must be 'photo', 'table'; received 'photo'",
            ),
            ({"instances": PHOTO.tolist()}, "The inputs must be named: photo, table"),
            ({"inputs": {**columns, "table": TABLE[:2].tolist()}}, "must have the same batch size"),
            (
                {"inputs": {**columns, "photo": (PHOTO / 255).tolist()}},
                "'photo': The model takes pixels from 0 to",
            ),
        ):
            status, answer = running.post("/v1/models/m:predict", body)
            assert status == 400 and words in answer["error"], answer
        file = tf.io.encode_png(PHOTO[0].astype("uint8")).numpy()
        for verb in ("predict", "picture"):
            status, answer = running.post(f"/v1/models/m:{verb}", file, content_type="image/png")
            assert status == 400 and "takes several inputs (photo, table)" in answer["error"]
    card = json.loads((path / "assets.extra" / "model_card.json").read_text())
    assert card["inputs"]["photo"]["pixels"].startswith("0 to 255 (known from its layer")
    assert card["inputs"]["table"] == {"shape": [5], "dtype": "float32", "resize": None}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([["a"], ["ö"]], [[b"a"], ["ö".encode()]]),
        ([[{"b64": base64.b64encode(b"\xff").decode()}]], [[b"\xff"]]),
        (["a"], None),
        ([[1]], None),
        ([["a", "b"]], None),
        ([], None),
        ("a", None),
        ([[{"b64": "?"}]], None),
    ],
)
def test_texts_in_requests(value, expected):
    from dropzoo.serving.server.versions import Signature

    signature = Signature({"text": tf.TensorSpec([None, 1], tf.string)}, lambda inputs: inputs)
    request = read_predict(json.dumps({"inputs": value}).encode())
    if expected is None:
        with pytest.raises(Refused, match="'text'"):
            to_arrays(request, signature, Limits())
    else:
        assert to_arrays(request, signature, Limits())[0]["text"].tolist() == expected


def test_the_page_shows_each_output_that_can_be_shown(tmp_path):
    names = {"prob": ["background", "cell"]}
    path = serving.export_model(two_outputs(), tmp_path / "m" / "1", 2, task=TASKS, class_names=names, resize=8)
    info = json.loads((path / "assets.extra" / "info.json").read_text())["outputs"]
    assert [each["name"] for each in info] == ["dist", "prob"] and info[1]["class_names"] == names["prob"]
    with live(path.parent) as running:
        file = tf.io.encode_png((255 * GREY[0]).astype("uint8")).numpy()
        status, shown = running.post("/v1/models/m:picture", file, content_type="image/png")
    assert status == 200 and [each["output"] for each in shown["outputs"]] == ["dist", "prob"]
    assert [each["view"] for each in shown["outputs"]] == ["values", "class_map"]
    assert {each["name"] for each in shown["outputs"][1]["classes"]} <= set(names["prob"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (two_outputs, "takes images and returns dist_classes, dist_p"),
        (tokens, "takes tokens and returns classes, p"),
    ],
)
def test_files_of_images_are_predicted_for_models_of_one_image_and_one_answer(make, said, tmp_path):
    path = serving.export_model(make(), tmp_path / "1", 0)
    with pytest.raises(ValueError, match=f"{said}.*Use: dropzoo serve"):
        load_predictor(path)


def test_a_model_of_sequences_cannot_be_shown():
    from dropzoo.serving.server.info import Output

    with pytest.raises(Refused, match="cannot be shown here"):
        pictures({"probabilities": np.zeros((1, 5, 3))}, [Output()])


def conv(units=3, **options):
    return kl.Conv2D(units, 3, padding="same", **options)


ENDINGS = {  # the model's last layers, and whether its output is logits
    "softmax, then a resize": ([conv(), kl.Softmax(), lambda x: keras.ops.image.resize(x, (16, 16))], False),
    "softmax, then a permutation": ([conv(), kl.Softmax(), kl.Permute((2, 1, 3))], False),
    "softmax in a lambda": ([conv(), kl.Lambda(lambda x: keras.ops.softmax(x))], False),
    "a mean of two": ([conv(), lambda x: (keras.ops.softmax(x) + keras.ops.softmax(2 * x)) / 2], False),
    "clipped": ([conv(), kl.Softmax(), lambda x: keras.ops.clip(x, 1e-7, 1 - 1e-7)], False),
    "logits, scaled": ([conv(), kl.Lambda(lambda x: 3.0 * x)], True),
    "logits, then a resize": ([conv(), lambda x: keras.ops.image.resize(x, (16, 16))], True),
    "bytes, rescaled": ([kl.Rescaling(1 / 255), conv(), kl.Lambda(lambda x: 3.0 * x)], True),
}


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(("layers", "logits"), ENDINGS.values(), ids=ENDINGS)
def test_any_ending_is_exported_for_what_it_is(layers, logits, tmp_path):
    model = one_of(kl.Dropout(0.3), *layers)
    loaded = tf.saved_model.load(str(serving.export_model(model, tmp_path / "1", 0)))
    found = loaded.signatures["serving_default"](images=GREY)["probabilities"]
    raw = model(GREY)
    np.testing.assert_allclose(found, tf.nn.softmax(raw) if logits else raw, atol=1e-6)


def test_an_ending_that_nothing_decides_is_an_error_with_two_ways_out(tmp_path):
    model = one_of(kl.Flatten(), kl.Lambda(lambda x: keras.ops.clip(x[:, :3], 0.0, 1.0)))
    with pytest.raises(ValueError, match="from_logits=True for logits, or from_logits=False for prob"):
        serving.export_model(model, tmp_path / "1", 0)
    loaded = tf.saved_model.load(str(serving.export_model(model, tmp_path / "1", 0, from_logits=True)))
    found = loaded.signatures["serving_default"](images=GREY)["probabilities"]
    np.testing.assert_allclose(found, tf.nn.softmax(model(GREY)), atol=1e-6)


def test_what_is_sampled_by_plain_passes_is_said(tmp_path):
    model = one_of(kl.Flatten(), OwnDrop(name="own"), kl.Dense(3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path = serving.export_model(model, tmp_path / "1", 4, sampling="independent")
    said = [str(each.message) for each in caught if "plain passes in training mode (own" in str(each.message)]
    assert (
        len(said) == 1
        and "depends on its place in the batch. Use a dropout layer of dropzoo.layers instead" in said[0]
    )
    assert "its place in the batch" in (path / "assets.extra" / "model_card.md").read_text()
    run = tf.saved_model.load(str(path)).signatures["predict_mc"]
    first, again = run(images=GREY), run(images=GREY)
    np.testing.assert_array_equal(first["mean"], again["mean"])
    assert tf.reduce_max(first["variance"]) > 0


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (two_outputs, {"task": {"probs": "binary"}}, "Unknown output in `task` 'probs'. Did you"),
        (two_outputs, {"class_names": ["a", "b"]}, "must be a dict with a list for each output. Received"),
        (
            two_outputs,
            {"task": TASKS, "class_names": {"prop": ["a"]}},
            "Unknown output in `class_names` 'prop'",
        ),
        (
            two_outputs,
            {"task": TASKS, "class_names": {"prob": ["a"]}},
            "must have 2 names. Received: 1",
        ),
        (
            lambda: two_inputs(dict),
            {"input_range": {"foto": (0, 1)}},
            "Unknown image input in `input_range`: 'foto'",
        ),
        (tokens, {"input_range": (0, 1)}, "`input_range` is only for models that take images"),
        (tokens, {"resize": 8}, "`resize` needs a model of images"),
        (lambda: Own(), {"num_samples": 0}, "call it on a batch before the export"),
        (lambda: built_by_a_call(Certain), {}, "no dropout layer to sample; pass num_samples=0"),
    ],
)
def test_bad_arguments(make, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        serving.export_model(make(), tmp_path / "1", **{"num_samples": 2, **options})
    assert not list(tmp_path.iterdir())


class Norm(kl.Layer):
    """Its config asks the class of a layer, not a layer, for its config."""

    def get_config(self):
        return {**super().get_config(), "norm": kl.LayerNormalization.get_config()}

    def call(self, inputs):
        return inputs * 2


def test_a_model_that_keras_cannot_save_is_exported_without_its_file(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, kl.Dense(2)(Norm()(inputs)))
    with pytest.warns(UserWarning, match="`model.keras` is left out, because Keras cannot save the model"):
        path = serving.export_model(model, tmp_path / "m" / "1", 0)
    assert not (path / "assets.extra" / "model.keras").exists()
    x = np.ones((1, 4), "float32")
    loaded = tf.saved_model.load(str(path)).signatures["serving_default"]
    found = loaded(**{next(iter(loaded.structured_input_signature[1])): tf.constant(x)})["probabilities"]
    np.testing.assert_allclose(found, tf.nn.softmax(model(x)), rtol=1e-5)
