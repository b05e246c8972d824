"""Deep supervision: where the losses are, what they weigh, and that nothing but the model itself is trained."""

import keras
import numpy as np
import pytest

from dropzoo import models, training
from dropzoo.models.graph.record import recorded
from dropzoo.training.trainer import Trainer

TINY = {"depth": 2, "filters": 2}
SITES = {
    "unet": ("decoder1_conv2",),
    "res_unet": ("decoder1_block",),
    "unet_plus_plus": ("node1_1_conv2",),
}


def build(name="unet", **options):
    keras.utils.set_random_seed(0)
    return models.build_model(name, input_shape=(None, None, 1), num_classes=2, **{**TINY, **options})


def data(side=10):
    images = np.random.default_rng(0).random((4, side, side, 1), "float32")
    return images, (images[..., 0] > 0.5).astype("int32")


@pytest.mark.parametrize("name", SITES)
def test_the_last_site_of_each_stage_but_the_last_is_supervised(name):
    model = build(name)
    deep = training.DeepSupervision(model)
    assert deep.sites == SITES[name]
    assert sum(deep.weights_of_losses) == pytest.approx(1)
    images, _ = data()
    answers = deep(images, training=True)
    assert [tuple(answer.shape) for answer in answers] == [(4, 10, 10, 2)] * 2
    np.testing.assert_array_equal(deep(images), model(images))
    assert {id(v) for v in model.variables} < {id(v) for v in deep.variables}


def test_the_loss_is_the_weighted_sum_and_metrics_are_those_of_full_size():
    model = build(weight_decay=0.01, dropout={"decoder1_conv2": 0.5})
    deep, loss = training.DeepSupervision(model), training.DiceCrossEntropy()
    images, masks = data()
    weights = np.ones(masks.shape, "float32")
    weights[:, :3] = 0
    deep.compile("sgd", loss, metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")])
    answers = deep(images, training=True)
    total = deep.compute_loss(images, masks, answers, weights)
    parts = [float(loss(masks, answer, weights)) for answer in answers]
    expected = np.dot(deep.weights_of_losses, parts) + sum(map(float, model.losses))
    assert float(total) == pytest.approx(expected, rel=1e-5)
    found = deep.compute_metrics(images, masks, answers)
    right = (np.argmax(answers[0], -1) == masks).mean()
    assert float(found["accuracy"]) == pytest.approx(right, abs=1e-6)


@pytest.mark.costly(keep=0)
def test_it_trains_the_model_with_the_trainer_and_its_schedules(tmp_path):
    model = build(dropout={"bottleneck*": 0.1})
    deep = training.DeepSupervision(model)
    before = [weight.numpy() for weight in model.trainable_weights]
    rates = training.RateSchedule({"bottleneck*": "linear:0.1,0.3"})
    images, masks = data()
    history = Trainer(deep, keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5)).fit(
        (images, masks), (images, masks), epochs=2, class_weight={1: 2.0}, callbacks=[rates], verbose=0
    )
    assert {"mean_iou", "val_mean_iou", "rate/bottleneck*"} <= set(history.history)
    assert all((old != new).any() for old, new in zip(before, model.trainable_weights, strict=True))
    assert recorded(model) == recorded(deep) and recorded(model) is not None
    assert model.get_layer("bottleneck_conv1_dropout").rate > 0.1
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images), deep(images), atol=1e-6)


def test_chosen_sites():
    deep = training.DeepSupervision(build(), ["bottleneck_conv2", "decoder2_conv1"])
    assert deep.weights_of_losses == pytest.approx([1 / 2.25, 0.25 / 2.25, 1 / 2.25])


@pytest.mark.parametrize("side, depth, ratios", [(28, 4, [8, 4, 2]), (300, 4, [8, 4, 2]), (None, 3, [4, 2])])
def test_maps_are_resized_as_the_padded_image(side, depth, ratios):
    model = models.build_model("unet", input_shape=(side, side, 1), num_classes=2, depth=depth, filters=2)
    deep = training.DeepSupervision(model)
    found = [deep._with_heads.get_layer(f"{site}_supervised_resize").size for site in deep.sites]
    assert found == [(ratio, ratio) for ratio in ratios]


@pytest.mark.costly(keep=0)
def test_callbacks_save_the_model_that_is_trained(tmp_path):
    deep, (images, masks) = training.DeepSupervision(build()), data()
    kept = keras.callbacks.ModelCheckpoint(str(tmp_path / "model.keras"), save_best_only=False)
    deep.compile("sgd", training.DiceCrossEntropy(), jit_compile=False)
    deep.fit(images, masks, callbacks=[kept], verbose=0)
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(again(images), deep(images), atol=1e-6)


def test_training_without_masks_is_refused():
    with pytest.raises(ValueError, match="target"):
        Trainer(training.DeepSupervision(build())).fit(data()[0], verbose=0)


def ending(model, activation):
    return keras.Model(model.input, keras.layers.Activation(activation)(model.output))


class OwnStep(keras.Model):
    def train_step(self, data):
        return {}


def own_step():
    model = build()
    return OwnStep(model.input, model.output)


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: training.DeepSupervision(build(), ["decoder1_conv3"]), "Did you mean 'decoder1_conv"),
        (lambda: training.DeepSupervision(build(depth=1)), "not have several stages.*, head. Did you"),
        (lambda: training.DeepSupervision(models.build_model("lenet5")), "one mask of logits"),
        (lambda: training.DeepSupervision(ending(build(), "softmax"), ["decoder1_conv1"]), "ends in a softmax"),
        (lambda: training.DeepSupervision(own_step()), "has its own"),
        (
            lambda: Trainer(training.DeepSupervision(build()), r_drop=1.0),
            "`r_drop` needs a model with a single output",
        ),
    ],
)
def test_what_cannot_be_supervised(make, match):
    with pytest.raises(ValueError, match=match):
        make()
