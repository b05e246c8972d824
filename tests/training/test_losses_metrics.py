"""Losses and metrics against values worked out by hand, by NumPy and by scikit-learn."""

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score

from dropzoo.training.losses import Dice, DiceCrossEntropy, SmoothedCrossEntropy, default_loss
from dropzoo.training.metrics import MeanIoU, default_metrics


def _random(classes, shape=(3, 5, 7), seed=0):
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, max(classes, 2), shape).astype("int32")
    logits = rng.normal(0, 2, (*shape, classes)).astype("float32")
    return masks, logits


def _softmax(logits):
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def _dice(masks, logits, smooth=1.0, weights=None, ignore=None):
    """The definition, image by image and class by class."""
    losses = []
    for index, (mask, logit) in enumerate(zip(masks, logits, strict=True)):
        weight = np.ones(mask.shape) if weights is None else weights[index]
        weight = weight * (mask != ignore)
        if logit.shape[-1] == 1:
            cases = [(1 / (1 + np.exp(-logit[..., 0])), mask == 1)]
        else:
            p = _softmax(logit)
            cases = [(p[..., c], mask == c) for c in range(p.shape[-1]) if (weight * (mask == c)).any()]
        scores = [(2 * (weight * p * g).sum() + smooth) / ((weight * (p + g)).sum() + smooth) for p, g in cases]
        losses.append(1 - np.mean(scores))
    return np.mean(losses)


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_dice_is_its_definition(classes):
    masks, logits = _random(classes)
    masks[0] = 0  # an image without foreground
    assert float(Dice()(masks, logits)) == pytest.approx(_dice(masks, logits), abs=1e-6)
    assert float(Dice()(masks[..., None], logits)) == pytest.approx(_dice(masks, logits), abs=1e-6)
    weights = np.random.default_rng(1).random(masks.shape).astype("float32")
    weighted = _dice(masks, logits, weights=weights)
    assert float(Dice()(masks, logits, weights)) == pytest.approx(weighted, abs=1e-6)
    assert float(Dice(smooth=0.1)(masks, logits)) == pytest.approx(_dice(masks, logits, 0.1), abs=1e-6)


def test_dice_by_hand():
    mask = np.array([[[1, 0]]])  # two pixels, p = 0.5 each
    logits = np.zeros((1, 1, 2, 1))
    assert float(Dice(smooth=1e-7)(mask, logits)) == pytest.approx(1 - 2 * 0.5 / (1 + 1))
    assert float(Dice(smooth=1.0)(mask, logits)) == pytest.approx(1 - 2 / 3)


@pytest.mark.parametrize("loss", [Dice(ignore_class=255), DiceCrossEntropy(ignore_class=255)])
@pytest.mark.parametrize("classes", [1, 3])
def test_ignored_pixels_are_as_if_not_there(loss, classes):
    masks, logits = _random(classes)
    masks[:, :, 4:] = 255
    without = type(loss)()(masks[:, :, :4], logits[:, :, :4])
    assert float(loss(masks, logits)) == pytest.approx(float(without), abs=1e-6)
    assert float(loss(np.full_like(masks, 255), logits)) == 0.0
    if isinstance(loss, DiceCrossEntropy):
        loss = DiceCrossEntropy(dice_weight=0.0, ignore_class=255)
        if classes > 1:
            keras_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
            assert float(loss(masks, logits)) == pytest.approx(float(keras_loss(masks, logits)), rel=1e-5)


def test_dice_cross_entropy_is_the_weighted_sum():
    for classes, entropy in (
        (1, keras.losses.BinaryCrossentropy(from_logits=True)),
        (4, keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
    ):
        masks, logits = _random(classes)
        expected = 0.3 * _dice(masks, logits) + 0.7 * float(entropy(masks, logits))
        assert float(DiceCrossEntropy(dice_weight=0.3)(masks, logits)) == pytest.approx(expected, rel=1e-5)


def test_weights_a_pixel_and_an_image():
    masks, logits = _random(4)
    pixels = np.random.default_rng(2).random(masks.shape).astype("float32")
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ours = DiceCrossEntropy(dice_weight=0.0)
    for weights in (pixels, pixels[..., None]):
        assert float(ours(masks, logits, weights)) == pytest.approx(
            float(entropy(masks, logits, pixels)), rel=1e-5
        )
    images = np.array([2.0, 0.0, 1.0], "float32")
    each = Dice(reduction=None)(masks, logits)
    assert each.shape == (3,)
    for shape in ((3,), (3, 1), (3, 1, 1), (3, 1, 1, 1)):
        weighed = float(Dice()(masks, logits, images.reshape(shape)))
        assert weighed == pytest.approx(float(np.mean(images * each)), rel=1e-5)


def test_perfect_and_worst():
    masks, _ = _random(4)
    sure = 60.0 * np.eye(4, dtype="float32")[masks] - 30.0
    assert float(DiceCrossEntropy()(masks, sure)) < 1e-6
    assert float(Dice()(masks, -sure)) > 0.6
    huge = keras.ops.convert_to_tensor(np.full((1, 2, 2, 3), 6e4), "float16")
    assert np.isfinite(float(DiceCrossEntropy()(np.zeros((1, 2, 2)), huge)))


def test_bfloat16_logits_lose_nothing_but_their_own_rounding():
    masks, logits = _random(4, (2, 64, 64))
    rounded = keras.ops.cast(logits, "bfloat16")
    in_float32 = keras.ops.cast(rounded, "float32")
    for loss in (Dice(), DiceCrossEntropy()):
        assert float(loss(masks, rounded)) == float(loss(masks, in_float32))
    metric = MeanIoU(4)
    metric.update_state(masks, rounded)
    first = float(metric.result())
    metric.reset_state()
    metric.update_state(masks, in_float32)
    assert first == float(metric.result())


def test_bad_arguments():
    for smooth in (0, -1):
        with pytest.raises(ValueError, match="`smooth` must be a positive number"):
            Dice(smooth=smooth)
    for weight in (-0.1, 1.1):
        with pytest.raises(ValueError, match="`dice_weight` must be in"):
            DiceCrossEntropy(dice_weight=weight)
    with pytest.raises(ValueError, match="one integer label for each pixel"):
        Dice()(np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4, 3)))
    with pytest.raises(ValueError, match="`num_classes` must be a positive int"):
        MeanIoU(0)
    for function in (default_loss, default_metrics):
        with pytest.raises(ValueError, match="`task` must be"):
            function("regression", 1)


@pytest.mark.parametrize(
    "thing",
    [
        Dice(smooth=0.5, ignore_class=255, reduction="sum"),
        DiceCrossEntropy(dice_weight=0.25, ignore_class=3),
        MeanIoU(1, ignore_class=255),
    ],
)
def test_config_round_trip(thing):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(thing))
    assert type(again) is type(thing)
    assert again.get_config() == thing.get_config()


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_mean_iou_is_scikit_learns(classes):
    metric = MeanIoU(classes)
    batches = [_random(classes, seed=seed) for seed in range(3)]
    for masks, logits in batches:
        metric.update_state(masks, logits)
    truth = np.concatenate([masks.ravel() for masks, _ in batches])
    logits = np.concatenate([logits.reshape(-1, classes) for _, logits in batches])
    predicted = logits[:, 0] > 0 if classes == 1 else logits.argmax(-1)
    expected = jaccard_score(truth, predicted.astype(int), average="macro")
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


def test_mean_iou_ignores_a_class_and_takes_weights():
    masks, logits = _random(3)
    masks[:, :, 4:] = 255
    metric = MeanIoU(3, ignore_class=255)
    metric.update_state(masks, logits)
    expected = jaccard_score(masks[:, :, :4].ravel(), logits[:, :, :4].argmax(-1).ravel(), average="macro")
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)
    metric.reset_state()
    weights = np.array([0.5, 0.0, 2.0], "float32")  # one an image
    metric.update_state(masks, logits, weights)
    pixels = np.broadcast_to(weights[:, None, None], masks.shape)[:, :, :4].ravel()
    expected = jaccard_score(
        masks[:, :, :4].ravel(), logits[:, :, :4].argmax(-1).ravel(), average="macro", sample_weight=pixels
    )
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


def test_counts_go_on_beyond_what_float32_holds():
    labels, logits = _random(3, (1, 1, 1))
    overlap = MeanIoU(3)
    overlap.total_cm.assign(np.full((3, 3), 2.0**33))
    overlap.update_state(labels, logits)
    assert float(np.sum(overlap.total_cm)) == 9 * 2.0**33 + 1


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("classes", [1, 3])
def test_defaults(task, classes):
    labels, logits = _random(classes, (12,) if task == "classification" else (3, 4, 5))
    assert np.isfinite(float(default_loss(task, classes)(labels, logits)))
    metrics = {metric.name: metric for metric in default_metrics(task, classes)}
    assert list(metrics) == ["accuracy", "mean_iou"][: 1 if task == "classification" else 2]
    for metric in metrics.values():
        metric.update_state(labels, logits)
    predicted = logits[..., 0] > 0 if classes == 1 else logits.argmax(-1)
    expected = accuracy_score(labels.ravel(), predicted.astype(int).ravel())
    assert float(metrics["accuracy"].result()) == pytest.approx(expected)


def test_defaults_by_hand():
    labels, logits = np.array([1, 0]), np.array([[0.0], [0.0]])
    assert float(default_loss("classification", 1)(labels, logits)) == pytest.approx(np.log(2))
    assert float(default_loss("classification", 2)(labels, np.zeros((2, 2)))) == pytest.approx(np.log(2))
    assert isinstance(default_loss("segmentation", 2), DiceCrossEntropy)
    accuracy = default_metrics("classification", 1)[0]
    accuracy.update_state(np.array([1, 1, 0]), np.array([[0.3], [-0.3], [-2.0]]))  # 0.3 is a yes: a logit
    assert float(accuracy.result()) == pytest.approx(2 / 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_that_of_keras_on_one_hot_labels(smoothing):
    random = np.random.default_rng(3)
    logits, labels = random.normal(size=(6, 4, 5)).astype("float32"), random.integers(0, 5, (6, 4))
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    expected = float(theirs(np.eye(5, dtype="float32")[labels], logits))
    assert float(SmoothedCrossEntropy(smoothing)(labels, logits)) == pytest.approx(expected, rel=1e-5)
    dice = DiceCrossEntropy(dice_weight=0.0, label_smoothing=smoothing)
    assert float(dice(labels, logits)) == pytest.approx(expected, rel=1e-5)
    one = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)
    expected = float(one((labels > 2)[..., None], logits[..., :1]))
    assert float(dice(labels > 2, logits[..., :1])) == pytest.approx(expected, rel=1e-5)
    for loss in (dice, SmoothedCrossEntropy(smoothing)):
        assert type(loss).from_config(loss.get_config()).label_smoothing == smoothing


@pytest.mark.parametrize("smoothing", [1.0, -0.1, "much"])
def test_label_smoothing_is_a_share(smoothing):
    for task in ("classification", "segmentation"):
        with pytest.raises(ValueError, match="`label_smoothing` must be a number in"):
            default_loss(task, 3, smoothing)
