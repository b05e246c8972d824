"""Surgery on models that are not ours; the table is in _foreign.py."""

import keras
import numpy as np
import pytest

from _foreign import (
    FOREIGN,
    dropouts,
    functional,
    inputs_for,
    residual,
    same,
    shake,
    standing,
    with_dropout,
)
from dropzoo import layers, models
from dropzoo.common.keras_internals import flatten_layers
from dropzoo.models.surgery import ordered as _ordered

K = keras.layers
CASES = [
    pytest.param(name, plan, sites, id=f"{name}-{i}")
    for name, foreign in FOREIGN.items()
    for i, (plan, sites) in enumerate(foreign.plans)
]


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(("name", "plan", "sites"), CASES)
def test_retrofit(name, plan, sites, tmp_path):
    model = shake(FOREIGN[name].make())
    before = model.get_config() if name != "custom" else None
    x = inputs_for(model)
    expected = model(x, training=False)
    weights = model.get_weights()
    new = models.retrofit(model, plan)

    # where
    assert tuple(standing(new)) == sites
    assert type(new) in (type(model), _ordered.Functional)
    # inference and weights to the bit
    assert same(new(x, training=False), expected)
    assert same(new.get_weights(), weights)
    assert [v.path.split("/")[-1] for v in new.weights] == [v.path.split("/")[-1] for v in model.weights]
    assert [v.trainable for v in new.weights] == [v.trainable for v in model.weights]
    kept = {layer.name: layer.dtype_policy for layer in flatten_layers(model)}
    assert all(x.dtype_policy == kept[x.name] for x in flatten_layers(new) if x.name in kept)
    # nothing is shared, and the original is what it was
    mine = {id(v) for v in model.variables}
    assert not mine & {id(v) for v in new.variables}
    assert before is None or model.get_config() == before
    # files: weights both ways, the model itself
    new.save_weights(tmp_path / "new.weights.h5")
    model.save_weights(tmp_path / "old.weights.h5")
    shake(new).load_weights(tmp_path / "old.weights.h5")
    assert same(new(x, training=False), expected)
    fresh = FOREIGN[name].make()
    fresh.load_weights(tmp_path / "new.weights.h5")
    assert same(fresh(x, training=False), expected)
    new.save(tmp_path / "new.keras")
    loaded = keras.saving.load_model(tmp_path / "new.keras", safe_mode=FOREIGN[name].plain_files)
    assert same(loaded(x, training=False), expected)
    assert tuple(standing(loaded)) == sites
    # it drops
    if sites:
        assert not same(new(x, training=True), new(x, training=False))
        new.set_weights(weights)  # BatchNorm's have moved
    # and out again
    stripped = models.strip_dropout(new)
    assert dropouts(stripped) == []
    assert not any(isinstance(layer, K.Identity) for layer in flatten_layers(stripped))
    assert same(stripped(x, training=False), expected)
    assert same(stripped(x, training=True), models.strip_dropout(model)(x, training=True))
    again = models.retrofit(stripped, {})
    assert [layer.name for layer in flatten_layers(again)] == [layer.name for layer in flatten_layers(stripped)]


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "loss_scale"])
def test_state_of_training_is_carried(optimizer):
    """A copy trains on as the original does, also when its layers come in another order."""
    made = {
        "adam": lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5)),
        "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9, use_ema=True),
        "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
    }
    model = residual()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    metrics = [keras.metrics.SparseCategoricalAccuracy(name="acc")]
    model.compile(made[optimizer](), loss, metrics=metrics, jit_compile=False)
    x, y = inputs_for(model, 16), np.arange(16) % 3
    model.fit(x, y, epochs=2, batch_size=8, verbose=0)
    new = models.retrofit(model, {"left1": 0.2})
    assert new.compiled and new.optimizer is not model.optimizer and new.loss is model.loss
    by_name = {v.path: np.asarray(v) for v in new.optimizer.variables}
    assert by_name and int(new.optimizer.iterations) == 4
    for old, copied in zip(model.optimizer.variables, new.optimizer.variables, strict=True):
        assert old is not copied and np.array_equal(old, copied)
    for site in dropouts(new):
        site.rate = 0.0
    history = [m.fit(x, y, epochs=2, batch_size=8, verbose=0, shuffle=False).history for m in (model, new)]
    np.testing.assert_allclose(history[0]["loss"], history[1]["loss"], rtol=1e-5)
    np.testing.assert_allclose(history[0]["acc"], history[1]["acc"])
    for a, b in zip(model.get_weights(), new.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_order_of_parallel_branches_is_kept():
    """Where Keras would exchange branches in the files, the copy has its order given; else it is plain."""
    model = residual()
    assert type(models.retrofit(model, {"after:Add": 0.1})) is type(model)
    new = models.retrofit(model, {"left1": 0.1, "right2": 0.1})
    plain = keras.Model(new.inputs, new.outputs)
    names = [layer.name for layer in model.layers]
    assert [layer.name for layer in plain.layers if layer.name in names] != names  # or the test is no test
    assert [layer.name for layer in new.layers if layer.name in names] == names
    assert [layer.name for layer in new.layers][1:3] == ["left1", "left1_dropout"]


def test_shared_weights():
    model = functional()
    new = models.retrofit(model, {"after:Conv2D": 0.5}, share_weights=True)
    assert {id(v) for v in model.weights} == {id(v) for v in new.weights}
    new.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    before = model.get_weights()[0]
    new.fit(inputs_for(model), np.array([0, 1]), verbose=0)
    assert not np.array_equal(before, model.get_weights()[0])
    mixed = with_dropout()
    copy = models.retrofit(mixed, {}, share_weights=True)
    dropouts(copy)[0].rate = 0.9  # a rate is one's own
    assert dropouts(mixed)[0].rate == 0.2
    with pytest.raises(ValueError, match="splits a layer"):
        models.retrofit(model, {"before_activation:conv1": 0.1}, share_weights=True)


# One of each family; those with another constructor or a smallest size are given it.
APPLICATIONS = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}


FAST = ("EfficientNetB0", "VGG16")  # branches that join are among ours


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in FAST)) for n in APPLICATIONS]
)
def test_keras_applications(name, tmp_path):
    size = APPLICATIONS[name]
    options = {"weights": None, "include_top": False, "pooling": "avg", "input_shape": (size, size, 3)}
    backbone = getattr(keras.applications, name)(**options)
    model = keras.Sequential([keras.Input((size, size, 3)), backbone, K.Dropout(0.5), K.Dense(3, name="logits")])
    new = models.retrofit(model, {"after:Conv2D": "spatial_dropout2d:0.1", "before:logits": 0.3})
    convs = sum(type(layer) is K.Conv2D for layer in flatten_layers(model))
    specs = [s.spec for s in models.list_sites(new) if s.spec]
    assert specs.count("spatial_dropout2d:0.1") == convs and specs[-1] == "dropout:0.3"
    x = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    expected = model(x, training=False)
    assert same(new.get_weights(), model.get_weights())
    assert same(new(x, training=False), expected)
    new.save_weights(tmp_path / "new.weights.h5")
    model.set_weights([w * 0 for w in model.get_weights()])
    model.load_weights(tmp_path / "new.weights.h5")
    assert same(model(x, training=False), expected)


def test_kerashub_backbone():
    hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed")
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 128],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(16, 16, 3),
    )
    new = models.retrofit(backbone, {"after:Conv2D": 0.1})
    assert len(dropouts(new)) > 3
    x = np.random.default_rng(0).random((2, 16, 16, 3), "float32")
    assert same(new(x), backbone(x))


@pytest.mark.parametrize("spec", ["shake_drop:0.5", "dropout:0.5,scaling=standard"])
def test_dropout_that_acts_in_inference_needs_shared_weights(spec):
    """Such a layer changes the outputs, which the copy must not do unless it is asked to."""
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(3, name="dense")(inputs)
    model = keras.Model(inputs, keras.layers.Rescaling(1.0)(dense))
    x = np.ones((2, 4), np.float32)
    with pytest.raises(
        ValueError, match=f"at 'dense', {spec}, changes its inputs in inference.*share_weights=True"
    ):
        models.retrofit(model, {"dense": spec})
    new = models.retrofit(model, {"dense": spec}, share_weights=True)
    np.testing.assert_allclose(new(x), 0.5 * model(x), rtol=1e-6)
    with pytest.raises(
        ValueError, match="at 'dense_dropout'.*changes its inputs in inference.*share_weights=True"
    ):
        models.strip_dropout(new)
    np.testing.assert_array_equal(models.strip_dropout(new, share_weights=True)(x), model(x))
    models.retrofit(model, {"dense": spec.replace("0.5", "0.0")})  # it drops nothing
    np.testing.assert_array_equal(models.retrofit(new, {"dense": spec})(x), new(x))  # the same again


def test_a_layer_of_ones_own_that_reads_the_shape_of_its_inputs():
    class Reads(layers.BaseDropout):
        def drop(self, inputs, rate, draw):
            return inputs

        def infer(self, inputs):
            return inputs * inputs.shape[2]

    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, keras.layers.Rescaling(1.0)(keras.layers.Dense(3, name="dense")(inputs)))
    with pytest.raises(ValueError, match="The copy does not give the same outputs"):
        models.retrofit(model, {"dense": Reads(0.5)})
