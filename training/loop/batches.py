"""The trainer's data: the batches of one epoch, with checks, and with class weights as sample weights."""

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from dropzoo.common.tensorflow_internals import writes_files
from dropzoo.models.graph.endings import output_activation
from dropzoo.training.losses.base import PixelLoss

REFUSED = "Refused:"  # a failed assertion in the graph begins with this word

#: `(x, y)` or `(x, y, sample_weight)`, each a tensor or a structure of tensors.
Batch: TypeAlias = tuple[Any, ...]


class Epochs(Protocol):
    """Training data whose order depends on the epoch."""

    def at_epoch(self, epoch: int) -> tf.data.Dataset:
        """Returns the batches of one epoch, counted from 0."""


class Output(NamedTuple):
    """The only output of a model: its rank with the batch, and the size of its last axis."""

    rank: int
    classes: int


def output(model: keras.Model) -> Output | None:
    """Returns the output of a model, or None for several outputs or an unknown shape."""
    shape: Any = getattr(model, "output_shape", None)
    known = isinstance(shape, tuple) and len(shape) > 1 and isinstance(shape[-1], int)
    return Output(len(shape), shape[-1]) if known else None


def check_logits(model: keras.Model, r_drop: float) -> None:
    """Raises a ValueError if the model ends in probabilities, or has its own `train_step` and R-Drop is on."""
    if r_drop and has_own_step(model):
        raise ValueError(
            f"`r_drop` needs Keras' `train_step`, but the model has its own. Received: r_drop={r_drop}"
        )
    if ending := output_activation(model):
        what = "`r_drop` and the" if r_drop else "The"
        raise ValueError(
            f"{what} default loss and metrics take logits, but the model ends in a {ending}. Pass both `loss` and "
            "`metrics`, or end the model without it: MonteCarlo and exports turn logits into probabilities"
        )


def has_own_step(model: keras.Model) -> bool:
    """Returns whether the model overrides Keras' `train_step`."""
    return type(model).train_step is not keras.Model.train_step


def dataset(data: tf.data.Dataset | Epochs, name: str, epoch: int = 0) -> tf.data.Dataset:
    """Returns the dataset of one epoch, or raises a ValueError that calls the data `name`."""
    found = data.at_epoch(epoch) if hasattr(data, "at_epoch") else data
    if not isinstance(found, tf.data.Dataset):
        raise ValueError(
            f"`{name}` must be a tf.data.Dataset of (x, y) batches. Make one from arrays with "
            f"tf.data.Dataset.from_tensor_slices((x, y)).batch(32). Received: {type(found).__name__}"
        )
    spec = found.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise ValueError(f"`{name}` must give (x, y) or (x, y, sample_weight). Received: {spec}")
    if any(leaf.shape.rank is None for leaf in tf.nest.flatten(spec)):
        raise ValueError(f"`{name}` must have elements of known rank (see tf.ensure_shape). Received: {spec}")
    cardinality = int(found.cardinality())
    if cardinality == 0:
        raise empty(name)
    if cardinality == tf.data.INFINITE_CARDINALITY:
        raise ValueError(f"`{name}` never ends: bound it with .take(batches)")
    return found


def empty(name: str) -> ValueError:
    """Returns the error for data without a batch."""
    return ValueError(f"`{name}` is empty: it gives no batch")


def rest_of_epoch(
    train: tf.data.Dataset | Epochs,
    epoch: int,
    skip: int,
    class_weight: dict[int, float] | None,
    model: keras.Model,
) -> tf.data.Dataset:
    """Returns the batches of an epoch after the first `skip`, with class weights as sample weights."""
    rest = dataset(train, "train", epoch)
    rest = rest.skip(skip) if skip else rest
    if class_weight is None:
        return rest
    out = output(model)
    if out is None or len(rest.element_spec) != 2:
        raise ValueError("`class_weight` needs a model of one output, and (x, y) data without sample weights")
    names = [name for name in class_weight if isinstance(name, (int, np.integer))]
    if not names or len(names) < len(class_weight) or min(names) < 0 or max(names) >= max(out.classes, 2):
        raise ValueError(f"`class_weight` must name classes of the model. Received: {class_weight}")
    table = np.ones(max(names) + 2, "float32")  # the last entry is for all larger labels
    table[names] = list(class_weight.values())

    def weigh(x: Any, y: tf.Tensor) -> Batch:
        labels = y
        if len(y.shape) == out.rank:
            labels = y[..., 0] if y.shape[-1] == 1 else tf.argmax(y, axis=-1)
        return x, y, tf.gather(table, tf.clip_by_value(tf.cast(labels, "int32"), 0, len(table) - 1))

    return rest.map(weigh)


def check_labels(batch: Batch, model: keras.Model, where: str) -> Batch:
    """Returns the same batch with assertions on its labels.

    Without them a label that is not a class gives a loss of NaN, or is taken for no class at all, depending on the
    device.
    """
    labels, out, loss = batch[1], output(model), model.loss
    if out is None or not isinstance(labels, tf.Tensor) or not labels.dtype.is_integer:
        return batch
    if len(labels.shape) == out.rank and labels.shape[-1] != 1:
        return batch  # one-hot
    if out.classes == 1 and not isinstance(loss, (keras.losses.BinaryCrossentropy, PixelLoss)):
        return batch  # regression
    ignored = getattr(loss, "ignore_class", None)
    values = labels if labels.dtype == "int32" else tf.cast(labels, "int64")
    values = values if ignored is None else tf.where(values == ignored, tf.zeros_like(values), values)
    # An assertion on int32 is one operation; on other types it is a condition of many operations.
    high, low = (tf.saturate_cast(n, "int32") for n in (tf.reduce_max(values), tf.reduce_min(values)))
    tests = [
        tf.Assert(
            high < max(out.classes, 2),
            [f"{REFUSED} {where} has labels up to", high, f"but the model has {out.classes} outputs"],
        ),
        tf.Assert(low >= 0, [f"{REFUSED} {where} has labels down to", low, "; they start at 0"]),
    ]
    with tf.control_dependencies(tests):
        return batch[0], tf.identity(labels), *batch[2:]  # the images stay on their device


def ahead(batches: tf.data.Dataset, device: str | None) -> tf.data.Dataset:
    """Returns the same batches, two of them copied ahead to a device."""
    return batches if device is None else batches.apply(tf.data.experimental.prefetch_to_device(device, 2))


def discard(box: list[Iterator[Batch]], batches: tf.data.Dataset) -> None:
    """Empties a list that holds the only reference to an iterator of `batches`, usually in another thread.

    Closing an iterator waits for the next round of tf.data's tuning thread, which can take as long as the epoch
    did. But an iterator that writes a file is closed at once, because it must be gone before the next one starts.
    """
    if writes_files(batches):
        box.clear()
    else:
        threading.Thread(target=box.clear).start()


@contextlib.contextmanager
def refusals_named() -> Iterator[None]:
    """Raises the message of an assertion in the graph as a ValueError, without the graph."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(rf"\[{REFUSED} (.*?)\] \[(-?\d+)\] \[(.*?)\]", str(error))
        if found is None:
            raise
        text = " ".join(found.groups()).replace(" ;", ";")
        raise ValueError(text[0].upper() + text[1:]) from None
