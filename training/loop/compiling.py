"""The arguments of `compile`: those of the trainer, those of an earlier `compile`, or defaults for the targets."""

import dataclasses
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from dropzoo.common.checks import unknown
from dropzoo.common.keras_internals import compile_arguments, takes_training
from dropzoo.training.loop.batches import may_need_no_loss
from dropzoo.training.loop.defaults import Task, default_for, metrics_for, task_by_type, task_of
from dropzoo.training.loop.feeds import Feed
from dropzoo.training.loop.known import Known, known
from dropzoo.training.loop.labels import LabelCheck, LabelChecks
from dropzoo.training.loop.outputs import Output, Outputs, few
from dropzoo.training.loop.targets import facts


@dataclasses.dataclass(frozen=True)
class Asked:
    """The arguments of `compile`, as they were passed to the trainer; None for those that were not passed.

    Args:
        optimizer: As for `compile`.
        loss: As for `compile`; an empty list for no loss besides those that the model adds.
        loss_weights: As for `compile`.
        metrics: As for `compile`; an empty list for none.
        weighted_metrics: As for `compile`.
        task: The task of each output, in place of a loss: a name, or a list or dict of names.
        taken: Str. A sentence about the loss that was taken from the compiled model; empty if none was.
        as_is: Bool. Whether nothing was passed, so that a compiled model can stay as it is.
    """

    optimizer: Any = None
    loss: Any = None
    loss_weights: Any = None
    metrics: Any = None
    weighted_metrics: Any = None
    task: Any = None
    taken: str = ""
    as_is: bool = False

    def with_compiled(self, model: keras.Model) -> "Asked":
        """Returns the arguments, in which those of the compiled model replace those that were not passed.

        The loss weights go with the loss. A model that was compiled without metrics keeps none, unless it gets
        another loss.
        """
        if self.loss is not None and self.task is not None:
            raise ValueError(f"Pass `loss` or `task`, not both. Received: loss={self.loss!r}, task={self.task!r}")
        if not model.compiled:
            return self
        before = compile_arguments(model)
        said = (self.optimizer, self.loss, self.loss_weights, self.metrics, self.weighted_metrics, self.task)
        changes: dict[str, Any] = {"as_is": all(each is None for each in said)}
        if self.optimizer is None:
            changes["optimizer"] = model.optimizer
        if self.loss is None and self.task is None and before.get("loss") is not None:
            changes["loss"] = before["loss"]
            changes["loss_weights"] = (
                before.get("loss_weights") if self.loss_weights is None else self.loss_weights
            )
            changes["taken"] = f"the loss is the one that the model was compiled with, {_named(before['loss'])}"
        if self.metrics is None and self.task is None:
            given = before.get("metrics")
            changes["metrics"] = [] if given is None and "loss" in changes else given
        if self.weighted_metrics is None:
            changes["weighted_metrics"] = before.get("weighted_metrics")
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class Settled:
    """The settings with which the model is compiled.

    Args:
        loss: As for `compile`.
        metrics: As for `compile`.
        checks: The checks of the labels, or None.
        words: Str. A sentence about the choice and its reason; empty if nothing was chosen.
        as_is: Bool. Whether the model is already compiled with these settings.
    """

    loss: Any
    metrics: Any
    checks: LabelChecks | None
    words: str
    as_is: bool = False


def settle(asked: Asked, model: keras.Model, feed: Feed | None) -> Settled | None:
    """Returns the settings with which the model is compiled, or None if they depend on data and there are none.

    Args:
        asked: The arguments of the trainer or of an earlier `compile`.
        model: The model, which may be unbuilt.
        feed: The data, or None.

    Raises:
        ValueError: If the targets do not decide the loss, and none was passed.
    """
    if feed is None and (asked.loss is None or not getattr(model, "outputs", None)):
        return None
    if asked.loss is None and feed is not None:
        return _needs_none(asked, model, feed) or _by_targets(asked, model, feed)
    outputs = Outputs(model, lambda: few(feed.first[0][0]) if feed else None)
    losses = _by_output(asked.loss, outputs)
    facts_of = [loss and known(loss, output.classes) for loss, output in zip(losses, outputs.each, strict=True)]
    for output, fact in zip(outputs.each, facts_of, strict=True):
        _warn_of_logits(output, fact)
    metrics = asked.metrics
    if metrics is None:
        metrics = outputs.packed([_metrics(o, fact) for o, fact in zip(outputs.each, facts_of, strict=True)])
    checks = [
        LabelCheck(output.classes, "labels", fact.ignore_class) if fact and fact.counts else None
        for output, fact in zip(outputs.each, facts_of, strict=True)
    ]
    labels = LabelChecks(checks, outputs.targets)
    return Settled(asked.loss or None, metrics, labels, asked.taken, asked.as_is)


def check_compile(model: keras.Model) -> None:
    """Raises a ValueError if a model overrides `compile` with one that does not take the arguments of Keras."""
    taken = inspect.signature(model.compile).parameters
    if "loss_weights" not in taken and all(each.kind is not each.VAR_KEYWORD for each in taken.values()):
        raise ValueError(
            f"{type(model).__name__} has its own `compile` method, with the arguments {', '.join(taken)}. Call "
            f"this method yourself, and pass the compiled model to the Trainer without `optimizer`, `loss` and "
            f"`metrics`"
        )


def check_targets(model: keras.Model, feed: Feed) -> None:
    """Raises a ValueError if the loss of a compiled model needs targets and the data give none."""
    _, y, _ = keras.utils.unpack_x_y_sample_weight(feed.spec)
    if y is None and model.loss is not None and not may_need_no_loss(model):
        raise ValueError(
            f"`{feed.name}` gives inputs without targets, but the loss needs them: give (x, y). For a model that "
            "adds its own losses, pass loss=[]"
        )


def _needs_none(asked: Asked, model: keras.Model, feed: Feed) -> Settled | None:
    """Returns the settings of a model that needs no loss besides its own, or None."""
    _, y, _ = keras.utils.unpack_x_y_sample_weight(feed.spec)
    if asked.task is not None or (y is not None and not model.compiled):
        return None
    if may_need_no_loss(model) or adds_losses(model, feed.first[0][0]):
        return Settled(None, asked.metrics or [], None, "", asked.as_is)
    if y is None:
        raise ValueError(
            "The data give inputs without targets, and the model adds no loss of its own. Give batches of (x, y)"
        )
    return None


def _by_targets(asked: Asked, model: keras.Model, feed: Feed) -> Settled:
    """Returns the settings for a model whose losses the targets decide."""
    outputs = Outputs(model, lambda: few(feed.first[0][0]))
    _, y, _ = keras.utils.unpack_x_y_sample_weight(feed.spec)
    said = _by_output(asked.task, outputs, "task")
    try:
        specs = outputs.all_targets(y)
        tasks = [_task(outputs, index, specs[index], feed, said[index]) for index in range(len(specs))]
        found = [
            default_for(
                output, task, None if task.kind == "regression" else outputs.meaning(index), feed.ignore_class
            )
            for index, (output, task) in enumerate(zip(outputs.each, tasks, strict=True))
        ]
    except ValueError:
        if asked.task is None and may_need_no_loss(model):
            return Settled(None, asked.metrics or [], None, "")
        raise
    metrics = asked.metrics
    if metrics is None:
        metrics = outputs.packed([default.metrics for default in found])
    checks = LabelChecks([default.check for default in found], outputs.targets)
    words = "; ".join(default.words for default in found)
    return Settled(outputs.packed([default.loss for default in found]), metrics, checks, words)


def _task(outputs: Outputs, index: int, spec: tf.TensorSpec, feed: Feed, said: str | None) -> Task:
    """Returns the task of an output, by the type of its targets if that decides, or else by their values."""
    output = outputs.each[index]
    if said is not None or (task := task_by_type(output, spec)) is None:
        found = [outputs.all_targets(batch[1])[index] for batch in feed.first]
        return task_of(output, facts(output.words, found), said)
    return task


def _by_output(things: Any, outputs: Outputs, name: str = "") -> list[Any]:
    """Returns one thing for each output, from one for all, a list, or a dict by names, as `compile` takes them.

    Things that do not fit the outputs raise a ValueError if `name` is given; otherwise `compile` checks them.
    """
    names = [output.name for output in outputs.each]
    if isinstance(things, Mapping):
        if len(names) == 1 and len(things) == 1:
            return list(things.values())
        for each in things:
            if each not in names and name:
                raise unknown("output", each, names)
        return [things.get(each) for each in names] if set(things) <= set(names) else [None] * len(names)
    if isinstance(things, (list, tuple)):
        if len(things) != len(names) and name:
            raise ValueError(
                f"`{name}` must have one entry for each of the {len(names)} outputs. Received: {things!r}"
            )
        return list(things) if len(things) == len(names) else [None] * len(names)
    return [things] * len(names)


def _metrics(output: Output, fact: Known | None) -> list[keras.metrics.Metric]:
    """Returns the metrics that go with a loss: none for a custom loss, as in `fit`."""
    if fact is None:
        return []
    task: Any = Task(fact.kind, fact.one_hot)  # type: ignore[arg-type]
    return metrics_for(output, task, fact.from_logits is not False, fact.ignore_class)


def _warn_of_logits(output: Output, fact: Known | None) -> None:
    """Warns if a loss takes logits and the output gives probabilities, or the other way round."""
    if fact is None or fact.from_logits is None or output.meaning is None:
        return
    if fact.from_logits != (output.meaning == "logits"):
        ending = "gives logits" if output.meaning == "logits" else f"goes through a {output.meaning}"
        warnings.warn(
            f"The loss has from_logits={fact.from_logits}, but {output.words} {ending}. The model will learn "
            f"badly or not at all. Pass a loss with from_logits={not fact.from_logits}",
            stacklevel=5,
        )


def adds_losses(model: keras.Model, x: Any) -> bool:
    """Returns whether the layers of a model add losses of their own, besides the regularizers of its weights."""

    def count(few_x: Any) -> tf.Tensor:
        model(few_x, training=True) if takes_training(model) else model(few_x)
        seen.append(len(model.losses))
        return tf.zeros(())

    if not model.built:
        model(few(x))
    seen: list[int] = []
    tf.function(count, autograph=False).get_concrete_function(few(x))  # traced, but not run
    regularizers = sum(weight.regularizer is not None for weight in model.trainable_variables)
    return seen[0] > regularizers


def _named(loss: Any) -> str:
    """Returns the names of losses, for people."""
    if isinstance(loss, Mapping):
        return ", ".join(f"{name}: {_named(each)}" for name, each in loss.items())
    if isinstance(loss, (list, tuple)):
        return ", ".join(map(_named, loss))
    return loss if isinstance(loss, str) else str(getattr(loss, "name", getattr(loss, "__name__", loss)))
