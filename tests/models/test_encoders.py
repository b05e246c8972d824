"""The U-Net over networks of keras.applications."""

import keras
import numpy as np
import pytest

from _foreign import same
from dropzoo import models
from dropzoo.models.blocks.encoders import EncoderInput

# One of each family: the skips it has, and the smallest image it takes.
ENCODERS = {
    "ConvNeXtTiny": ((3, 4, 5), 32),
    "DenseNet121": ((2, 3, 4, 5), 32),
    "EfficientNetB0": ((2, 3, 4, 5), 32),
    "EfficientNetV2B0": ((2, 3, 4, 5), 32),
    "InceptionResNetV2": ((2, 3, 4, 5), 75),
    "InceptionV3": ((2, 3, 4, 5), 75),
    "MobileNet": ((2, 3, 4, 5), 32),
    "MobileNetV2": ((2, 3, 4, 5), 32),
    "MobileNetV3Small": ((2, 3, 4, 5), 32),
    "ResNet50": ((2, 3, 4, 5), 32),
    "ResNet50V2": ((2, 3, 4, 5), 32),
    "VGG16": ((1, 2, 3, 4, 5), 32),
    "Xception": ((2, 3, 4, 5), 71),
}
SLOW = tuple(name for name in ENCODERS if name != "EfficientNetB0")
TINY = {"encoder": "MobileNetV2", "filters": 4, "num_classes": 3}


def images(height, width, channels=3, batch=1):
    return np.random.default_rng(0).random((batch, height, width, channels), "float32")


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize("encoder", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in ENCODERS])
def test_every_family(encoder, tmp_path):
    skips, smallest = ENCODERS[encoder]
    options = {"encoder": encoder, "filters": 2, "num_classes": 3, "input_shape": (None, None, 3)}
    keras.utils.set_random_seed(1)
    plain = models.build_model("unet", **options)
    sites = [site.name for site in models.list_sites(plain)]
    assert {s for s in sites if s.startswith("skip")} == {f"skip{n}" for n in skips}
    assert {"bottleneck", "decoder1_up", "decoder5_conv2", "head"} < set(sites)
    keras.utils.set_random_seed(1)
    own = [name for name in sites if not name.startswith(("skip", "decoder", "bottleneck", "head"))]
    model = models.build_model("unet", dropout={"skip*": 0.1, own[len(own) // 2]: 0.2, "head": 0.3}, **options)
    assert [site.name for site in models.list_sites(model)] == sites  # numbered anew in each build
    assert len([s for s in models.list_sites(model) if s.spec]) == len(skips) + 2
    for height, width in ((smallest, smallest + 1), (97, 75)):
        x = images(height, width)
        assert model(x).shape == (1, height, width, 3)
        assert same(model(x), plain(x))
    assert not same(model(x, training=True), model(x, training=False))
    model.save_weights(tmp_path / "w.weights.h5")
    fresh = models.build_model("unet", **options)
    fresh.load_weights(tmp_path / "w.weights.h5")
    assert same(fresh(x), model(x))


@pytest.mark.costly(keep=0)
def test_plans_on_an_encoder():
    placed = {
        plan if isinstance(plan, str) else "paper at another rate": [
            (s.name, s.spec) for s in models.list_sites("unet", dropout=plan, **TINY) if s.spec
        ]
        for plan in ("paper", 0.2, "head")
    }
    assert placed == {
        "paper": [("bottleneck", "dropout:0.5")],
        "paper at another rate": [("bottleneck", "dropout:0.2")],
        "head": [("head", "dropout:0.5")],
    }
    by_class = models.build_model("unet", dropout={"after:DepthwiseConv2D": "spatial_dropout2d:0.1"}, **TINY)
    assert len([s for s in models.list_sites(by_class) if s.spec]) == 17


@pytest.mark.costly(keep=0)
def test_it_learns_and_comes_back(tmp_path):
    model = models.build_model("unet", encoder="VGG16", depth=2, filters=4, num_classes=3, dropout={"skip*": 0.1})
    x = images(16, 16, 1, batch=4)
    y = (x[..., 0] * 3).astype("int32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    losses = model.fit(x, y, epochs=5, batch_size=4, verbose=0).history["loss"]
    assert min(losses[3:]) < losses[0]
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert same(loaded(x), model(x)) and models.list_sites(loaded) == models.list_sites(model)


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize("shape", [(32, 32, 3), (20, 70, 1)])
def test_the_smallest_size_may_be_given(shape):
    """The encoder's last features then have one row; the network is the one for images of any size."""
    fixed = models.build_model("unet", input_shape=shape, **TINY)
    open_sizes = models.build_model("unet", input_shape=(None, None, shape[2]), **TINY)
    open_sizes.set_weights(fixed.get_weights())
    x = images(*shape)
    assert fixed(x).shape == (1, *shape[:2], 3)
    assert same(fixed(x), open_sizes(x))
    assert [s.name for s in models.list_sites(fixed)] == [s.name for s in models.list_sites(open_sizes)]


@pytest.mark.slow
def test_nasnet_of_one_size():
    model = models.build_model(
        "unet", encoder="NASNetMobile", filters=2, input_shape=(75, 97, 3), dropout={"skip*": 0.1}
    )
    assert model(images(75, 97)).shape == (1, 75, 97, 2)
    assert len([s for s in models.list_sites(model) if s.spec]) == 4


@pytest.mark.costly(keep=0)
def test_a_shallower_one_leaves_out_the_rest():
    shallow = models.build_model("unet", depth=3, **TINY)
    assert shallow.count_params() < models.build_model("unet", **TINY).count_params() / 4
    assert shallow(images(30, 17, 1)).shape == (1, 30, 17, 3)


@pytest.mark.parametrize("module", ["resnet50", "mobilenet", "densenet", "efficientnet"])
def test_the_encoders_own_preprocessing(module):
    x = images(4, 5)
    expected = getattr(keras.applications, module).preprocess_input(x * 255.0)
    np.testing.assert_allclose(EncoderInput(module)(x), expected, rtol=1e-5, atol=1e-5)
    grey = images(4, 5, 1)
    np.testing.assert_array_equal(EncoderInput(module)(grey), EncoderInput(module)(np.repeat(grey, 3, -1)))


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "EfficientNetB9"}, "Unknown encoder 'EfficientNetB9'. Did you mean 'EfficientNetB"),
        ({"encoder": "NASNetMobile"}, "takes images of one size only: pass input_shape="),
        ({"encoder": "MobileNetV2", "input_shape": (None, None, 4)}, "3 channels, or with 1"),
        ({"encoder": "MobileNetV2", "depth": 6}, "`depth` must be one of 1, 2, 3, 4, 5. Received: depth=6"),
        ({"encoder": "MobileNetV2", "dropout": {"skip9": 0.1}}, "Unknown site 'skip9'. Did you mean 'skip"),
        ({"encoder_weights": "imagenet"}, "`encoder_weights` needs an `encoder`"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        models.build_model("unet", **options)
