"""Datasets of batches: checks, class weights as sample weights, and the end of an iterator."""

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from dropzoo.common.tensorflow_internals import writes_files
from dropzoo.models.graph.endings import output_activation
from dropzoo.training.supervision import DeepSupervision

#: The argument that limits the batches of each kind of data.
STEPS = {"train": "steps_per_epoch", "validation_data": "validation_steps", "dataset": "steps"}

#: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, each a tensor or a structure of tensors.
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


def check_r_drop(model: keras.Model, r_drop: float) -> None:
    """Raises a ValueError for R-Drop with a model that has its own `train_step` or ends in probabilities."""
    if not r_drop:
        return
    if isinstance(model, DeepSupervision):
        raise ValueError(
            f"`r_drop` needs a model with a single output, but deep supervision has several. Received: "
            f"r_drop={r_drop}"
        )
    if has_own_step(model):
        raise ValueError(
            f"`r_drop` needs Keras' `train_step`, but the model has its own. Received: r_drop={r_drop}"
        )
    if ending := output_activation(model):
        raise ValueError(
            f"`r_drop` needs logits, but the model ends in a {ending}. Remove the {ending} from the model: "
            f"MonteCarlo and exports convert logits to probabilities. Received: r_drop={r_drop}"
        )


def has_own_step(model: keras.Model) -> bool:
    """Returns whether the model overrides Keras' `train_step`."""
    return type(model).train_step is not keras.Model.train_step


def may_need_no_loss(model: keras.Model) -> bool:
    """Returns whether a model overrides `train_step` or `compute_loss`, so that it may compute its own loss."""
    if isinstance(model, DeepSupervision):  # its loss is Keras', at each of its sites
        return False
    return has_own_step(model) or type(model).compute_loss is not keras.Model.compute_loss


def dataset(
    data: tf.data.Dataset | Epochs, name: str, epoch: int = 0, steps: int | None = None
) -> tf.data.Dataset:
    """Returns the dataset of one epoch, or raises a ValueError that calls the data `name`.

    Args:
        data: A dataset, or an object with `at_epoch`.
        name: Str. The name of the argument.
        epoch: Int from 0.
        steps: Int or None. The number of batches to read at most.
    """
    found = checked(data.at_epoch(epoch) if hasattr(data, "at_epoch") else data, name)
    found = found.take(steps) if steps else found
    if int(found.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise endless(name)
    return found


def checked(found: tf.data.Dataset, name: str) -> tf.data.Dataset:
    """Returns a dataset, or raises a ValueError if a model cannot train on its batches."""
    if not isinstance(found, tf.data.Dataset):
        raise ValueError(
            f"`{name}.at_epoch(epoch)` must return a tf.data.Dataset. Received: {type(found).__name__}"
        )
    spec = found.element_spec
    if isinstance(spec, tuple) and len(spec) > 3:
        raise ValueError(f"`{name}` must give x, (x, y) or (x, y, sample_weight). Received: {spec}")
    if any(leaf.shape.rank is None for leaf in tf.nest.flatten(spec)):
        raise ValueError(
            f"The elements of `{name}` must have a known rank (see tf.ensure_shape). Received: {spec}"
        )
    if int(found.cardinality()) == 0:
        raise empty(name)
    return found


def endless(name: str) -> ValueError:
    """Returns the error for data whose epochs have no known length."""
    return ValueError(
        f"`{name}` never ends, or its length is not known: pass `{STEPS[name]}`, the number of batches of an "
        "epoch, or limit a dataset with .take(batches)"
    )


def empty(name: str) -> ValueError:
    """Returns the error for data without a batch."""
    return ValueError(f"`{name}` is empty: it gives no batch")


def weighted(data: tf.data.Dataset, class_weight: dict[int, float] | None, model: keras.Model) -> tf.data.Dataset:
    """Returns batches with class weights as sample weights; None changes nothing."""
    if class_weight is None:
        return data
    out = output(model)
    if out is None or not isinstance(data.element_spec, tuple) or len(data.element_spec) != 2:
        raise ValueError(
            "`class_weight` needs a model with one output, and data of the form (x, y) without sample weights"
        )
    names = [name for name in class_weight if isinstance(name, (int, np.integer))]
    if not names or len(names) < len(class_weight) or min(names) < 0 or max(names) >= max(out.classes, 2):
        raise ValueError(f"The keys of `class_weight` must be classes of the model. Received: {class_weight}")
    table = np.ones(max(names) + 2, "float32")  # the last entry is for all larger labels
    table[names] = list(class_weight.values())

    @tf.autograph.experimental.do_not_convert  # there is nothing to convert, and the search is slow
    def weigh(x: Any, y: tf.Tensor) -> Batch:
        labels = y
        if len(y.shape) == out.rank:
            labels = y[..., 0] if y.shape[-1] == 1 else tf.argmax(y, axis=-1)
        return x, y, tf.gather(table, tf.clip_by_value(tf.cast(labels, "int32"), 0, len(table) - 1))

    return data.map(weigh)


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
