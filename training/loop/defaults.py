"""The default loss and metrics of an output: the model and its targets decide."""

import dataclasses
from typing import Any, Literal, TypeAlias

import keras
import tensorflow as tf

from dropzoo.common.checks import check_choice
from dropzoo.training.loop.labels import LabelCheck
from dropzoo.training.loop.outputs import Output
from dropzoo.training.loop.targets import Targets
from dropzoo.training.losses import DiceCrossEntropy
from dropzoo.training.metrics import default_metrics

Kind: TypeAlias = Literal["multi_class", "binary", "multi_label", "regression"]
#: The values of `Trainer(task=...)`: the kinds of outputs, and the tasks of `load_data`.
TASKS = ("multi_class", "binary", "multi_label", "regression", "classification", "segmentation")
_MEANINGS = {"multi_class": "softmax", "binary": "sigmoid", "multi_label": "sigmoid"}


@dataclasses.dataclass(frozen=True)
class Task:
    """The task of an output.

    Args:
        kind: The kind of the output.
        one_hot: Bool. Whether the targets are vectors with a 1 at the class, rather than the number of the class.
        why: Str. The reason, in words that follow "because".
    """

    kind: Kind
    one_hot: bool = False
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Default:
    """The loss and the metrics of an output, and the check of its targets.

    Args:
        loss: The loss.
        metrics: The metrics.
        check: The check of the targets, or None.
        words: Str. A sentence about the choice and its reason.
    """

    loss: keras.losses.Loss
    metrics: list[keras.metrics.Metric]
    check: LabelCheck | None
    words: str


def task_by_type(output: Output, spec: tf.TensorSpec) -> Task | None:
    """Returns the task of an output if the type and the shape of its targets decide it, or None.

    Whole numbers, one for each vector of outputs, can only be classes. Their range is checked in each batch.
    """
    if output.classes < 2 or output.meaning not in ("logits", "softmax") or not spec.dtype.is_integer:
        return None
    fewer = spec.shape.rank == len(output.shape) - 1
    column = spec.shape.rank == len(output.shape) and spec.shape[-1] == 1
    return (
        Task("multi_class", why="the targets are whole numbers, one for each vector") if fewer or column else None
    )


def task_of(output: Output, targets: Targets, said: str | None) -> Task:
    """Returns the task of an output.

    Args:
        output: The output.
        targets: The facts about its targets.
        said: One of `TASKS`, or None to decide by the targets.

    Raises:
        ValueError: If the targets do not decide, or do not fit the output or `said`.
    """
    same = len(targets.shape) == len(output.shape) and targets.shape[-1] in (None, output.classes)
    fewer = len(targets.shape) == len(output.shape) - 1
    column = len(targets.shape) == len(output.shape) and targets.shape[-1] == 1
    one = output.classes == 1
    if said is not None:
        task = _said(check_choice(said, "task", TASKS), output, same)
        if not (
            same or (fewer and (one or task.kind == "multi_class")) or (column and task.kind == "multi_class")
        ):
            raise _undecided(output, targets, f"their shape does not fit {_shape(output)} with {task.why}")
        return task
    if one and (same or fewer):
        return _of_one_number(output, targets)
    if fewer or column:
        return _of_labels(output, targets)
    if same:
        return _of_vectors(output, targets)
    raise ValueError(
        f"The targets are {targets.words}, which does not fit {_shape(output)}. Change the targets or the last "
        "layer of the model, or pass a `loss` that takes both shapes"
    )


def _said(said: str, output: Output, same: bool) -> Task:
    """Returns the task that the user named, in the form that the targets have."""
    kind: Any = said
    if said in ("classification", "segmentation"):
        kind = "binary" if output.classes == 1 else "multi_class"
    if (kind == "binary" and output.classes != 1) or (kind == "multi_class" and output.classes == 1):
        raise ValueError(
            f"task={said!r} needs {'one output' if said == 'binary' else 'an output for each class'}. "
            f"Received: {_shape(output)}"
        )
    return Task(kind, same and kind == "multi_class", f"task={said!r}")


def _of_one_number(output: Output, targets: Targets) -> Task:
    """Returns the task of an output of one number for each example or pixel."""
    if targets.zero_or_one and (targets.integer or targets.high > 0):
        return Task("binary", why="the targets are 0 and 1, and there is one output for each")
    if targets.zero_or_one:
        raise _undecided(
            output,
            targets,
            "the first batches do not show whether they are class labels or values of a regression",
        )
    if targets.integer:
        why = "they may be values of a regression; as class labels, they would need more than one output"
        raise _undecided(output, targets, why)
    if output.meaning in ("softmax", "sigmoid"):
        why = f"the output goes through a {output.meaning}, but the targets are not 0 and 1"
        raise _undecided(output, targets, why)
    return Task("regression", why=f"the targets are {targets.words}")


def _of_labels(output: Output, targets: Targets) -> Task:
    """Returns the task of an output of several numbers, with one target for each."""
    if not targets.whole:
        raise _undecided(
            output,
            targets,
            "they are not whole numbers, so they are not class labels; a regression would need one output for "
            f"each target, not {output.classes}",
        )
    if targets.low < 0 or targets.high >= output.classes:
        raise _undecided(
            output,
            targets,
            f"some are outside the classes, 0 to {output.classes - 1}. To leave out a label, such as 255 or -1, "
            "pass it as `ignore_class` to a loss such as training.DiceCrossEntropy",
        )
    if output.meaning == "sigmoid":
        raise _undecided(
            output,
            targets,
            "the output goes through a sigmoid, which is for labels that do not exclude each other, but there is "
            f"a single target for {output.classes} outputs",
        )
    return Task("multi_class", why=f"the targets are classes, from {targets.low:g} to {targets.high:g}")


def _of_vectors(output: Output, targets: Targets) -> Task:
    """Returns the task of an output of several numbers, with the same number of targets."""
    if targets.zero_or_one and output.meaning == "sigmoid":
        return Task(
            "multi_label", why="the targets are 0 and 1 for each label, and the output goes through a sigmoid"
        )
    if targets.one_hot and (targets.whole or output.meaning == "softmax"):
        return Task("multi_class", True, "the targets are one-hot" if targets.whole else "the targets sum to 1")
    if targets.zero_or_one and output.meaning == "softmax":
        raise _undecided(output, targets, "the output goes through a softmax, but the targets do not sum to 1")
    if targets.zero_or_one and targets.high > 0:
        return Task("multi_label", why="the targets are 0 and 1, several for each example")
    if targets.integer or targets.one_hot or output.meaning in ("softmax", "sigmoid") or targets.zero_or_one:
        ending = (
            f", and the output goes through a {output.meaning}" if output.meaning in _MEANINGS.values() else ""
        )
        raise _undecided(output, targets, f"they may be class labels or values of a regression{ending}")
    return Task("regression", why=f"the targets are {targets.words}")


def default_for(output: Output, task: Task, meaning: str | None, ignore_class: int | None = None) -> Default:
    """Returns the loss and the metrics of a task.

    Args:
        output: The output.
        task: Its task.
        meaning: `"logits"`, `"softmax"` or `"sigmoid"`; None if it is not known.
        ignore_class: Int or None. A label of masks that does not count.

    Raises:
        ValueError: If the meaning is not known, or does not fit the task.
    """
    if task.kind == "regression":
        loss, words = keras.losses.MeanSquaredError(), _words(output, "mean_squared_error", task)
        return Default(loss, metrics_for(output, task, False), None, words)
    if meaning is None:
        raise ValueError(
            f"The default loss of {output.words} is unclear: its values are in [0, 1], so they may be "
            f"probabilities or logits, and the model does not show which. Pass a `loss` with `from_logits=True` "
            f"or `from_logits=False`"
        )
    if meaning not in ("logits", _MEANINGS[task.kind]):
        raise ValueError(
            f"The loss of {output.words} must be given: the output goes through a {meaning}, but {task.why}. The "
            f"default loss for task={task.kind!r} needs logits or a {_MEANINGS[task.kind]}. Pass `loss` and "
            "`metrics`"
        )
    logits = meaning == "logits"
    ignored = ignore_class if len(output.shape) > 2 and task.kind in ("multi_class", "binary") else None
    loss = _loss(output, task, logits, ignored)
    form: Any = "one_hot" if task.one_hot else "zero_or_one" if task.kind == "multi_label" else "labels"
    words = _words(output, f"{loss.name} of {'logits' if logits else 'probabilities'}", task)
    return Default(
        loss, metrics_for(output, task, logits, ignored), LabelCheck(output.classes, form, ignored), words
    )


def _loss(output: Output, task: Task, logits: bool, ignore_class: int | None) -> keras.losses.Loss:
    """Returns the loss of a task of labels."""
    masks = len(output.shape) > 2
    if task.kind == "multi_label" or (task.kind == "binary" and not (masks and logits)):
        return keras.losses.BinaryCrossentropy(from_logits=logits)
    if task.one_hot:
        return keras.losses.CategoricalCrossentropy(from_logits=logits)
    if masks and logits:
        return DiceCrossEntropy(ignore_class=ignore_class)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=logits, ignore_class=ignore_class)


def metrics_for(
    output: Output, task: Task, logits: bool, ignore_class: int | None = None
) -> list[keras.metrics.Metric]:
    """Returns the metrics of a task: accuracy, for masks also the mean IoU, and the mean error of a regression.

    Args:
        output: The output.
        task: Its task.
        logits: Bool. Whether the output is logits rather than probabilities.
        ignore_class: Int or None. A label that does not count.
    """
    masks, one = len(output.shape) > 2, output.classes == 1
    metrics: list[keras.metrics.Metric]
    if task.kind == "regression":
        return [keras.metrics.MeanAbsoluteError(name="mean_absolute_error")]
    if task.kind == "multi_label" or (one and not logits):
        metrics = [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0 if logits else 0.5)]
        both = keras.metrics.BinaryIoU(target_class_ids=(0, 1), threshold=0.5, name="mean_iou")
        return [*metrics, both] if one and masks else metrics
    if task.one_hot:
        metrics = [keras.metrics.CategoricalAccuracy(name="accuracy")]
        return [*metrics, keras.metrics.OneHotMeanIoU(output.classes, name="mean_iou")] if masks else metrics
    return default_metrics("segmentation" if masks else "classification", output.classes, ignore_class)


def _words(output: Output, loss: str, task: Task) -> str:
    where = f" of {output.words}" if output.name else ""
    return f"the loss{where} is {loss}, because {task.why}"


def _shape(output: Output) -> str:
    sizes = ", ".join("batch" if n == 0 else str(size) for n, size in enumerate(output.shape))
    return f"{output.words} of the shape ({sizes})"


def _undecided(output: Output, targets: Targets, why: str) -> ValueError:
    """Returns the error for targets that do not decide the loss; it says what to pass."""
    return ValueError(
        f"The loss of {output.words} must be given: the targets are {targets.words}, and {why}. Pass `loss`, for "
        "example loss='mse', or pass `task`: 'regression', 'binary', 'multi_class' or 'multi_label'"
    )
