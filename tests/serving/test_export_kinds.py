"""Files of models as users write them.

The rule: a file gives the answers of the sampler, or an error names the layer and a way on. No error of
TensorFlow, tf2onnx or a runtime reaches the user.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from keras import ops

from dropzoo import serving
from dropzoo.serving.export.inputs import Input
from dropzoo.serving.export.precision import in_float32
from dropzoo.serving.export.unsupported import UnsupportedError, check_texts, refusal
from dropzoo.serving.montecarlo.steps import Steps


def model_of(shape, inside, classes=3, dtype="float32"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape, dtype=dtype)
    x = inside(inputs)
    x = x if len(x.shape) == 2 else kl.Flatten()(x)
    return keras.Model(inputs, kl.Dense(classes)(kl.Dropout(0.3)(x)))


def windows(x):
    return ops.mean(ops.reshape(kl.Dropout(0.4)(ops.reshape(x, (-1, 6))), (-1, 5, 6)), 1)


def values(shape, low=0.0, high=1.0):
    return np.random.default_rng(0).uniform(low, high, (3, *shape)).astype("float32")


PIXELS = np.random.default_rng(1).random((8, 6, 6, 4)).astype("float32")


def adapted():
    layer = kl.Normalization()
    layer.adapt(PIXELS)
    return layer


def masked(x):
    """A sequence whose zeros are masked before a dropout, and in a pooling after it."""
    x = kl.Dropout(0.4)(kl.Masking()(kl.Reshape((-1, 2))(x)))
    return kl.GlobalAveragePooling1D()(x)


# The shape, what stands before the dropout, the options of the sampler, and whether the runtime is small.
SAMPLED = {
    "windows": ((5, 6), windows, {"sampling": "fixed"}, False),
    "independent windows": ((5, 6), windows, {"sampling": "independent"}, False),
    "masked": ((6,), masked, {"sampling": "fixed"}, False),
    "masked in a small runtime": ((6,), masked, {"sampling": "fixed"}, True),
    "regression": ((5,), lambda x: x, {"task": "regression"}, True),
    "regression far from zero": ((5,), lambda x: x * 20.0 + 1000.0, {"task": "regression"}, True),
}


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("kind", SAMPLED)
def test_steps_give_the_answers_of_the_sampler(kind):
    shape, inside, options, small = SAMPLED[kind]
    model, x = model_of(shape, inside), values(shape)
    x[0, 2:] = 0
    mc = serving.MonteCarlo(model, 4, **options)
    expected, steps = mc(x), Steps(mc, small)
    shared, sums = steps.start(mc.reader.check(x)), steps.zeros()
    for turn in range(steps.turns):
        sums = steps.add(tf.constant(turn), sums, shared)
    found = steps.finish(sums)
    assert not small or all(each.dtype == tf.float32 for each in sums)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-5)


def operations(x):
    """Operations that Keras uses and ONNX lacks, and a layer that holds tensors without variables."""
    x = adapted()(x)
    x = kl.concatenate([kl.Activation(name)(x) for name in ("gelu", "celu", "elu", "log_sigmoid")])
    x = kl.GlobalAveragePooling2D()(kl.Conv2D(4, 3, groups=2)(x))
    places = kl.Discretization(bin_boundaries=[-1.0, 0.0, 0.5])(x)
    return kl.concatenate([ops.log1p(ops.abs(x)), ops.expm1(x), kl.Flatten()(kl.Embedding(4, 3)(places))])


def test_operations_in_onnx(tmp_path):
    """The export compares the file with TensorFlow, and its inputs are those of the model."""
    pytest.importorskip("tf2onnx", reason="needs dropzoo[onnx]")
    onnx = pytest.importorskip("onnx")
    path = serving.export_model(model_of((6, 6, 4), operations), tmp_path / "a.onnx", 2, format="onnx")
    assert [value.name for value in onnx.load(path).graph.input] == ["images"]


@pytest.mark.parametrize("format", ["onnx", pytest.param("litert", marks=pytest.mark.slow)])
def test_mixed_precision_in_files(format, tmp_path):
    pytest.importorskip({"onnx": "tf2onnx", "litert": "ai_edge_litert"}[format])
    keras.config.set_dtype_policy("mixed_float16")
    model = model_of((5,), lambda x: kl.Dense(8, activation="gelu")(x))
    serving.export_model(model, tmp_path / f"a.{format.replace('litert', 'tflite')}", 2, format=format)
    assert model.layers[1].compute_dtype == "float16"


def test_a_regression_in_litert(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="needs dropzoo[litert]")
    from dropzoo.serving.export import litert_file

    model, x = model_of((5,), lambda x: x + 1000.0), values((5,))
    path = serving.export_model(model, tmp_path / "a.tflite", 3, format="litert", task="regression")
    found = litert_file.run(path.read_bytes(), {"images": x})
    for name, value in serving.MonteCarlo(model, 3, "fixed", task="regression")(x).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3)


class TestPrecision:
    def test_mixed_layers_compute_in_float32_during_the_block(self):
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = model_of((5,), lambda x: keras.Sequential([kl.Dense(4), kl.LayerNormalization()])(x))
        policies = [layer.dtype_policy for layer in model._flatten_layers()]
        with in_float32([model], "litert"):
            assert {layer.compute_dtype for layer in model._flatten_layers()} == {"float32"}
            assert model(values((5,))).dtype == tf.float32
        assert [layer.dtype_policy for layer in model._flatten_layers()] == policies
        with pytest.raises(ValueError, match="fitted to answers in bfloat16.*calibrate the new model"):
            with in_float32([model], "litert", calibrated=True):
                pass

    @pytest.mark.parametrize(
        "format, policy, fits",
        [
            ("onnx", "float64", True),
            ("litert", "float64", False),
            ("onnx", "bfloat16", False),
            ("litert", "float16", False),
        ],
    )
    def test_weights_of_other_dtypes(self, format, policy, fits):
        keras.config.set_dtype_policy(policy)
        model = model_of((5,), lambda x: kl.Dense(4, name="wide")(x))
        if fits:
            with in_float32([model], format):
                return
        with pytest.raises(ValueError, match=f"the layer 'wide', which computes in {policy}.*set_weights"):
            with in_float32([model], format):
                pass


REFUSED = {  # operations, nodes, format, and what the error says
    "recurrent": (
        [],
        ["functional_1/steps_1/TensorArrayV2_1"],
        "litert",
        "^LiteRT cannot run 'steps'. Build 'steps' with unroll=True.*; or export the model with format='onnx'",
    ),
    "frames": ([], ["turn/frames/loop_body/Conv2D"], "onnx", "^ONNX cannot run 'frames'. Fix the number of steps"),
    "lookup": (
        ["LookupTableFindV2"],
        ["before/functional_1/lookup_2/LookupTableFindV2"],
        "onnx",
        "^ONNX has no operation for LookupTableFindV2, which 'lookup' uses. Call 'lookup' outside of the file",
    ),
    "unknown": (
        ["FFT", "FFT", "Complex"],
        ["while/FFT"],
        "litert",
        "no operation for Complex, FFT, which the model",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_names_the_layer_and_a_way_on(kind):
    inputs = keras.Input((5, 4))
    inner = keras.Sequential([kl.LSTM(3, name="steps")])
    lookup = kl.IntegerLookup(vocabulary=[1, 2], name="lookup")(keras.Input((2,), dtype="int64", name="ids"))
    frames = kl.TimeDistributed(kl.Dense(2), name="frames")(inputs)
    one, two = keras.Model(inputs, [inner(frames)]), keras.Model(lookup._keras_history.operation.input, lookup)
    operations, nodes, format, words = REFUSED[kind]
    error = refusal(UnsupportedError(operations, nodes), [one, two], format, sampled=True)
    with pytest.raises(ValueError, match=words + ".*num_samples=0"):
        raise error
    assert "num_samples" not in str(
        refusal(UnsupportedError(operations, nodes), [one, two], format, sampled=False)
    )


def test_texts_are_refused_in_files():
    inputs = keras.Input((1,), dtype="string", name="country")
    model = keras.Model(inputs, kl.StringLookup(vocabulary=["a"], output_mode="one_hot", name="lookup")(inputs))
    taken = [Input("country", "country_bytes", (None, 1), "string", "string")]
    with pytest.raises(
        ValueError, match="strings as country, which 'lookup' reads. Call 'lookup' outside of the file"
    ):
        check_texts(taken, [model], "onnx")
    check_texts([Input("x", "x_bytes", (None, 1), "float32", "float32")], [model], "onnx")
