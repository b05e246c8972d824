"""Checks of labels in the graph, for losses that take only certain labels."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from dropzoo.common.words import count_of
from dropzoo.training.loop.batches import Batch

REFUSED = "Refused:"  # a failed assertion in the graph begins with this word
_MORE = (
    "To leave a label out, pass it as `ignore_class` to a loss such as training.DiceCrossEntropy; for values of a "
    "regression, pass a `loss` such as loss='mse'"
)
_WAYS = "pass `task` or `loss` to say what they are"


class LabelCheck(NamedTuple):
    """The targets that one output accepts.

    Attributes:
        classes: Int. The size of the last axis of the output; 1 means two classes.
        form: `"labels"` for numbers of classes, `"one_hot"`, or `"zero_or_one"`.
        ignored: Int or None. A label that does not count.
    """

    classes: int
    form: Literal["labels", "one_hot", "zero_or_one"] = "labels"
    ignored: int | None = None


class LabelChecks(NamedTuple):
    """The checks of all outputs.

    Attributes:
        each: The checks in the order of the outputs; None for an output whose targets may be anything.
        targets: Function that takes the targets of a batch and returns those of each output, in this order.
    """

    each: list[LabelCheck | None]
    targets: Callable[[Any], list[Any]]


def checked(batch: Batch, checks: LabelChecks | None, where: str) -> Batch:
    """Returns the same batch with assertions on its labels.

    Without them, the effect of a label that is not a class depends on the device: a loss of NaN, or a target that
    is not a class at all.

    Args:
        batch: A batch as the data give it.
        checks: The checks, or None.
        where: Str. The name of the data, for the error.
    """
    if checks is None or not any(checks.each) or not isinstance(batch, tuple) or len(batch) < 2:
        return batch
    tests: list[tf.Operation] = []
    for check, labels in zip(checks.each, checks.targets(batch[1]), strict=True):
        if check is not None and isinstance(labels, tf.Tensor):
            tests += _tests(labels, check, where)
    with tf.control_dependencies(tests):  # the images stay on their device
        return batch[0], tf.nest.map_structure(tf.identity, batch[1]), *batch[2:]


def _tests(labels: tf.Tensor, check: LabelCheck, where: str) -> list[tf.Operation]:
    """Returns the assertions on the targets of one output."""
    if check.form == "labels" and labels.dtype.is_integer:
        return _range_tests(labels, check, where)
    if labels.dtype == tf.bool:
        return []
    values = tf.cast(labels, "float32")
    if check.form == "labels":
        bad = (values != tf.round(values)) | (values < 0) | (values >= max(check.classes, 2))
        if check.ignored is not None:
            bad &= values != check.ignored
        wanted = f"that are not a class from 0 to {max(check.classes, 2) - 1}; {_WAYS}"
    elif check.form == "zero_or_one":
        bad, wanted = (values != 0) & (values != 1), f"that are neither 0 nor 1; {_WAYS}"
    else:
        bad, wanted = tf.abs(tf.reduce_sum(values, -1) - 1) > 1e-3, f"that are not one-hot; {_WAYS}"
    count = tf.reduce_sum(tf.cast(bad, "int32"))
    return [tf.Assert(count == 0, [f"{REFUSED} {where} has", count, f"targets in a batch {wanted}"])]


def _range_tests(labels: tf.Tensor, check: LabelCheck, where: str) -> list[tf.Operation]:
    values = labels if labels.dtype == "int32" else tf.cast(labels, "int64")
    if check.ignored is not None:
        values = tf.where(values == check.ignored, tf.zeros_like(values), values)
    # An assertion on int32 is one operation; on other types it is a condition of many operations.
    high, low = (tf.saturate_cast(n, "int32") for n in (tf.reduce_max(values), tf.reduce_min(values)))
    outputs = f"but the model has {count_of(check.classes, 'output')}. {_MORE}"
    return [
        tf.Assert(high < max(check.classes, 2), [f"{REFUSED} {where} has labels up to", high, outputs]),
        tf.Assert(low >= 0, [f"{REFUSED} {where} has labels down to", low, f"; they start at 0. {_MORE}"]),
    ]


@contextlib.contextmanager
def refusals_named() -> Iterator[None]:
    """Raises the message of an assertion in the graph as a ValueError, without the graph."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(rf"\[{REFUSED} (.*?)\] \[(-?\d+)\] \[(.*?)\]", str(error))
        if found is None:
            raise
        text = " ".join(found.groups()).replace(" ;", ";").replace("\\'", "'")  # TensorFlow escapes quotes
        raise ValueError(text[0].upper() + text[1:]) from None
