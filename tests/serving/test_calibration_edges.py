"""Calibration at its edges: outputs `(batch,)`, texts, outputs of an open meaning, sites that rate 0 changes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers, serving
from dropzoo.layers.draws.samples import SampleDraw
from dropzoo.serving.calibration.fitting.forms import pairs_of
from dropzoo.serving.calibration.fitting.heldout import HeldOut
from dropzoo.serving.calibration.guarantee import Guarantee
from dropzoo.serving.calibration.sites import can_set
from dropzoo.serving.calibration.words import promises_in_words
from dropzoo.serving.export.inputs import inputs_of, specs_of
from dropzoo.serving.export.predictors import predictors_of
from dropzoo.serving.export.signatures import Signatures

kl = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(120, 3)).astype("float32")
Y = (X[:, 0] > 0).astype(int)


def flat(rate=0.2):
    """A model that returns `(batch,)` and tells the two classes apart."""
    x = inputs = keras.Input((3,))
    logit = kl.Dense(1, kernel_initializer=keras.initializers.Constant([[4.0], [0.0], [0.0]]))
    return keras.Model(inputs, keras.ops.squeeze(logit(layers.Dropout(rate, name="x_dropout")(x)), -1))


def answers_of(predictor, calibration=None):
    said = {"task": None, "from_logits": None}
    if isinstance(predictor, keras.Model):
        said = {"task": "binary", "from_logits": True}
    made = predictors_of(predictor, 0, "fixed", 0, calibration, said)
    specs = specs_of(made.reader, made.default)
    found = Signatures(made, inputs_of(specs, "float32", None, [None]), 0).functions()["serving_default"]
    return found(images=tf.constant(X))


@pytest.mark.parametrize("members", [1, 2])
def test_a_flat_output_is_exported_with_a_class_for_each_row(members):
    found = answers_of(flat() if members == 1 else serving.Ensemble([flat(), flat()], "binary", True))
    assert found["probabilities"].shape == (120, 1) and found["classes"].shape == (120,)
    np.testing.assert_array_equal(found["classes"], Y)


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("of", ["a model", "samples"])
@pytest.mark.parametrize("guarantee", [{"set": 0.1}, {"error": 0.3}, {"set": 0.1, "error": 0.3}])
def test_a_flat_output_is_calibrated_row_by_row(of, guarantee):
    model, options = flat(), {"task": "binary", "from_logits": True}
    predictor = model if of == "a model" else serving.MonteCarlo(model, 4, **options)
    said = options if of == "a model" else {}
    cal = serving.calibrate(predictor, X, Y, guarantee=guarantee, verbose=0, **said)
    out = serving.MonteCarlo(model, calibration=cal, **options)(X)
    assert out["mean"].shape == (120,)
    if "set" in guarantee:
        assert out["set"].shape == (120, 2) and (out["set"].numpy()[np.arange(120), Y]).mean() > 0.85
    if "error" in guarantee:
        assert out["defer"].shape == (120,)
    if of == "a model":
        found = answers_of(model, cal)
        assert found["probabilities"].shape == (120, 1)
        assert all(len(value) == 120 for value in found.values())


@pytest.mark.parametrize("name", [*layers.list_layers(), "standard"])
def test_a_site_that_can_be_set_is_off_at_rate_0(name):
    """Otherwise a search would score a network that nobody gets."""
    others = {
        "standard": lambda: layers.Dropout(0.4, scaling="standard"),
        "concrete_dropout": lambda: layers.ConcreteDropout(kl.Dense(3), rate=0.4, data_size=10),
        "drop_connect_dense": lambda: layers.DropConnectDense(3, rate=0.4),
        "drop_connect_conv2d": lambda: layers.DropConnectConv2D(3, 2, rate=0.4),
        "stochastic_pooling2d": layers.StochasticPooling2D,
    }
    layer = others[name]() if name in others else layers.get(f"{name}:0.4")
    shape = {"spatial_dropout1d": (5, 6), "spatial_dropout3d": (4, 4, 4, 6)}.get(name, (4, 4, 6))
    x = tf.constant(RANDOM.random((2, *shape), "float32"))
    draw = SampleDraw("x", tf.constant(0, tf.int64), 0, tf.zeros([2], tf.uint32), tf.constant(0), 1, False, True)
    inferred = layer(x).numpy()
    if not hasattr(layer, "drop"):
        assert not can_set(layer)
        return
    same = np.allclose(layer.drop(x, tf.constant(0.0), draw), inferred, atol=1e-6)
    assert can_set(layer) == (layers.is_dropout(layer) and same)


def test_texts_are_known_by_their_content():
    texts = [["drei"], ["ä"], ["one two"], [""]] * 5
    bytes_of = [[each[0].encode()] for each in texts]
    labels = np.arange(20) % 2
    forms = [np.array(texts), np.array(texts, "U40"), np.array(texts, object), np.array(bytes_of, object)]
    keys = []
    for images in [*forms, tf.data.Dataset.from_tensor_slices((tf.constant(texts), labels)).batch(8)]:
        given = (images, None) if isinstance(images, tf.data.Dataset) else (images, labels)
        held = HeldOut(pairs_of(*given, 7), "multi_class", (None, 2))
        held.scan()
        keys.append(held.keys.tolist())
        assert sum(len(batch.keys) for batch in held.batches(set(keys[-1]), 1)) == 20
    assert all(each == keys[0] for each in keys) and len(set(keys[0])) == 4


def test_an_open_meaning_can_be_said():
    class Bare(keras.Model):
        """Its logits lie in [0, 1], and nothing shows that they are logits."""

        def call(self, x, training=False):
            return tf.numpy_function(lambda v: (np.clip(v, 0, 0.9)).astype("float32"), [x], tf.float32)[:, :2]

        def compute_output_shape(self, shape):
            return (shape[0], 2)

    for predictor, message in (
        (Bare(), "Pass from_logits=True"),
        (serving.MonteCarlo(flat()), "from_logits=None"),
    ):
        with pytest.raises(ValueError, match=message):
            options = {} if isinstance(predictor, keras.Model) else {"from_logits": True}
            serving.calibrate(predictor, np.abs(X), Y, verbose=0, **options)
    assert serving.calibrate(Bare(), np.abs(X), Y, from_logits=True, verbose=0).n == 120


@pytest.mark.parametrize(
    ("confidence", "words"), [(0.9, "90%"), (0.995, "99.5%"), (0.999, "99.9%"), (0.9999, "99.99%"), (0.29, "29%")]
)
def test_a_confidence_is_not_rounded_up(confidence, words):
    guarantee = Guarantee("error", 0.1, (0.2,), n=(50,), confidence=confidence)
    cal = serving.Calibration(1.0, {}, {"error": guarantee}, facts=None)
    assert promises_in_words(cal)["error"].endswith(f"This holds with a probability of {words}.")
