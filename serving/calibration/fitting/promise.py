"""The base class of the promises, and the terms of a promise."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dropzoo.common.words import count_of
from dropzoo.serving.calibration.fitting import bounds
from dropzoo.serving.calibration.guarantee import Guarantee

#: The statistics that `MonteCarlo` returns, as tensors by name.
Answers = Mapping[str, tf.Tensor]


class Terms(NamedTuple):
    """The terms of a promise.

    Attributes:
        level: Float in (0, 1), the largest risk that is allowed.
        confidence: Float in (0, 1), for promises that need one.
        kind: The output kind.
        width: Int, the length of the last axis of the output.
        classes: The classes (of the output's last axis) that the promise is about.
        maps: Bool, whether an answer has several positions, as a mask has.
    """

    level: float
    confidence: float
    kind: str
    width: int
    classes: tuple[int, ...]
    maps: bool


class Promise:
    """Base of the promises.

    Args:
        name: The name of the guarantee.
        terms: The terms of the promise.
    """

    def __init__(self, name: str, terms: Terms) -> None:
        self.name, self.terms = name, terms

    def prepare(self, out: Answers, labels: np.ndarray) -> None:
        """Reads images that the promise does not rest on, to choose its free parameters."""

    def add(self, out: Answers, labels: np.ndarray) -> None:
        """Reads images that the promise rests on."""
        raise NotImplementedError

    def settle(self) -> Guarantee:
        """Returns the guarantee, or raises a ValueError if the images do not allow it."""
        raise NotImplementedError

    def check(self, n: int, which: str = "") -> None:
        """Raises a ValueError if n images are too few for the level.

        Args:
            n: Int, the number of images that the promise rests on.
            which: Str, which images these are, for the error.
        """
        least = bounds.least_level(n, self.confidence)
        if self.terms.level < least - 1e-12:
            raise ValueError(
                f"Too few images for `{self.name}` at the level {self.terms.level:g}: "
                f"{count_of(n, f'image{which} is', f'images{which} are')} left for it, so the lowest possible "
                f"level is {math.ceil(least * 1e4) / 1e4:g}. Use more images, or ask for a higher level"
            )

    @property
    def confidence(self) -> float | None:
        """The confidence with which the promise holds; None if it holds on average."""
        return None
