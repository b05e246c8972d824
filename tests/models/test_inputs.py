"""What a model takes is read off its graph, whatever the layers are by which it scales its images.

The rule: constant images are put through everything before the first kernel; the range is the one that arrives
there as small numbers, and it is None if nothing there changes the images.
"""

import keras
import numpy as np
import pytest

from dropzoo import models
from dropzoo.common.pixels import Pixels, nearest_range
from dropzoo.models.blocks.encoders import EncoderInput
from dropzoo.models.graph.inputs import hint_of, input_pixels, pixels_of
from dropzoo.models.graph.networks import network_in
from dropzoo.models.graph.record import load_model, read_record, recorded, remember

kl = keras.layers
apps = keras.applications
MEANS, DEVIATIONS = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def net(*layers, channels=3, size=8, dtype=None):
    x = inputs = keras.Input((size, size, channels), dtype=dtype, name="photo")
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, kl.Dense(2)(kl.GlobalAveragePooling2D()(kl.Conv2D(4, 3, padding="same")(x))))


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.scale, self.conv = kl.Rescaling(1 / 255), kl.Conv2D(2, 3)

    def call(self, x):
        return self.conv(self.scale(x))


def small(name):
    return getattr(apps, name)(include_top=False, weights=None, input_shape=(32, 32, 3))


def cut(name, last):
    whole = small(name)
    return keras.Model(whole.input, whole.get_layer(last).output, name="encoder")


def around(preprocess):
    inputs = keras.Input((32, 32, 3))
    whole = apps.MobileNet(input_tensor=preprocess(inputs), include_top=False, weights=None)
    return keras.Model(inputs, kl.Dense(2)(whole.get_layer("conv_pw_2").output), name="own")


def named(name):
    model = net()
    model.name = name
    return model


def augmented():
    return keras.Sequential([kl.RandomFlip(), kl.RandomRotation(0.1), kl.Rescaling(1 / 255)])


def normalized(mean, deviation):
    return kl.Normalization(mean=mean, variance=np.square(deviation))


CASES = {
    "nothing": (lambda: net(), None),
    "rescaling": (lambda: net(kl.Rescaling(1 / 255)), (0, 255)),
    "rescaling of any size": (lambda: net(kl.Rescaling(1 / 255), size=None), (0, 255)),
    "rescaling to -1": (lambda: net(kl.Rescaling(1 / 127.5, -1)), (0, 255)),
    "rescaling of 0 to 1": (lambda: net(kl.Rescaling(2.0, -1)), (0, 1)),
    "rescaling of -1 to 1": (lambda: net(kl.Rescaling(0.5, 0.5)), (-1, 1)),
    "rescaling to 255": (lambda: net(kl.Rescaling(255.0)), (0, 1)),
    "16 bits": (lambda: net(kl.Rescaling(1 / 65535), channels=1), (0, 65535)),
    "12 bits": (lambda: net(kl.Rescaling(1 / 4095), channels=1), (0, 4095)),
    "after augmentation, nested": (lambda: net(augmented()), (0, 255)),
    "after padding": (lambda: net(kl.ZeroPadding2D(1), kl.Rescaling(1 / 255)), (0, 255)),
    "padding alone": (lambda: net(kl.ZeroPadding2D(1)), None),
    "normalization of bytes": (lambda: net(normalized(MEANS, DEVIATIONS)), (0, 255)),
    "normalization of 0 to 1": (lambda: net(normalized(MEANS / 255, DEVIATIONS / 255)), (0, 1)),
    "normalization of standardised images": (lambda: net(normalized([0.0, 0.1, -0.1], [0.9, 1.1, 1.0])), None),
    "then a normalization": (lambda: net(kl.Rescaling(1 / 127.5, -1), normalized([0.01], [0.3])), (0, 255)),
    "operations": (lambda: net(lambda x: (x - 127.5) / 127.5), (0, 255)),
    "inverted": (lambda: net(lambda x: 1 - x / 255), (0, 255)),
    "not linear": (lambda: net(lambda x: keras.ops.sqrt(x / 255)), (0, 255)),
    "lambda": (lambda: net(kl.Lambda(lambda x: x / 255)), (0, 255)),
    "caffe": (lambda: net(apps.resnet50.preprocess_input), (0, 255)),
    "further channels": (lambda: net(lambda x: kl.Concatenate()([x, 0.3 * keras.ops.ones_like(x)])), None),
    "grey to colour": (
        lambda: net(kl.Rescaling(1 / 255), lambda x: kl.Concatenate()([x] * 3), channels=1),
        (0, 255),
    ),
    "uint8": (lambda: net(kl.Rescaling(1 / 255), dtype="uint8"), (0, 255)),
    "uint16": (lambda: net(kl.Rescaling(1 / 65535), dtype="uint16"), (0, 65535)),
    "int32": (lambda: net(kl.Rescaling(1 / 255), dtype="int32"), (0, 255)),
    "mixed precision": (lambda: net(kl.Rescaling(1 / 255, dtype="mixed_float16")), (0, 255)),
    "subclassed layer": (lambda: net(Own()), (0, 255)),
    "frames": (
        lambda: keras.Sequential([keras.Input((4, 8, 8, 3)), kl.TimeDistributed(net(kl.Rescaling(1 / 255)))]),
        (0, 255),
    ),
    "MobileNetV3": (lambda: apps.MobileNetV3Small((32, 32, 3), weights=None), (0, 255)),
    "MobileNetV2": (lambda: apps.MobileNetV2((32, 32, 3), weights=None), (-1, 1)),
    "MobileNetV2, with its preprocessing": (
        lambda: net(apps.mobilenet_v2.preprocess_input, small("MobileNetV2"), size=32),
        (0, 255),
    ),
    "an encoder of dropzoo": (lambda: net(EncoderInput("resnet")), (0, 1)),
    "MobileNet, by another name": (lambda: net(cut("MobileNet", "conv_pw_2"), size=32), (-1, 1)),
    "MobileNet, around a tensor": (lambda: around(lambda x: x), (-1, 1)),
    "MobileNet, around its preprocessing": (lambda: around(apps.mobilenet.preprocess_input), (0, 255)),
    "MobileNet, around unknown preprocessing": (lambda: around(lambda x: 3 * x + 500), None),
    "another network of that name": (lambda: named("xception"), None),
    "ResNet50V2, nested": (lambda: net(kl.RandomFlip(), small("ResNet50V2"), size=32), (-1, 1)),
}


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(("make", "expected"), CASES.values(), ids=CASES)
def test_the_range_of_the_pixels(make, expected):
    found = pixels_of(make())
    assert (found and found.range) == expected
    if found is not None and expected[1] > 1:
        assert found.bits == (8 if expected[1] == 255 else 16) and found.source.startswith("its ")


NETWORKS = {
    "densenet": ("DenseNet121", "centred"),
    "mobilenet": ("MobileNet", "symmetric"),
    "mobilenet_v2": ("MobileNetV2", "symmetric"),
    "xception": ("Xception", "symmetric"),
    "inception_v3": ("InceptionV3", "symmetric"),
    "inception_resnet_v2": ("InceptionResNetV2", "symmetric"),
    "nasnet": ("NASNetMobile", "symmetric"),
    "resnet_v2": ("ResNet50V2", "symmetric"),
    "resnet": ("ResNet50", "centred"),
    "vgg": ("VGG16", "centred"),
}


@pytest.mark.parametrize(
    "network", [pytest.param(n, marks=[] if n == "vgg" else pytest.mark.slow) for n in NETWORKS]
)
def test_a_network_is_known_by_its_layers_and_not_by_its_name(network):
    name, takes = NETWORKS[network]
    size = 224 if network == "nasnet" else 75
    model = getattr(apps, name)(include_top=False, weights=None, input_shape=(size, size, 3), name="encoder")
    assert network_in(model) == (network, takes)
    assert (f"{network!r} of keras.applications" in hint_of(net(model, size=size))) == (takes == "centred")
    assert not hint_of(named(name.lower()))


@pytest.mark.parametrize(
    ("layer", "order"),
    [
        (lambda: normalized(MEANS, DEVIATIONS), "rgb"),
        (lambda: normalized(MEANS[::-1], DEVIATIONS), "bgr"),
        (lambda: apps.resnet50.preprocess_input, "rgb"),  # it takes RGB, and makes BGR of it
        (lambda: kl.Rescaling(1.0, [-103.939, -116.779, -123.68]), "bgr"),
        (lambda: kl.Rescaling(1 / 255), None),
    ],
)
def test_the_order_of_the_channels(layer, order):
    assert pixels_of(net(layer())).order == order


@pytest.mark.parametrize(("means", "order"), [(MEANS, "rgb"), (MEANS[::-1], "bgr")])
@pytest.mark.parametrize("turned", [False, True])
def test_the_order_of_channels_that_come_first(means, order, turned):
    """The channels may be turned to the end before they are scaled, or not."""
    x = inputs = keras.Input((3, 8, 9))
    x = kl.Permute((2, 3, 1))(x) if turned else x
    offset = -means if turned else -means.reshape(3, 1, 1)
    x = kl.Rescaling(1.0, keras.ops.convert_to_numpy(offset).tolist())(x)
    x = x if turned else kl.Permute((2, 3, 1))(x)
    model = keras.Model(inputs, kl.Dense(2)(kl.Flatten()(kl.Conv2D(2, 3)(x))))
    assert pixels_of(model) == Pixels(0.0, 255.0, 8, 3, order, pixels_of(model).source)


def test_several_inputs():
    image, mask, table = (
        keras.Input((8, 8, 3), name="image"),
        keras.Input((8, 8, 1), name="mask"),
        keras.Input((3,)),
    )
    x = kl.Conv2D(2, 3)(kl.Concatenate()([kl.Rescaling(1 / 255)(image), mask]))
    model = keras.Model([image, mask, table], kl.Dense(2)(kl.Flatten()(x)) + kl.Dense(2)(table))
    found = input_pixels(model)
    assert found.pop("image").range == (0, 255) and set(found.values()) == {None}


def test_a_batch_normalization_that_has_seen_images():
    model = net(kl.BatchNormalization())
    assert pixels_of(model) is None
    model.layers[1].moving_mean.assign([0.1, -0.1, 0.0])  # of standardised images, whose range is not known
    model.layers[1].moving_variance.assign([0.9] * 3)
    assert pixels_of(model) is None
    model.layers[1].moving_mean.assign([100.0, 110.0, 90.0])
    model.layers[1].moving_variance.assign([3000.0] * 3)
    assert pixels_of(model).range == (0, 255)


def test_nothing_is_changed_and_errors_show_nothing():
    def fails(x):
        if not isinstance(x, keras.KerasTensor):
            raise RuntimeError("not at these images")
        return x

    assert pixels_of(net(kl.Lambda(fails, output_shape=lambda s: s))) is None
    model = net(kl.RandomFlip(), kl.Rescaling(1 / 255))
    state = [v.numpy() for v in model.variables]
    names, nodes = [layer.name for layer in model.layers], [len(layer._inbound_nodes) for layer in model.layers]
    pixels_of(model)
    assert all((v.numpy() == old).all() for v, old in zip(model.variables, state, strict=True))
    assert [layer.name for layer in model.layers] == names
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (0, 1, (0, 1)),
        (0, 0.03, (0, 1)),
        (0, 200, (0, 255)),
        (0, 4095, (0, 65535)),
        (-1, 0.9, (-1, 1)),
        (-2.1, 2.6, None),
        (0, 1e6, None),
    ],
)
def test_the_range_of_a_batch(least, most, expected):
    assert nearest_range(least, most) == expected


def test_surgery_keeps_the_record():
    model = net()
    remember(model, Pixels(0.0, 255.0))
    new = models.retrofit(model, {"before:Dense": 0.5})
    assert recorded(new) == recorded(models.strip_dropout(new)) == Pixels(0.0, 255.0)


def test_a_record_goes_into_the_file_and_keras_loads_it(tmp_path):
    """`model.save` writes the recorded range into the file, and `keras.models.load_model` keeps it too."""
    model, pixels, path = net(), Pixels(0.0, 255.0, 8, 3, "rgb", "the training images"), tmp_path / "m.keras"
    assert recorded(model) is None
    remember(model, Pixels(0.0, 1.0))
    remember(model, pixels)
    model.save(path)
    assert recorded(model) == read_record(path) == recorded(load_model(path)) == pixels
    x, loaded = np.ones((1, 8, 8, 3), "float32"), keras.models.load_model(path)
    np.testing.assert_array_equal(loaded(x), model(x))
    assert recorded(loaded) == pixels
    loaded.save(path)
    assert read_record(path) == pixels
    net().save(path)
    assert read_record(path) is None and recorded(load_model(path)) is None


@keras.saving.register_keras_serializable("test_inputs")
class Remembers(keras.Sequential):
    """A model that loads its own assets."""

    def load_assets(self, folder):
        self.folder = folder


class Mixin:
    def load_assets(self, folder):
        self.folder = folder


@keras.saving.register_keras_serializable("test_inputs")
class Mixed(keras.Sequential, Mixin):
    """A model whose mixin, which comes after Keras' class, loads its assets."""


def test_records_of_nested_and_own_models_survive(tmp_path):
    """A nested model keeps its own record, and a class with a `load_assets` of its own still gets it."""
    inner = net()
    remember(inner, Pixels(0.0, 65535.0))
    outer = keras.Sequential([keras.Input((8, 8, 3)), inner])
    outer.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert recorded(loaded) is None and recorded(loaded.layers[0]) == Pixels(0.0, 65535.0)

    for kind in (Remembers, Mixed):
        own = kind([keras.Input((2,)), keras.layers.Dense(1)])
        remember(own, Pixels(0.0, 255.0))
        own.save(tmp_path / "own.keras")
        assert recorded(load_model(tmp_path / "own.keras")) == Pixels(0.0, 255.0)
        assert keras.models.load_model(tmp_path / "own.keras").folder is not None
