"""The cut of a model into trunk and head: where it is, and how much it saves. Nothing is run to find out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dropzoo.serving.montecarlo.inputs import Inputs
from dropzoo.serving.montecarlo.trunk import Costs, Trunk

_UNKNOWN = 256  # the size of an axis, in pixels, that neither the model nor the caller gives


@dataclass(frozen=True)
class Cut:
    """The place where a model is cut for sampling, and how much the cut saves.

    The part of the model before the cut, the trunk, is computed once; the part after it, the head, is computed in
    each sample.

    Attributes:
        frontier: Names of the layers whose outputs are computed once and read by every sample. An input of a
            subclassed model has no layer: it is called `input_1`, or by its key if the model takes a dict.
        f: Float in [0, 1], the trunk's share of the multiplications (of convolutions, dense layers and the like).
        num_samples: Int, the number T of samples; with `num_samples="auto"` the largest number.
        speedup: Float, the upper bound on the gain over T whole passes, `1 / (f / T + 1 - f)`, if time is
            proportional to multiplications.
        image_shape: `(height, width, channels)` of the images for which the numbers hold; for a model of several
            inputs, a tuple of the shape of each.
        trunk_macs: Int, multiplications for an image in the trunk.
        head_macs: Int, multiplications for an image in each sample.
        opaque: Names of layers and models with a `call` of their own that hold an active dropout layer. They are
            computed whole in each sample.
        split: Names of the convolutions and dense layers that read a concatenation in which active dropout reaches
            only some of the channels. Their result for the other channels is computed once. These names are in
            `frontier` too.
        plain: The layers that are sampled by plain passes, once in each sample, as pairs of a name and a reason.
    """

    frontier: tuple[str, ...]
    f: float
    num_samples: int
    speedup: float
    image_shape: tuple[Any, ...]
    trunk_macs: int
    head_macs: int
    opaque: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    plain: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        several = any(isinstance(each, tuple) for each in self.image_shape)
        shapes = self.image_shape if several else (self.image_shape,)
        size = " and ".join("x".join(map(str, shape)) for shape in shapes)
        lines = [
            f"computed once, up to: {', '.join(self.frontier)}",
            f"f = {self.f:.3f}: {_count(self.trunk_macs)} of {_count(self.trunk_macs + self.head_macs)} "
            f"multiplications for an image of {size}",
            f"at T = {self.num_samples} up to {self.speedup:.2f} times as fast as T passes",
        ]
        if self.split:
            lines.append(f"computed once in part: {', '.join(self.split)}")
        if self.opaque:
            lines.append(f"computed whole in each sample: {', '.join(self.opaque)}")
        lines += [f"sampled by a plain pass in each sample: {name} ({why})" for name, why in self.plain]
        return "\n".join(lines)


def make_cut(
    trunk: Trunk, shapes: Sequence[tuple[int, ...]], num_samples: int, plain: tuple[tuple[str, str], ...]
) -> Cut:
    """Returns the cut for images of a shape.

    Args:
        trunk: The model, cut into trunk and head.
        shapes: The shape of each input without the batch axis, such as `(height, width, channels)`, all known.
        num_samples: Int, the number of samples.
        plain: The layers that are sampled by plain passes, as pairs of a name and a reason.
    """
    costs = costs_or_none(trunk, shapes) or Costs(0, 0, 0, True)
    total = costs.trunk_macs + costs.head_macs
    f = costs.trunk_macs / total if total else 0.0
    speedup = 1.0 / (f / num_samples + 1.0 - f)
    macs = (costs.trunk_macs, costs.head_macs)
    shape = shapes[0] if len(shapes) == 1 else tuple(shapes)
    return Cut(trunk.names, f, num_samples, speedup, shape, *macs, trunk.opaque, trunk.split, plain)


def fill_shapes(inputs: Inputs, size: tuple[int, ...] | None = None) -> list[tuple[int, ...]]:
    """Returns the shapes of the inputs without the batch axis, with a number for each axis.

    Args:
        inputs: The inputs of a model.
        size: `(height, width)`, the first axes of an image. None for 256 on each axis that the model leaves open.

    Raises:
        ValueError: If `size` does not fit the model.
    """
    filled = inputs.row_shapes(_UNKNOWN)
    if size is None:
        return filled
    several = len(filled) > 1
    return [
        each if several and None not in shape[1:] else _fill(shape[1:], size)
        for each, shape in zip(filled, inputs.shapes, strict=True)
    ]


def _fill(shape: tuple[int | None, ...], size: tuple[int, ...]) -> tuple[int, ...]:
    chosen = tuple(n for n in (*size, *shape[len(size) :]) if type(n) is int and n > 0)
    fits = len(chosen) == len(shape) <= len(size) + 1
    if not fits or any(n not in (None, m) for n, m in zip(shape, chosen, strict=True)):
        raise ValueError(f"`size` must fit images of the shape {shape}. Received: size={size!r}")
    return chosen


def costs_or_none(trunk: Trunk, shapes: Sequence[tuple[int, ...]]) -> Costs | None:
    """Returns the costs, or None if a layer cannot compute its output shape for images of this shape."""
    try:
        return trunk.costs(shapes)
    except (ValueError, TypeError, NotImplementedError, RuntimeError):
        return None


def _count(macs: float) -> str:
    """A number of multiplications with its unit: 1234 is "1.234 k"."""
    for unit in ("", " k", " M", " G"):
        if macs < 1000:
            return f"{macs:.4g}{unit}"
        macs /= 1000
    return f"{macs:.4g} T"
