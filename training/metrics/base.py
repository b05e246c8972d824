"""What the metrics share: labels, outputs and weights as flat tensors, and the base of those of probabilities."""

import math
from typing import Any

import keras
from keras import ops


def flatten(y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """Labels (values,), outputs (values, classes) in float32 and weights (values,) in float64."""
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    _check_labels(tuple(y_true.shape), tuple(y_pred.shape))
    weights = ops.broadcast_to(_weights(sample_weight, tuple(y_pred.shape)), ops.shape(y_pred)[:-1])
    y_pred = ops.cast(ops.reshape(y_pred, (-1, y_pred.shape[-1])), "float32")
    return ops.reshape(ops.cast(y_true, "int32"), (-1,)), y_pred, ops.reshape(weights, (-1,))


def _check_labels(labels: tuple[int | None, ...], outputs: tuple[int | None, ...]) -> None:
    """One integer label for each vector of outputs; sizes that are not known yet fit."""
    given = labels[:-1] if len(labels) == len(outputs) and labels[-1] == 1 else labels
    known = zip(given, outputs[:-1], strict=False)
    if len(given) != len(outputs) - 1 or any(a is not None and b is not None and a != b for a, b in known):
        raise ValueError(
            "`y_true` must hold one integer label for each vector of `y_pred` along its last axis. "
            f"Received: y_true of shape {labels}, y_pred of shape {outputs}"
        )


def _weights(sample_weight: Any, outputs: tuple[int | None, ...]) -> Any:
    """In float64, broadcastable to `outputs` without the last axis; those an image are the same for its pixels."""
    if sample_weight is None:
        return ops.ones((), "float64")
    given = weights = ops.cast(ops.convert_to_tensor(sample_weight), "float64")
    if len(weights.shape) == len(outputs) and weights.shape[-1] == 1:
        weights = ops.squeeze(weights, -1)
    while 0 < len(weights.shape) < len(outputs) - 1:
        weights = ops.expand_dims(weights, -1)
    pairs = zip(weights.shape, outputs[:-1], strict=False)
    fits = all(a in (None, 1) or b is None or a == b for a, b in pairs)
    if not fits or len(weights.shape) not in (0, len(outputs) - 1):
        raise ValueError(
            "`sample_weight` must hold one number for each image or for each label. "
            f"Received: sample_weight of shape {tuple(given.shape)}, y_pred of shape {outputs}"
        )
    return weights


class ProbabilityMetric(keras.metrics.Metric):
    """The base of streaming metrics of probabilities: reads the outputs, leaves the sums to `_add`.

    One output of a binary task becomes two classes. An ignored label has the weight 0; any other label that is
    no class makes the result NaN, in graphs too, rather than count as a miss.
    """

    def __init__(
        self, from_logits: bool = True, ignore_class: int | None = None, name: str | None = None, dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self._direction = "down"
        self.from_logits = from_logits
        self.ignore_class = ignore_class

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        labels, outputs, weights = flatten(y_true, y_pred, sample_weight)
        if outputs.shape[-1] == 1:
            first = ops.zeros_like(outputs) if self.from_logits else 1.0 - outputs
            outputs = ops.concatenate([first, outputs], axis=-1)
        if self.ignore_class is not None:
            weights = ops.where(labels != self.ignore_class, weights, 0.0)
        valid = ops.logical_and(labels >= 0, labels < outputs.shape[-1])
        weights = ops.where(ops.logical_or(valid, weights == 0.0), weights, float("nan"))
        self._add(ops.where(valid, labels, 0), outputs, weights)

    def _add(self, labels: Any, outputs: Any, weights: Any) -> None:
        """Adds labels (values,) that are classes, outputs (values, 2 or more), weights (values,) in float64."""
        raise NotImplementedError

    def _probabilities(self, outputs: Any) -> Any:
        return ops.softmax(outputs) if self.from_logits else outputs

    def _sum(self, name: str, shape: tuple[int, ...] = ()) -> Any:
        """A variable to sum up in: float64, as float32 stops counting at 2**24, fewer pixels than an epoch's."""
        return self.add_variable(shape, "zeros", dtype="float64", name=name)

    def get_config(self) -> dict[str, Any]:
        own = {"from_logits": self.from_logits, "ignore_class": self.ignore_class}
        return {**super().get_config(), **own}


class BinnedError(ProbabilityMetric):
    """Sums of confidence and of right answers and the number of predictions, by bin."""

    def __init__(
        self,
        bins: tuple[int, ...],
        num_bins: int,
        from_logits: bool,
        ignore_class: int | None,
        name: str,
        dtype: Any,
    ) -> None:
        super().__init__(from_logits, ignore_class, name, dtype)
        self.num_bins = check_positive("num_bins", num_bins)
        self.confidence, self.correct, self.count = (
            self._sum(each, bins) for each in ("confidence", "correct", "count")
        )

    def _add(self, labels: Any, outputs: Any, weights: Any) -> None:
        p = self._probabilities(outputs)
        confidence = ops.max(p, axis=-1)
        self._add_to_bins(self._bin(confidence), confidence, labels == ops.argmax(p, axis=-1), weights)

    def _bin(self, confidence: Any) -> Any:
        """Bins of equal width, each with its upper edge: `((m - 1) / M, m / M]`."""
        bins = ops.cast(ops.ceil(confidence * self.num_bins), "int32") - 1
        return ops.clip(bins, 0, self.num_bins - 1)

    def _add_to_bins(self, bins: Any, confidence: Any, correct: Any, weights: Any) -> None:
        confidence, correct = ops.cast(confidence, "float64"), ops.cast(correct, "float64")
        sums = ((self.confidence, weights * confidence), (self.correct, weights * correct), (self.count, weights))
        for total, values in sums:
            added = ops.segment_sum(values, bins, math.prod(total.shape))
            total.assign_add(ops.reshape(added, total.shape))

    def result(self) -> Any:
        # count / N * |correct / count - confidence / count|: the count of a bin cancels.
        gap = ops.sum(ops.absolute(self.correct - self.confidence))
        return ops.cast(ops.divide_no_nan(gap, ops.sum(self.count)), self.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_bins": self.num_bins}


def check_positive(name: str, value: Any) -> int:
    """A positive int."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be positive. Received: {name}={value!r}")
    return value
