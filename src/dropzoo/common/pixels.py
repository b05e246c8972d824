"""The range of pixels: what a model takes, and whether images can be of that range."""

from dataclasses import dataclass
from typing import Any

import numpy as np

#: The ranges in which images are stored and computed, the likelier first.
RANGES = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0), (0.0, 65535.0))


@dataclass(frozen=True)
class Pixels:
    """The images that a model takes.

    Attributes:
        low: Float, the value of a black pixel.
        high: Float, the value of a white pixel.
        bits: Int, 8 or 16 for pixels that files store with so many bits; None if that is not known.
        channels: Int, the number of channels; None if that is not known.
        order: `"rgb"` or `"bgr"`; None if that is not known.
        source: Str. How this is known, in words that go behind "known from"; empty if it is only assumed.
        from_files: Bool, whether this is a range to which files can be brought. False for a model that was trained
            on standardised images or the like: `low` and `high` are then the least and the greatest value seen.
    """

    low: float = 0.0
    high: float = 1.0
    bits: int | None = None
    channels: int | None = None
    order: str | None = None
    source: str = ""
    from_files: bool = True

    @property
    def range(self) -> tuple[float, float]:
        """The pair `(low, high)`."""
        return self.low, self.high

    @property
    def white(self) -> float:
        """The value of a pixel with the largest value that a file can store.

        A model of 12 bits, 0 to 4095, takes the values of files of 16 bits as they are.
        """
        return 65535.0 if self.low == 0 and 255 < self.high < 65535 else self.high

    @property
    def words(self) -> str:
        """The range and how it is known, for people."""
        known = f"known from {self.source}" if self.source else "assumed, because nothing says so"
        no_range = "" if self.from_files else ", which is no range of files"
        return f"{self.low:.5g} to {self.high:.5g} ({known}{no_range})"

    def check_files(self) -> None:
        """Raises a ValueError if files cannot be brought to what the model takes."""
        if not self.from_files:
            raise ValueError(
                f"The model takes pixels from {self.words}. Put what scales the images into the model, such as a "
                "Normalization layer, or say what a black and a white pixel become: input_range=(low, high)"
            )

    def scaled(self, images: Any) -> Any:
        """Returns images as the model takes them.

        Args:
            images: Float array or tensor `(..., channels)` of stored values divided by the largest that the file's
                type has, in [0, 1], in RGB.
        """
        return self.spread(images[..., ::-1] if self.order == "bgr" else images)

    def spread(self, images: Any) -> Any:
        """Returns such images as `scaled` does, but with their channels in the order in which they are."""
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
    """Returns the one of `RANGES` that pixels from `low` to `high` fill at least in part, or None.

    Bright pixels tell the ranges apart: images whose largest value is 200 are of 0 to 255.
    """
    if low < 0:
        return (-1.0, 1.0) if low >= -1.05 and high <= 1.05 else None
    return next((each for each in RANGES if each[0] == 0 and high <= each[1] * 1.05), None)


def doubt(images: np.ndarray, pixels: Pixels) -> str | None:
    """Returns what is wrong with images whose range a model does not take, or None if they may be right.

    Dark images are right: only values far outside the range are wrong, and fractions of 1 where the model takes
    pixels up to 255 and above. Resizing may leave the range by a little.

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
        f"Multiply them by {pixels.high:g}; round the pixels of an image that is as dark as this"
        if fractions
        else f"Scale them to {pixels.low:g} to {pixels.high:g}"
    )
    return f"The model takes pixels from {pixels.words}. Received: pixels from {least:.4g} to {most:.4g}. {advice}"
