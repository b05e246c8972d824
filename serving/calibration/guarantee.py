"""A promise that held-out images allow: its level, its thresholds, and the images that it rests on."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Guarantee:
    """A promise about the images to come, if they come from the same source as the held-out ones.

    Attributes:
        name: `"set"`, `"miss"`, `"false"`, `"error"` or `"interval"`.
        level: Float in (0, 1), the largest risk that is allowed.
        thresholds: Tuple of one float; for masks one float for each class, for intervals one for each output.
        classes: The classes that a promise about masks is about; empty for other promises.
        n: Tuple of the number of held-out images that the promise rests on; for masks one number for each of
            `classes`.
        confidence: The probability, over draws of the held-out images, with which the promise holds. None if it
            holds on average over them.
        floors: For intervals, the number that is added to the deviation of the samples, for each output. For outer
            masks, the lower bound of the expected size of each class, as a share of the image.
        figures: Dict of the costs of the promise on the held-out images, such as the mean size of the sets.
    """

    name: str
    level: float
    thresholds: tuple[float, ...]
    classes: tuple[int, ...] = ()
    n: tuple[int, ...] = ()
    confidence: float | None = None
    floors: tuple[float, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        share, n = f"{self.level * 100:.3g} %", " to ".join(map(str, sorted({min(self.n), max(self.n)})))
        text = {
            "set": f"the true class is missing from the set in at most {share} of images",
            "miss": (
                f"the outer mask misses at most {share} of a class's pixels, on average over the images that "
                "contain the class"
            ),
            "false": (
                f"at most {share} of the inner mask is wrong, on average over the images in which the model finds "
                "the class"
            ),
            "error": f"at most {share} of the answers that are not deferred are wrong",
            "interval": f"at most {share} of the values lie outside their intervals",
        }[self.name]
        sure = f", with a confidence of {self.confidence:g}" if self.confidence else ""
        return f"{self.name}: {text}{sure} ({n} held-out images)"
