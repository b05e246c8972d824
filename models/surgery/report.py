"""`dropout_report`: counts what the dropout of a model drops, and notes what looks wrong."""

import inspect
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from dropzoo import layers
from dropzoo.common.checks import check_count, snake_case
from dropzoo.common.keras_internals import flatten_layers, shadowed_calls
from dropzoo.common.seeds import random_untouched
from dropzoo.layers.draws import own_draw
from dropzoo.layers.draws.plain import PlainDraw
from dropzoo.models.graph.batches import random_batch
from dropzoo.models.graph.places import Place, places
from dropzoo.models.graph.random import Kind, describe_random
from dropzoo.models.names import Named, named_layers
from dropzoo.models.surgery.check import draws_in_inference

_AT_ONCE = 1 << 20  # units: the masks of small inputs are drawn together
_WORTH_COMPILING = 1 << 24  # units, from which compiled draws save more than their compilation takes
_NOT_MEASURED = {
    "dropout": "not a layer for sites: not measured",
    "inside": "inside the layer: not measured",
    "suspected": "may drop units, judging by its seed generator, its rate or its code: not measured",
}


@dataclass(frozen=True)
class SiteReport:
    """A dropout layer in a model, and what it does.

    Attributes:
        site: The name of the layer's site, or the path of the layer itself if it is inside another layer.
        spec: The layer at its present rate, as a spec for `layers.get`, or in words if it is not a dropout layer.
        rate: Float in [0, 1]; only Keras' own layers can have a rate of 1. None for a layer without a rate.
        dropped: Float, the fraction of its nonzero inputs that it drops in training, over many masks. It is 0.0
            for a layer that adds noise or scales, and None if nothing could be measured: see `notes`.
        notes: Findings that look wrong, one phrase each.
        kind: `"dropout"`; `"inside"` for a layer of Keras with dropout of its own, such as `LSTM`; `"suspected"`
            for another layer that may draw random numbers.
    """

    site: str
    spec: str
    rate: float | None
    dropped: float | None
    notes: tuple[str, ...]
    kind: Kind = "dropout"


class DropoutReport(list[SiteReport]):
    """A list of `SiteReport` in the order of the forward pass. It prints as a table."""

    def __str__(self) -> str:
        rows = [("site", "layer", "rate", "dropped", "notes")]
        for row in self:
            dropped = "-" if row.dropped is None else f"{row.dropped:.3f}"
            rate = "-" if row.rate is None else f"{row.rate:.4g}"
            rows.append((row.site, row.spec, rate, dropped, "; ".join(row.notes)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)


def dropout_report(model: keras.Model, images: Any = None, masks: int = 64) -> DropoutReport:
    """Measures the dropout at each site of a model in a training pass, without changing the model.

    Some layers cannot be measured: layers that replace another one, such as `DropConnectDense`; recurrent layers
    with dropout inside; other layers that may draw random numbers; and layers that drop in inference too. In their
    rows, `dropped` is None, and `notes` says why.

    A unit counts as dropped if the layer's output does not depend on this unit of the input. The report notes a
    rate of 0 or 1; a layer that never drops, or whose inputs are all zero; and a rate of 0.5 or more on feature
    maps. It also notes dropout that precedes a BatchNormalization, with at most one layer with weights in between:
    the normalisation learns its statistics in training, where the variance is larger than in inference (Li et al.,
    2018).

    Args:
        model: A Functional or Sequential model, built.
        images: A batch of inputs, in the structure that the model takes. None for 8 random inputs (floats in [0,
            1), indices or words); images have 64 x 64 pixels if the model takes any size.
        masks: Positive int, the number of masks to draw at each site.

    Returns:
        A `DropoutReport`, a list of `SiteReport` that prints as a table.

    Raises:
        ValueError: For a model without a graph, and if `masks` is not a positive int.

    Example:
    >>> from dropzoo import models
    >>> model = models.build_model("lenet5", dropout={"module1": 0.5, "head": 0.0})
    >>> for row in models.dropout_report(model):
    ...     print(row.site, row.rate, round(row.dropped, 1), row.notes)
    module1 0.5 0.5 ('0.5 or more is a high rate on feature maps: use spatial or block dropout, or a lower rate',)
    head 0.0 0.0 ('the rate is 0',)

    Reference:
        Li et al., "Understanding the Disharmony between Dropout and Batch Normalization by Variance Shift", 2018,
        arXiv:1801.05134.
    """
    masks = check_count(masks, "masks")
    every = places(model, final=True)
    named = named_layers(model, every)
    with random_untouched():
        batch = random_batch(model, 8, 64) if images is None else images
        seen = _training_inputs(model, [each.random.layer for each in named if _is_measured(each)], batch)
        report = DropoutReport(_row(each, seen, masks, every) for each in named)
        known = {id(each.random.layer) for each in named}
        others = [layer for layer in flatten_layers(model, include_self=False) if id(layer) not in known]
        for layer in draws_in_inference(model, others, batch):
            note = "draws random numbers in inference too, in its own code: not measured"
            report.append(
                SiteReport(layer.name, snake_case(type(layer).__name__), None, None, (note,), "suspected")
            )
    return report


def _row(each: Named, seen: dict[int, list[Any]], masks: int, every: list[Place]) -> SiteReport:
    """Returns the row of a layer that draws random numbers."""
    layer, kind = each.random.layer, each.random.kind
    dropped, notes = None, [_NOT_MEASURED[kind]]
    if _is_measured(each):
        inputs = seen[id(layer)]
        dropped = _measure(layer, inputs, masks)
        notes = _notes(layer, each.place, bool(inputs), dropped, every)
    return SiteReport(each.site, describe_random(each.random), each.random.rate, dropped, tuple(notes), kind)


def _is_measured(each: Named) -> bool:
    return layers.is_dropout(each.random.layer)


def _training_inputs(model: keras.Model, watched: list[keras.Layer], images: Any) -> dict[int, list[Any]]:
    """Returns the inputs that each layer gets with `training=True` in one pass that changes no variable."""
    seen: dict[int, list[Any]] = {id(layer): [] for layer in watched}

    def note(layer: keras.Layer) -> Callable[..., Any]:
        original = layer.call
        signature = inspect.signature(original)

        def call(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            if given.arguments.get("training", True):  # a layer without that argument is always on
                seen[id(layer)].append(given.args[0])
            return original(*args, **kwargs)

        return call

    with shadowed_calls([(layer, note(layer)) for layer in watched]):
        model.stateless_call(
            [v.value for v in model.trainable_variables],
            [v.value for v in model.non_trainable_variables],
            images,
            training=True,
        )
    return seen


def _measure(layer: Any, batches: list[Any], masks: int) -> float | None:
    """Returns the fraction of the nonzero inputs that are dropped, on average over the masks."""
    if layer.rate >= 1:  # possible for Keras' own layers only; ours refuse it
        return None
    ours, rate = layers.counterpart(layer), ops.convert_to_tensor(layer.rate, "float32")
    first = zlib.crc32(layer.name.encode()) & 0xFFFFFF  # so that each site has other masks
    dropped = count = 0
    for batch in batches:
        inputs = ops.convert_to_tensor(batch)
        size = math.prod(inputs.shape)
        source = own_draw if size * masks > _WORTH_COMPILING else PlainDraw
        count += masks * _number(inputs != 0)
        at_once = 1 if _has_one_mask_for_all(ours) else min(masks, max(1, _AT_ONCE // max(size, 1)))
        for start in range(0, masks, at_once):
            copies = min(at_once, masks - start)
            x = ops.tile(inputs, (copies, *(1,) * (len(inputs.shape) - 1)))
            # Under the same mask: if twice the input gives the same output, the unit is dropped.
            once, twice = (
                ours.drop(each, rate, source(keras.random.SeedGenerator(first + start))) for each in (x, x * 2)
            )
            dropped += _number(ops.logical_and(x != 0, once == twice))
    return dropped / count if count else None


def _has_one_mask_for_all(layer: Any) -> bool:
    """Returns whether a layer draws one mask for the whole batch."""
    noise_shape = getattr(layer, "noise_shape", None)
    return noise_shape is not None and noise_shape[0] is not None


def _number(mask: Any) -> int:
    return int(ops.sum(ops.cast(mask, "int32")))


def _notes(
    layer: keras.Layer, place: Place | None, called: bool, dropped: float | None, every: list[Place]
) -> list[str]:
    """Returns the findings about a layer that look wrong."""
    notes = []
    if layer.rate == 0:
        notes.append("the rate is 0")
    if not called:
        notes.append("never drops: it is not called with training=True, even when the model is")
    elif layer.rate >= 1:
        notes.append("the rate is 1: nothing gets through")
    elif dropped is None:
        notes.append("its inputs are all zero")
    elif dropped == 0 and layer.rate > 0:
        notes.append("drops nothing: it adds noise or scales, or found nothing to drop")
    if place is not None:
        if layer.rate >= 0.5 and len(place.tensor.shape) >= 4:
            notes.append(
                "0.5 or more is a high rate on feature maps: use spatial or block dropout, or a lower rate"
            )
        norm = _next_norm(place, every)
        if norm and layer.rate > 0:
            notes.append(f"precedes BatchNormalization {norm!r}: variance shift (Li 2018)")
    return notes


def _next_norm(place: Place, every: list[Place]) -> str | None:
    """Returns the first trainable BatchNormalization with at most one layer with weights before it, or None."""
    made_by = {id(p.call.node): p for p in every}
    pending = [(place, False)]
    for site, weights_met in pending:
        for reader in site.readers:
            if isinstance(reader.layer, keras.layers.BatchNormalization) and reader.layer.trainable:
                return reader.layer.name
            has_weights = bool(getattr(reader.layer, "weights", ()))
            if id(reader.node) in made_by and not (weights_met and has_weights):
                pending.append((made_by[id(reader.node)], weights_met or has_weights))
    return None
