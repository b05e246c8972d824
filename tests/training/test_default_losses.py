"""The task is never guessed from the shape of the output alone.

The rule: what was compiled is taken, as `fit` would train it; what was said (`loss`, `metrics`, `task`) is taken;
a default looks at the targets too, at their type, shape and values, and says what it chose and why. Where they
do not decide, an error names the ways out. Labels are checked for losses whose labels can only be classes: the
targets of a loss of one's own are trained on as in `fit`. Whether the output is logits is known from the model.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from _targets import HEIGHTS, LABELS, MASKS, MULTI_HOT, ONE_HOT, RNG, ROWS, contrastive, dense, flat, inputs_of
from dropzoo.common.keras_versions import setting_of_loss
from dropzoo.training.loop.compiling import Asked, settle
from dropzoo.training.loop.forms import feed_of
from dropzoo.training.loop.ordered import Order
from dropzoo.training.trainer import Trainer


def chosen(model, targets, **said):
    feed = feed_of((inputs_of(model), targets), "train", Order(batch_size=4))
    return settle(Asked(**said), model, feed)


CHOICES = {
    # name: (model, targets, loss, from_logits, metrics)
    "integers": (flat, LABELS, "sparse_categorical_crossentropy", True, "accuracy"),
    "a column of integers": (flat, LABELS[:, None], "sparse_categorical_crossentropy", True, "accuracy"),
    "bytes": (flat, LABELS.astype("uint8"), "sparse_categorical_crossentropy", True, "accuracy"),
    "whole floats": (flat, LABELS.astype(float), "sparse_categorical_crossentropy", True, "accuracy"),
    "integers, softmax": (
        lambda: flat(end="softmax"),
        LABELS,
        "sparse_categorical_crossentropy",
        False,
        "accuracy",
    ),
    "one-hot": (flat, ONE_HOT, "categorical_crossentropy", True, "accuracy"),
    "one-hot integers": (flat, ONE_HOT.astype(int), "categorical_crossentropy", True, "accuracy"),
    "one-hot, softmax": (lambda: flat(end="softmax"), ONE_HOT, "categorical_crossentropy", False, "accuracy"),
    "smoothed, softmax": (
        lambda: flat(end="softmax"),
        0.9 * ONE_HOT + 0.1 / 3,
        "categorical_crossentropy",
        False,
        "accuracy",
    ),
    "one-hot, sigmoid": (lambda: flat(end="sigmoid"), ONE_HOT, "binary_crossentropy", False, "accuracy"),
    "multi-hot": (flat, MULTI_HOT, "binary_crossentropy", True, "accuracy"),
    "multi-hot bools": (flat, MULTI_HOT > 0, "binary_crossentropy", True, "accuracy"),
    "multi-hot, sigmoid": (lambda: flat(end="sigmoid"), MULTI_HOT, "binary_crossentropy", False, "accuracy"),
    "0 and 1": (lambda: flat(1), LABELS % 2, "binary_crossentropy", True, "accuracy"),
    "0.0 and 1.0 in a column": (
        lambda: flat(1),
        (LABELS[:, None] % 2) * 1.0,
        "binary_crossentropy",
        True,
        "accuracy",
    ),
    "bools": (lambda: flat(1), LABELS > 0, "binary_crossentropy", True, "accuracy"),
    "0 and 1, sigmoid": (lambda: flat(1, "sigmoid"), LABELS % 2, "binary_crossentropy", False, "accuracy"),
    "heights": (lambda: flat(1), HEIGHTS, "mean_squared_error", None, "mean_absolute_error"),
    "heights in a column": (lambda: flat(1), HEIGHTS[:, None], "mean_squared_error", None, "mean_absolute_error"),
    "fractions": (lambda: flat(1), HEIGHTS / 300, "mean_squared_error", None, "mean_absolute_error"),
    "vectors of floats": (
        flat,
        RNG.normal(size=(ROWS, 3)),
        "mean_squared_error",
        None,
        "mean_absolute_error",
    ),
    "masks": (dense, MASKS, "dice_cross_entropy", True, "accuracy mean_iou"),
    "masks with a channel": (
        dense,
        MASKS[..., None].astype("uint8"),
        "dice_cross_entropy",
        True,
        "accuracy mean_iou",
    ),
    "masks, softmax": (
        lambda: dense(end="softmax"),
        MASKS,
        "sparse_categorical_crossentropy",
        False,
        "accuracy mean_iou",
    ),
    "one-hot masks": (dense, np.eye(3)[MASKS], "categorical_crossentropy", True, "accuracy mean_iou"),
    "masks of one class": (lambda: dense(1), MASKS % 2, "dice_cross_entropy", True, "accuracy mean_iou"),
    "masks of one class, sigmoid": (
        lambda: dense(1, "sigmoid"),
        MASKS % 2,
        "binary_crossentropy",
        False,
        "accuracy mean_iou",
    ),
    "maps of depths": (
        lambda: dense(1),
        RNG.normal(size=(ROWS, 4, 4)),
        "mean_squared_error",
        None,
        "mean_absolute_error",
    ),
    "a function that hides the softmax": (
        lambda: flat(
            end=layers.Lambda(lambda z: ops.exp(z) / ops.sum(ops.exp(z), -1, keepdims=True), output_shape=(3,))
        ),
        LABELS,
        "sparse_categorical_crossentropy",
        False,
        "accuracy",
    ),
}


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("name", CHOICES)
def test_a_default_fits_the_targets_and_the_end_of_the_model(name):
    build, targets, loss, from_logits, metrics = CHOICES[name]
    model = build()
    found = chosen(model, targets)
    assert found.loss.name == loss and " ".join(metric.name for metric in found.metrics) == metrics
    if from_logits is not None:
        assert setting_of_loss(found.loss, "from_logits") in (from_logits, None if from_logits else False)
    assert f"the loss is {loss}" in found.words and "because" in found.words
    model.compile("sgd", found.loss, metrics=found.metrics, run_eagerly=True)
    values = model.evaluate(inputs_of(model), targets, verbose=0)
    assert np.isfinite(values).all()


def test_the_metrics_of_a_default_read_logits_and_probabilities_alike():
    """The same model with and without its activation, on the same data: the same loss, accuracy and mean IoU."""
    for build, end, targets in [
        (flat, "softmax", LABELS),
        (flat, "softmax", ONE_HOT),
        (flat, "sigmoid", MULTI_HOT),
        (dense, "softmax", np.eye(3)[MASKS]),
        (lambda end=None: flat(1, end), "sigmoid", LABELS % 2),
    ]:
        logits, ended = build(), build(end=end)
        ended.set_weights(logits.get_weights())
        x, values = inputs_of(logits), []
        for model in (logits, ended):
            found = chosen(model, targets)
            model.compile("sgd", found.loss, metrics=found.metrics, run_eagerly=True)
            values.append(model.evaluate(x, targets, verbose=0))
        np.testing.assert_allclose(*values, rtol=1e-4)


UNDECIDED = {
    "identities": (flat, LABELS * 300, "labels up to 600 but the model has 3 outputs"),
    "a void label of -1": (dense, np.where(MASKS == 2, -1, MASKS), "labels down to -1.*ignore_class"),
    "a void label of 255": (dense, np.where(MASKS == 2, 255, MASKS), "labels up to 255.*ignore_class"),
    "identities as floats": (flat, LABELS * 300.0, "some are outside the classes, 0 to 2.*ignore_class"),
    "fractions for classes": (flat, HEIGHTS, "they are not class labels; .* one output for each target, not 3"),
    "ages for one output": (
        lambda: flat(1),
        LABELS * 30,
        "they may be values of a regression; as class labels, they would need more than one output",
    ),
    "heights for a sigmoid": (lambda: flat(1, "sigmoid"), HEIGHTS, "goes through a sigmoid"),
    "only 0.0": (lambda: flat(1), np.zeros(ROWS), "do not show whether they are class labels or values"),
    "shares for logits": (flat, RNG.dirichlet(np.ones(3), ROWS), "they may be class labels or values"),
    "counts": (flat, RNG.integers(0, 9, (ROWS, 3)), "they may be class labels or values"),
    "classes for sigmoids": (lambda: flat(3, "sigmoid"), LABELS, "goes through a sigmoid"),
    "labels for a softmax": (lambda: flat(3, "softmax"), MULTI_HOT, "the targets do not sum to 1"),
    "another shape": (flat, RNG.random((ROWS, 7)), r"does not fit the output of the shape \(batch, 3\)"),
    "text": (flat, np.array(["cat", "dog", "cow"] * 4), "must be numbers.*StringLookup"),
}


@pytest.mark.parametrize("name", UNDECIDED)
def test_targets_that_do_not_decide_are_an_error_with_the_ways_out(name):
    build, targets, message = UNDECIDED[name]
    with pytest.raises(ValueError, match=message) as error:
        model = build()
        found = chosen(model, targets)
        trainer = Trainer(model, "sgd", found.loss, found.metrics)  # decided by type: the graph checks the values
        trainer.fit((inputs_of(model), targets), verbose=0)
    assert "`loss`" in str(error.value)


def test_an_end_that_nothing_shows_is_an_error():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.last = layers.Dense(
                1, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(0.4)
            )

        def call(self, x):
            return self.last(x)

    model = Own()
    with pytest.raises(ValueError, match=r"its values are in \[0, 1\].*Pass a `loss` with `from_logits=True`"):
        Trainer(model).fit((np.ones((4, 3), "float32"), np.array([0, 1, 0, 1])), verbose=0)


@pytest.mark.parametrize(
    "task, outputs, targets, loss",
    [
        ("regression", 1, LABELS * 30, "mean_squared_error"),
        ("regression", 1, np.zeros(ROWS), "mean_squared_error"),
        ("binary", 1, np.zeros(ROWS), "binary_crossentropy"),
        ("multi_label", 3, ONE_HOT, "binary_crossentropy"),
        ("multi_class", 3, RNG.dirichlet(np.ones(3), ROWS), "categorical_crossentropy"),
        ("classification", 3, LABELS, "sparse_categorical_crossentropy"),
    ],
)
def test_what_is_said_decides(task, outputs, targets, loss):
    found = chosen(flat(outputs), targets, task=task)
    assert found.loss.name == loss and f"task={task!r}" in found.words


def test_what_is_said_must_fit():
    for task, outputs, message in [
        ("binary", 3, "task='binary' needs one output"),
        ("multi_class", 1, "task='multi_class' needs an output for each class"),
        ("regression", 3, "their shape does not fit"),
        ("regresion", 1, "`task` must be one of .*'regression'"),
    ]:
        with pytest.raises(ValueError, match=message):
            chosen(flat(outputs), LABELS, task=task)
    with pytest.raises(ValueError, match="Pass `loss` or `task`, not both"):
        Trainer(flat(), loss="mse", task="regression")


def test_later_batches_that_contradict_a_default_are_an_error():
    """The first four batches look like something else than the fifth."""

    def fit(outputs, targets):
        x = np.ones((20, 4), "float32")
        data = tf.data.Dataset.from_tensor_slices((x, targets.astype("float32"))).batch(4)
        Trainer(flat(outputs), "sgd").fit(data, verbose=0)

    heights = np.concatenate([np.arange(16) % 2, [62.5, 80.0, 71.3, 90.0]])
    with pytest.raises(
        ValueError, match="has 4 targets in a batch that are not a class from 0 to 1; pass `task` or `loss`"
    ):
        fit(1, heights)
    several = np.concatenate([np.eye(3)[np.arange(16) % 3], np.ones((4, 3))])
    with pytest.raises(ValueError, match="has 4 targets in a batch that are not one-hot"):
        fit(3, several)
    numbers = np.concatenate([np.tile([[1, 1, 0]], (16, 1)), np.full((4, 3), 0.5)])
    with pytest.raises(ValueError, match="has 12 targets in a batch that are neither 0 nor 1"):
        fit(3, numbers)


def test_a_choice_is_printed_once_and_not_with_verbose_0(capsys):
    model = flat(1)
    data = (inputs_of(model), HEIGHTS)
    trainer = Trainer(model)
    trainer.fit(data, verbose=0)
    assert capsys.readouterr().out == ""
    trainer.fit(data, verbose=2)
    trainer.fit(data, epochs=2, verbose=2)
    said = capsys.readouterr().out
    assert said.count("Trainer: the loss is mean_squared_error, because the targets are numbers, from 1") == 1


@pytest.mark.parametrize(
    "end, loss, warned",
    [
        (None, "sparse_categorical_crossentropy", "from_logits=False, but the output gives logits"),
        ("softmax", keras.losses.SparseCategoricalCrossentropy(from_logits=True), "goes through a softmax"),
        ("softmax", "sparse_categorical_crossentropy", ""),
        (None, keras.losses.SparseCategoricalCrossentropy(from_logits=True), ""),
        ("sigmoid", keras.losses.BinaryCrossentropy(from_logits=True), "goes through a sigmoid"),
        (None, "binary_crossentropy", "from_logits=False, but the output gives logits"),
        (None, keras.losses.CategoricalFocalCrossentropy(), "from_logits=False, but the output gives logits"),
        (None, "mse", ""),
        ("softmax", contrastive, ""),
    ],
)
def test_a_loss_of_logits_on_probabilities_is_a_warning_and_the_other_way_round(end, loss, warned, recwarn):
    Trainer(flat(3, end), loss=loss)
    said = [str(each.message) for each in recwarn]
    assert any(warned in text for text in said) if warned else not said


@pytest.mark.parametrize(
    "loss, outputs, metrics",
    [
        ("mse", 1, ["mean_absolute_error"]),
        ("categorical_crossentropy", 3, ["accuracy"]),
        (keras.losses.BinaryCrossentropy(from_logits=True), 3, ["accuracy"]),
        (contrastive, 8, []),
        ("poisson", 1, []),
    ],
)
@pytest.mark.filterwarnings("ignore:The loss has from_logits")
def test_default_metrics_follow_the_loss(loss, outputs, metrics):
    assert [metric.name for metric in Trainer(flat(outputs), loss=loss)._settled.metrics] == metrics
