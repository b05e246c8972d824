"""The range of the images is known at every door, and one image has one answer, in whatever form it comes.

The rule: what a model takes is said, or recorded by its training, or shown by its graph, or assumed to be [0, 1],
and written on the card. Files are brought to that range with the bits that they have. A range that cannot be right
is refused by a sentence that says both ranges.
"""

import json
import logging
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("fastapi", reason="needs the extra `serve`")


from _live import live
from dropzoo import serving, training
from dropzoo.common.pixels import Pixels
from dropzoo.models.graph.record import read_record, recorded, remember, taken_by
from dropzoo.runs.inputs import settle_range
from dropzoo.runs.predictors import load_predictor
from dropzoo.serving.export.export import _say_range
from dropzoo.serving.export.inputs import inputs_of, specs_of
from dropzoo.serving.export.predictors import Predictors
from dropzoo.serving.export.signatures import Signatures
from dropzoo.serving.montecarlo.reader import Reader
from dropzoo.serving.server.files import read_image
from dropzoo.serving.server.limits import Limits, Refused
from dropzoo.serving.server.versions import load

kl = keras.layers
MEANS = [103.939, 116.779, 123.68]


def net(*layers, channels=3, dtype=None):
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((8, 8, channels), dtype=dtype)
    for layer in layers:
        x = layer(x)
    x = kl.Dropout(0.3)(kl.Conv2D(4, 3, activation="relu")(x))
    return keras.Model(inputs, kl.Dense(3)(kl.Flatten()(x)))


def trained_on(low, high, **facts):
    model = net(channels=facts.get("channels", 3))
    remember(model, Pixels(low, high, source="the training images", **facts))
    return model


# The model, the options of its export, the bits of a file, and a function from a file's numbers to those that the
# model takes.
KINDS = {
    "nothing known": (lambda: net(), {}, 8, lambda v: v / 255),
    "rescaling": (lambda: net(kl.Rescaling(1 / 255)), {}, 8, lambda v: v),
    "rescaling, as bytes": (lambda: net(kl.Rescaling(1 / 255)), {"image_dtype": "uint8"}, 8, lambda v: v),
    "rescaling to -1": (lambda: net(kl.Rescaling(1 / 127.5, -1)), {}, 8, lambda v: v),
    "said": (lambda: net(), {"input_range": (-1, 1)}, 8, lambda v: v / 127.5 - 1),
    "said, as bytes": (
        lambda: net(),
        {"input_range": (-1, 1), "image_dtype": "uint8"},
        8,
        lambda v: v / 127.5 - 1,
    ),
    "recorded": (lambda: trained_on(0, 255), {}, 8, lambda v: v),
    "16 bits": (lambda: net(channels=1), {}, 16, lambda v: v / 65535),
    "16 bits, recorded": (lambda: trained_on(0, 1, bits=16, channels=1), {}, 16, lambda v: v / 65535),
    "16 bits, as they are": (lambda: net(kl.Rescaling(1 / 65535), channels=1), {}, 16, lambda v: v),
    "16 bits, as uint16": (lambda: net(channels=1), {"image_dtype": "uint16"}, 16, lambda v: v / 65535),
    "12 bits, as they are": (lambda: net(kl.Rescaling(1 / 4095), channels=1), {}, 16, lambda v: v),
    "BGR": (lambda: net(kl.Rescaling(1.0, [-m for m in MEANS])), {}, 8, lambda v: v[..., ::-1]),
    "integers": (lambda: net(kl.Rescaling(1 / 255), dtype="uint8"), {"image_dtype": "uint8"}, 8, lambda v: v),
    "integers of 16 bits": (
        lambda: net(kl.Rescaling(1 / 65535), channels=1, dtype="uint16"),
        {"image_dtype": "uint16"},
        16,
        lambda v: v,
    ),
}


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(("make", "options", "bits", "taken"), KINDS.values(), ids=KINDS)
def test_an_image_has_one_answer_in_every_form(make, options, bits, taken):
    model, channels = make(), 1 if bits == 16 else 3
    stored = np.random.default_rng(0).integers(0, 4096 if bits == 16 else 256, (1, 8, 8, channels))
    stored = stored.astype(f"uint{bits}")
    file = tf.io.encode_png(stored[0]).numpy()
    x = taken(stored.astype("float32")).astype(model.inputs[0].dtype)
    expected = tf.nn.softmax(model(x))

    pixels = taken_by(model, options.get("input_range"))
    reader = Reader(model)
    (given,) = inputs = inputs_of(specs_of(reader, None), options.get("image_dtype", "float32"), None, [pixels])
    functions = Signatures(Predictors([model], reader, None, None, None), inputs, 0).functions()
    sent = stored if given.spec.dtype.is_integer else x.astype("float32")
    image = read_image(file, given.spec, Limits(), pixels)  # what the server makes of the file
    np.testing.assert_allclose(image, sent, atol=1e-4)
    for answer in (
        functions["serving_default"](images=sent),
        functions["serving_default"](images=image),
        functions["predict_bytes"](image_bytes=[file]),
    ):
        np.testing.assert_allclose(answer["probabilities"], expected, atol=2e-5)


@pytest.mark.costly(keep=0)
def test_samples_and_predictions_of_files(tmp_path):
    model, file = net(kl.Rescaling(1 / 255)), tmp_path / "a.png"
    stored = np.random.default_rng(0).integers(0, 256, (8, 8, 3), "uint8")
    file.write_bytes(tf.io.encode_png(stored).numpy())
    path = serving.export_model(model, tmp_path / "m" / "1", 2)
    model.save(tmp_path / "m.keras")
    expected = serving.MonteCarlo(model, 2, "fixed")(stored[None].astype("float32"))
    found = tf.saved_model.load(str(path)).signatures["predict_mc"](images=stored[None].astype("float32"))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=2e-5)
    exported, own = load_predictor(path), load_predictor(tmp_path / "m.keras", 30)
    np.testing.assert_allclose(exported.answer(exported.read(file))["mean"], expected["mean"][0], atol=2e-5)
    mean = serving.MonteCarlo(model, 30)(stored[None].astype("float32"))["mean"]
    np.testing.assert_allclose(own.answer(own.read(file))["mean"], mean[0], atol=2e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: net(),
            "are assumed for 'images'.*Pass its range: input_range=.low, high. .--input-range LOW,HIGH..$",
        ),
        (
            lambda: trained_on(-124, 151, from_files=False),
            "takes no image files for 'images'.*from -124 to 151 .*image files cannot be scaled to it",
        ),
        (lambda: net(kl.Rescaling(1 / 255)), None),
    ],
)
def test_an_export_says_in_a_line_what_it_does_not_know(make, words, caplog):
    model = make()
    reader = Reader(model)
    with caplog.at_level(logging.WARNING, "dropzoo.serving"):
        _say_range(model, inputs_of(specs_of(reader, None), "float32", None, [taken_by(model)]))
    said = " ".join(record.getMessage() for record in caplog.records)
    assert re.search(words, said) if words else not said


def test_an_export_warns_of_a_network_whose_weights_expect_other_images():
    """The name of the network does not matter, and a network with a name alone is another one."""
    encoder = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3), name="encoder")
    for model, warns in [
        (keras.Sequential([encoder, kl.Flatten(), kl.Dense(2)]), 1),
        (named("vgg16"), 0),
    ]:
        inputs = inputs_of(specs_of(Reader(model), None), "float32", None, [taken_by(model)])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _say_range(model, inputs)
        assert len(caught) == warns
        assert not warns or re.search("'vgg' of keras.applications.*put that", str(caught[0].message))


def named(name):
    inner = net()
    inner.name = name
    return keras.Sequential([keras.Input((8, 8, 3)), inner])


def test_the_card_says_what_is_taken_and_how_it_is_known(tmp_path):
    facts = {}
    for name, model in {"shown": net(kl.Rescaling(1 / 255, name="scale")), "assumed": net()}.items():
        path = serving.export_model(model, tmp_path / name / "1", 0)
        facts[name] = json.loads((path / "assets.extra" / "info.json").read_text())["inputs"][0]["pixels"]
        assert f"0 to {facts[name]['high']:g}" in (path / "assets.extra" / "model_card.md").read_text()
        assert (read_record(path / "assets.extra" / "model.keras") is None) == (name == "assumed")
    assert facts["shown"]["high"] == 255 and facts["shown"]["source"] == "its layer 'scale'"
    assert facts["assumed"] == {**vars(Pixels()), "channels": None}


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            lambda: trained_on(0, 1),
            {"input_range": (0, 255)},
            r"takes pixels from 0 to 1 \(known from the tr.*Rec",
        ),
        (lambda: net(), {"input_range": (255, 0)}, "`input_range` must be the values of a black and of a white"),
        (
            lambda: net(channels=1, dtype="uint16"),
            {},
            "The model takes uint16, so pixels are not converted: pass image_dtype='uint16",
        ),
        (
            lambda: trained_on(0, 1, bits=16),
            {"image_dtype": "uint8"},
            "takes 16-bit images.*Pass image_dtype='uint16'",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_both(make, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        serving.export_model(make(), tmp_path / "1", 0, **options)


def test_a_model_of_standardised_images_takes_no_files(tmp_path):
    """No linear map of [0, 1] is known to give what it was trained on: files are refused, numbers are taken."""
    model = net()
    data = tf.data.Dataset.from_tensor_slices((np.linspace(-2.1, 2.6, 768).reshape(4, 8, 8, 3), np.arange(4) % 3))
    training.Trainer(model).fit(data.batch(4), epochs=1, verbose=0)
    assert not recorded(model).from_files
    path = serving.export_model(model, tmp_path / "m" / "1", 0)
    version = load(path)
    assert list(version.signatures) == ["serving_default"]
    assert (
        "-2.1 to 2.6 (known from the training images; image files"
        in (path / "assets.extra/model_card.md").read_text()
    )
    signature, file = version.signatures["serving_default"], tf.io.encode_png(np.zeros((8, 8, 3), "uint8")).numpy()
    with pytest.raises(Refused, match="from -2.1 to 2.6 .*image files cannot be scaled to it.*Send JSON"):
        read_image(file, signature.specs["images"], Limits(), signature.pixels["images"])
    with pytest.raises(ValueError, match="-2.1 to 2.6.*Put the layer that scales the images"):
        serving.export_model(model, tmp_path / "m" / "2", 0, image_dtype="uint8")
    with pytest.raises(ValueError, match="or pass the values of black and white: --input-range"):
        settle_range(model, None, print)
    assert settle_range(model, (-2, 2), print).from_files


def test_a_range_that_the_graph_does_not_show_is_taken_with_a_warning():
    model = net(kl.Rescaling(1 / 255, name="scale"))
    with pytest.warns(
        UserWarning, match="from 0 to 255 .*'scale'.*Received: input_range=.0, 1., which is used anyway"
    ):
        assert taken_by(model, (0, 1)).range == (0, 1)
    assert taken_by(model, (0, 255)).source == "its layer 'scale'"


def test_the_server_refuses_a_range_that_cannot_be_right(tmp_path, caplog):
    serving.export_model(net(kl.Rescaling(1 / 255)), tmp_path / "m" / "1", 0)
    x = np.random.default_rng(0).random((1, 8, 8, 3), "float32")
    dark = np.ones((1, 8, 8, 3), "float32")
    with live(tmp_path / "m") as running:
        for body in ({"instances": x.tolist()}, {"inputs": x.tolist()}, {"inputs": {"images": x.tolist()}}):
            status, answer = running.post("/v1/models/m:predict", body)
            assert status == 400, answer
            assert "'images': The model takes pixels from 0 to 255" in answer["error"]
            assert "Multiply them by 255" in answer["error"]
        for right in (255 * x, dark, 0 * dark):
            assert running.post("/v1/models/m:predict", {"instances": right.tolist()})[0] == 200


def test_an_assumed_range_refuses_nothing_and_the_log_says_so_once(tmp_path, caplog):
    serving.export_model(net(), tmp_path / "m" / "1", 0)
    x = np.full((1, 8, 8, 3), 200.0).tolist()
    with live(tmp_path / "m") as running, caplog.at_level(logging.WARNING, "dropzoo.serving"):
        assert [running.post("/v1/models/m:predict", {"instances": x})[0] for _ in range(3)] == [200] * 3
    said = [r.getMessage() for r in caplog.records if "Received: pixels" in r.getMessage()]
    assert len(said) == 1 and "assumed" in said[0] and "export the model with their `input_range`" in said[0]


def test_files_of_8_bits_are_refused_for_a_model_of_16(tmp_path):
    path = serving.export_model(trained_on(0, 1, bits=16, channels=1), tmp_path / "m" / "1", 0)
    version, file = load(path), tf.io.encode_png(np.full((8, 8, 1), 9, "uint8")).numpy()
    signature = version.signatures["serving_default"]
    with pytest.raises(Refused, match="16-bit images.*an 8-bit file"):
        read_image(file, signature.specs["images"], Limits(), signature.pixels["images"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="16 bits"):
        version.signatures["predict_bytes"].run({"image_bytes": np.array([file], object)})
    (tmp_path / "a.png").write_bytes(file)
    with pytest.raises(ValueError, match="takes 16-bit images.*8-bit file .*a.png"):
        load_predictor(path).read(tmp_path / "a.png")


def test_an_export_of_8_bits_refuses_files_of_16():
    """It would round 12 bits to a few levels, and answer all the same."""
    file = tf.io.encode_png(np.full((8, 8, 1), 900, "uint16")).numpy()
    with pytest.raises(Refused, match="8-bit images, and the file has more bits. Export .*image_dtype='uint16'"):
        read_image(file, tf.TensorSpec([None, 8, 8, 1], tf.uint8), Limits())
