"""The range of the pixels that a model takes, and a check whether images can have that range."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dropzoo.common.images import channels_first

#: The usual ranges of stored and computed images, the likelier first.
RANGES = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0), (0.0, 65535.0))


@dataclass(frozen=True)
class Pixels:
    """The images that a model takes.

    Attributes:
        low: Float, the value of a black pixel.
        high: Float, the value of a white pixel.
        bits: Int, 8 or 16, the bits of a pixel in the files; None if that is not known.
        channels: Int, the number of channels; None if that is not known.
        order: `"rgb"` or `"bgr"`; None if that is not known.
        source: Str. The source of the range, in words that follow "known from"; empty if it is only assumed.
        from_files: Bool, whether the pixels of files can be scaled to this range. False for a model that was
            trained on standardised images or the like: `low` and `high` are then the least and the greatest value.
        stored: The values in files that are black and white, such as (-1000, 2000) for CT; None for 0 and the
            largest value that the type of the file can hold.
        first: Bool, whether the channels come before the height and width; None to decide by the shape of the
            images.
    """

    low: float = 0.0
    high: float = 1.0
    bits: int | None = None
    channels: int | None = None
    order: str | None = None
    source: str = ""
    from_files: bool = True
    stored: tuple[float, float] | None = None
    first: bool | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stored, list):  # a pair is a list in files
            object.__setattr__(self, "stored", tuple(self.stored))

    @property
    def range(self) -> tuple[float, float]:
        """The pair `(low, high)`."""
        return self.low, self.high

    @property
    def white(self) -> float:
        """The value of a pixel with the largest value that a file can store.

        A model of 12 bits, 0 to 4095, takes the values in files of 16 bits without scaling.
        """
        return 65535.0 if self.low == 0 and 255 < self.high < 65535 else self.high

    @property
    def words(self) -> str:
        """The range and its source, in words."""
        known = (
            f"known from {self.source}" if self.source else "assumed, because nothing in the model says otherwise"
        )
        no_range = "" if self.from_files else "; image files cannot be scaled to it"
        stored = "" if self.stored is None else f"; files hold {self.stored[0]:g} to {self.stored[1]:g}"
        return f"{self.low:.5g} to {self.high:.5g} ({known}{no_range}{stored})"

    def of_range(self, low: float, high: float) -> "Pixels":
        """Returns the same images with the range that the argument `input_range` says."""
        bits = {255.0: 8}.get(high, 16 if high > 255 else None)
        source = "the argument `input_range`"
        return replace(self, low=low, high=high, bits=bits, source=source, from_files=True)

    def channels_first(self, shape: Sequence[int | None]) -> bool:
        """Returns whether images of a shape, with the batch, have their channels before their height and width."""
        return channels_first(shape) if self.first is None else self.first

    def check_files(self) -> None:
        """Raises a ValueError if the pixels of files cannot be scaled to the range of the model."""
        if not self.from_files:
            raise ValueError(
                f"The model takes pixels from {self.words}. Put the layer that scales the images, such as "
                f"Normalization, into the model, or pass the values of black and white: input_range=(low, high)"
            )

    def fractions(self, values: Any, largest: float) -> Any:
        """Returns stored values with black at 0 and white at 1; values outside `stored` are outside [0, 1].

        Args:
            values: Float array or tensor of the values in a file.
            largest: Float, the largest value that the type of the file can hold; 1 for floats.
        """
        low, high = self.stored or (0.0, largest)
        return (values - low) / (high - low)

    def scaled(self, images: Any) -> Any:
        """Returns images as the model takes them.

        Args:
            images: Float array or tensor `(..., channels)` of RGB values in [0, 1]: stored values divided by the
                largest value of the type of the file.
        """
        return self.spread(images[..., ::-1] if self.order == "bgr" else images)

    def spread(self, images: Any) -> Any:
        """Returns images as `scaled` does, but leaves the order of their channels."""
        return images if (self.low, self.white) == (0, 1) else images * (self.white - self.low) + self.low


def check_range(value: Any, name: str = "input_range") -> tuple[float, float]:
    """Returns a pair of finite numbers, the lower first; otherwise raises a ValueError."""
    try:
        low, high = (float(each) for each in value)
    except (TypeError, ValueError):
        low = high = np.nan
    if not -np.inf < low < high < np.inf:
        raise ValueError(
            f"`{name}` must be the values of a black and of a white pixel, such as (0, 1) or (0, 255). "
            f"Received: {name}={value!r}"
        )
    return low, high


def nearest_range(low: float, high: float) -> tuple[float, float] | None:
    """Returns the smallest of `RANGES` that holds the pixels from `low` to `high`, or None.

    Bright pixels distinguish the ranges: images whose largest value is 200 have the range 0 to 255.
    """
    if low < 0:
        return (-1.0, 1.0) if low >= -1.05 and high <= 1.05 else None
    return next((each for each in RANGES if each[0] == 0 and high <= each[1] * 1.05), None)


def doubt(images: np.ndarray, pixels: Pixels) -> str | None:
    """Returns a message for images whose range a model does not take, or None if they may be right.

    Dark images are fine. Values far outside the range are wrong, and so are fractions of 1 if the model
    takes pixels up to 100 and above. Resized images may go beyond the range a little.

    Args:
        images: Array of numbers.
        pixels: The images that the model takes.
    """
    if not images.size or images.dtype.kind not in "fiu" or not pixels.from_files:
        return None
    least, most = float(images.min()), float(images.max())
    margin = 0.25 * (pixels.high - pixels.low)
    fractions = pixels.high >= 100 and most <= 1 and images.dtype.kind == "f" and (images % 1 != 0).any()
    if not fractions and pixels.low - margin <= least and most <= pixels.high + margin:
        return None
    advice = (
        f"Multiply them by {pixels.high:g}. If the image really is that dark, round its pixels: whole numbers pass"
        if fractions
        else f"Scale them to {pixels.low:g} to {pixels.high:g}"
    )
    return f"The model takes pixels from {pixels.words}. Received: pixels from {least:.4g} to {most:.4g}. {advice}"
