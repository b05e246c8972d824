"""The cut of a model into trunk and head: where it is, and how much it saves. Nothing is run to find out."""

from dataclasses import dataclass

import keras

from dropzoo.serving.montecarlo.trunk import Costs, Trunk

_UNKNOWN = 256  # the size of an axis, in pixels, that neither the model nor the caller gives


@dataclass(frozen=True)
class Cut:
    """The place where a model is cut for sampling, and how much the cut saves.

    Attributes:
        frontier: Names of the layers whose outputs are computed once and read by every sample.
        f: Float in [0, 1], the trunk's share of the multiplications (of convolutions, dense layers and the like).
        num_samples: Int, the number T of samples; with `num_samples="auto"` the largest number.
        speedup: Float, the upper bound on the gain over T whole passes, `1 / (f / T + 1 - f)`, if time is
            proportional to multiplications.
        image_shape: `(height, width, channels)` of the images for which the numbers hold.
        trunk_macs: Int, multiplications for an image in the trunk.
        head_macs: Int, multiplications for an image in each sample.
        opaque: Names of layers and models with a `call` of their own that hold an active dropout layer. They are
            computed whole in each sample.
        split: Names of the convolutions and dense layers that read a concatenation and are split. The half over
            the channels that no active dropout reaches is computed once. These names are in `frontier` too.
    """

    frontier: tuple[str, ...]
    f: float
    num_samples: int
    speedup: float
    image_shape: tuple[int, ...]
    trunk_macs: int
    head_macs: int
    opaque: tuple[str, ...] = ()
    split: tuple[str, ...] = ()

    def __str__(self) -> str:
        size = "x".join(map(str, self.image_shape))
        lines = [
            f"computed once, up to: {', '.join(self.frontier)}",
            f"f = {self.f:.3f}: {_count(self.trunk_macs)} of {_count(self.trunk_macs + self.head_macs)} "
            f"multiplications for an image of {size}",
            f"at T = {self.num_samples} up to {self.speedup:.2f} times as fast as T passes",
        ]
        if self.split:
            lines.append(f"of these in part: {', '.join(self.split)}")
        if self.opaque:
            lines.append(f"computed whole in each sample: {', '.join(self.opaque)}")
        return "\n".join(lines)


def make_cut(trunk: Trunk, image_shape: tuple[int, ...], num_samples: int) -> Cut:
    """Returns the cut for images of a shape.

    Args:
        trunk: The model, cut into trunk and head.
        image_shape: `(height, width, channels)`, all known.
        num_samples: Int, the number of samples.
    """
    costs = trunk.costs(image_shape)
    total = costs.trunk_macs + costs.head_macs
    f = costs.trunk_macs / total if total else 0.0
    speedup = 1.0 / (f / num_samples + 1.0 - f)
    macs = (costs.trunk_macs, costs.head_macs)
    return Cut(trunk.names, f, num_samples, speedup, image_shape, *macs, trunk.opaque, trunk.split)


def fill_shape(model: keras.Model, size: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Returns the shape of an image. An axis that the model leaves open has its length from `size`, or 256.

    Args:
        model: A model of one input.
        size: `(height, width)`, the first axes of an image. None for 256 on each axis that the model leaves open.

    Raises:
        ValueError: If `size` does not fit the model.
    """
    shape = tuple(model.input_shape[1:])
    if size is None:
        return tuple(_UNKNOWN if n is None else n for n in shape)
    chosen = (*size, *shape[len(size) :])
    fits = len(chosen) == len(shape) <= len(size) + 1 and all(type(n) is int and n > 0 for n in chosen)
    if not fits or any(n not in (None, m) for n, m in zip(shape, chosen, strict=True)):
        raise ValueError(f"`size` must fit images of the shape {shape}. Received: size={size!r}")
    return chosen


def costs_or_none(trunk: Trunk, image_shape: tuple[int, ...]) -> Costs | None:
    """Returns the costs, or None if a layer cannot compute its output shape for images of this shape."""
    try:
        return trunk.costs(image_shape)
    except (ValueError, TypeError, NotImplementedError, RuntimeError):
        return None


def _count(macs: float) -> str:
    """A number of multiplications with its unit: 1234 is "1.234 k"."""
    for unit in ("", " k", " M", " G"):
        if macs < 1000:
            return f"{macs:.4g}{unit}"
        macs /= 1000
    return f"{macs:.4g} T"
