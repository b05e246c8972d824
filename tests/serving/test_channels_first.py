"""Models whose images have their channels first take image files at every door, and never mix up the axes.

The rule: a file gets the axes that the model takes, so that it has the answer of the same pixels as numbers. The
classes of an output must be last; a model that has them first is refused with the layer that turns them.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo.common.images import channels_first, sides_of
from dropzoo.models.graph.inputs import input_pixels
from dropzoo.models.graph.order import channels_first_inputs, shape_of_images
from dropzoo.models.graph.record import taken_by
from dropzoo.runs.predictors import load_predictor
from dropzoo.serving.export.checks import check_resize
from dropzoo.serving.export.inputs import inputs_of, specs_of
from dropzoo.serving.export.predictors import Predictors
from dropzoo.serving.export.signatures import Signatures
from dropzoo.serving.montecarlo.augmentation import TestTimeAugmentation
from dropzoo.serving.montecarlo.reader import Reader
from dropzoo.serving.montecarlo.sampler import MonteCarlo
from dropzoo.serving.montecarlo.tiles import predict_tiled
from dropzoo.serving.server.files import read_image
from dropzoo.serving.server.limits import Limits

kl = keras.layers
RGB = np.random.default_rng(0).integers(0, 256, (12, 10, 3), "uint8")


def net(shape: tuple[int | None, ...], dtype: str = "float32") -> keras.Model:
    """A classifier of images with channels first, which turns them."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input(shape, dtype=dtype)
    x = kl.Conv2D(4, 3, activation="relu")(kl.Permute((2, 3, 1))(kl.Rescaling(1 / 255)(x)))
    return keras.Model(inputs, kl.Dense(3)(kl.GlobalAveragePooling2D()(kl.Dropout(0.3)(x))))


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    ("shape", "dtype", "resize"),
    [
        ((3, 12, 10), "float32", None),
        ((3, None, None), "float32", None),
        ((3, 12, 10), "uint8", None),
        ((3, 6, 5), "float32", (6, 5)),
        ((1, 12, 10), "float32", None),
    ],
)
def test_a_file_has_the_answer_of_its_pixels(shape, dtype, resize):
    model = net(shape, dtype)
    reader, pixels = Reader(model), taken_by(model)
    assert pixels.range == (0, 255) and pixels.channels == shape[0]
    (given,) = inputs = inputs_of(specs_of(reader, None), dtype, resize, [pixels])
    functions = Signatures(Predictors([model], reader, None, None, None), inputs, 0).functions()
    stored = RGB if shape[0] == 3 else RGB[..., :1]
    file = tf.io.encode_png(stored).numpy()
    numbers = np.moveaxis(stored, -1, 0)[None].astype(dtype)
    found = functions["serving_default"](images=numbers)["probabilities"]
    if resize is None:
        np.testing.assert_allclose(found, tf.nn.softmax(model(numbers)), atol=1e-5)
    np.testing.assert_allclose(read_image(file, given.spec, Limits(), pixels), numbers, atol=1e-4)
    answer = functions["predict_bytes"](image_bytes=[file])["probabilities"]
    np.testing.assert_allclose(answer, found, atol=1e-5)


def test_a_predictor_of_files_turns_them(tmp_path):
    model = net((3, 12, 10))
    model.save(tmp_path / "m.keras")
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(RGB).numpy())
    predictor = load_predictor(tmp_path / "m.keras", 30)
    assert predictor.input_shape == (12, 10, 3)
    expected = MonteCarlo(model)(np.moveaxis(RGB, -1, 0)[None].astype("float32"))["mean"]
    mean = predictor.predict(predictor.read(tmp_path / "a.png")[None])["mean"]
    np.testing.assert_allclose(mean, expected, atol=1e-5)


ENDS = {
    "conv": [],
    "softmax of the last axis": [kl.Softmax()],
    "layers that keep the shape": [kl.BatchNormalization(axis=1), kl.Activation("relu"), kl.Dropout(0.2)],
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_outputs_with_channels_first_are_refused(end, nested):
    x = inputs = keras.Input((3, 6, 8))
    for layer in [kl.Conv2D(2, 1, data_format="channels_first"), *end]:
        x = type(layer).from_config(layer.get_config())(x)
    model = keras.Model(inputs, x)
    if nested:
        model = keras.Model(inputs, model(inputs))
    with pytest.raises(
        ValueError, match=r"on its axis 1, and they must be last. Put keras.layers.Permute\(\(2, 3, 1"
    ):
        Reader(model)
    turned = keras.Model(model.inputs, kl.Permute((2, 3, 1))(model.output))
    assert Reader(turned, from_logits=True).outputs[0].classes == 2
    assert Reader(model, "regression").outputs[0].kind == "regression"


@pytest.mark.parametrize(
    ("shape", "first", "sides"),
    [
        ((None, 3, None, None), True, (None, None)),
        ((2, 1, 28, 30), True, (28, 30)),
        ((None, 28, 28, 1), False, (28, 28)),
        ((None, 3, 32, 3), False, (3, 32)),
        ((None, None, None, 3), False, (None, None)),
        ((None, 9, 8, 7), False, (9, 8)),
    ],
)
def test_the_place_of_the_channels(shape, first, sides):
    assert channels_first(shape) == first and sides_of(shape) == sides


FLIPS = {
    "identity": lambda x: x,
    "flip_horizontal": lambda x: x[..., ::-1],
    "flip_vertical": lambda x: x[..., ::-1, :],
}


def test_augmentation_turns_height_and_width():
    model, x = net((3, 8, 8)), np.moveaxis(RGB[:8, :8], -1, 0)[None].astype("float32")
    for name, flip in FLIPS.items():
        found = TestTimeAugmentation(model, [name])(x)["mean"]
        np.testing.assert_allclose(found, tf.nn.softmax(model(flip(x))), atol=1e-5, err_msg=name)
    turned = TestTimeAugmentation(model, ["rotate_90"])(x)["mean"]
    np.testing.assert_allclose(turned, tf.nn.softmax(model(np.rot90(x, 1, (2, 3)))), atol=1e-5)


def test_tiles_are_refused_with_a_way_out():
    images = keras.Input((3, None, None))
    maps = keras.Model(images, kl.Conv2D(2, 1)(kl.SpatialDropout2D(0.2)(kl.Permute((2, 3, 1))(images))))
    mc = MonteCarlo(maps, 2, "fixed")
    with pytest.raises(ValueError, match=r"channels last. Put keras.layers.Permute\(\(3, 1, 2\)\) before"):
        predict_tiled(mc, np.zeros((3, 20, 20), "float32"), 8, 2)
    whole = keras.Input((None, None, 3))
    mc = MonteCarlo(keras.Model(whole, maps(kl.Permute((3, 1, 2))(whole))), 2, "fixed")
    assert predict_tiled(mc, np.zeros((20, 18, 3), "float32"), 8, 2)["mean"].shape == (20, 18, 2)


@pytest.mark.parametrize("shape", [(1, 32, 16), (3, 32, 16), (3, 3, 8)])
@pytest.mark.parametrize("nested", [False, True])
def test_the_first_convolution_says_where_the_channels_are(shape, nested):
    """Electrodes or bands may be 16 channels of a map that is one or three pixels high."""
    inputs = keras.Input(shape)
    model = keras.Model(inputs, kl.Conv2D(2, (1, 3))(kl.Dropout(0.1)(inputs)))
    if nested:
        model = keras.Model(inputs, model(kl.Rescaling(1 / 255)(inputs)))
    assert channels_first_inputs(model) == [False]
    (given,) = inputs_of(specs_of(Reader(model, "regression"), None), "float32", None, [taken_by(model)])
    assert given.channels == shape[-1] and not given.is_file and given.fixed_size == shape[:2]
    first = keras.Input((3, 32, 32))
    assert channels_first_inputs(keras.Model(first, kl.Conv2D(2, 3, data_format="channels_first")(first))) == [
        True
    ]


# The shape of the input, whether its channels are first, and the images as `(height, width, channels)`. The shape
# alone tells another place in each.
MISLEADING = [
    ((1, 64, 22), False, (1, 64, 22)),
    ((3, 9, 8), False, (3, 9, 8)),
    ((3, 8, 4), True, (8, 4, 3)),
    ((8, 12, 10), True, (12, 10, 8)),
]


def padded(shape, first, dtype="float32"):
    """A model whose first spatial layer says where the channels are."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape, dtype=dtype)
    x = kl.Rescaling(1 / 255)(inputs)
    x = kl.ZeroPadding2D(1, data_format="channels_first" if first else "channels_last")(x)
    return keras.Model(inputs, kl.Dense(3)(kl.Dropout(0.3)(kl.Flatten()(x))))


@pytest.mark.parametrize(("shape", "first", "images"), MISLEADING)
def test_the_layer_is_asked_before_the_shape(shape, first, images):
    model = padded(shape, first)
    assert channels_first((None, *shape)) != first
    assert channels_first_inputs(model) == [first] and shape_of_images(model) == images
    (shown,) = input_pixels(model).values()
    assert shown.channels == images[2] and shown.range == (0, 255)
    (whole,) = input_pixels(padded(shape, first, "uint8")).values()
    assert whole.channels == images[2]
    specs = specs_of(Reader(model), None)
    assert check_resize(specs, [taken_by(model)], images[:2]) == images[:2]
    with pytest.raises(ValueError, match=rf"must be the model's size, \({images[0]}, {images[1]}\)"):
        check_resize(specs, [taken_by(model)], 50)


def test_a_predictor_turns_images_as_the_first_layer_says(tmp_path):
    """The last axis has four places, as many as the channels of a file can be."""
    model = padded((3, 8, 4), True)
    model.save(tmp_path / "m.keras")
    predictor = load_predictor(tmp_path / "m.keras", 2, say=lambda text: None)
    assert predictor.input_shape == (8, 4, 3)
    x = RGB[None, :8, :4].astype("float32")
    one = load_predictor(tmp_path / "m.keras", 2, say=lambda text: None).feed(x / 255)
    np.testing.assert_allclose(one, np.moveaxis(x, -1, 1), atol=1e-4)
    assert predictor.predict(x / 255)["mean"].shape == (1, 3)
