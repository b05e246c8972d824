"""The intervals of counts of objects that an export holds, for the page."""

import math
from dataclasses import dataclass
from pathlib import Path

import orjson


@dataclass(frozen=True)
class Count:
    """The calibrated interval of the count of a class: the count in the mask, plus a bias, plus or minus a reach.

    Attributes:
        level: Float in (0, 1), the share of images whose true count lies in its interval.
        bias: Float, what is added to a count.
        constant: Float, the reach around a count of 0.
        slope: Float, how the reach grows with the root of the count.
    """

    level: float
    bias: float
    constant: float
    slope: float

    def around(self, count: int) -> tuple[int, int]:
        """Returns the smallest and the largest whole number in the interval around a count.

        If there is none, the two are the whole numbers around the interval.
        """
        reach = self.constant + self.slope * math.sqrt(count)
        low, high = count + self.bias - reach, count + self.bias + reach
        least, most = math.ceil(low - 1e-9), math.floor(high + 1e-9)
        return (max(least, 0), max(most, 0)) if least <= most else (max(most, 0), max(least, 0))


def read_counts(folder: Path) -> dict[str, Count]:
    """Returns the intervals by the name of the class; none if the export in the folder has none.

    Args:
        folder: Path of the export; `assets.extra/counts.json` holds them.
    """
    try:
        said = orjson.loads((folder / "assets.extra" / "counts.json").read_bytes())["counts"]
        return {
            name: Count(each["level"], each["bias"], *(each["quantile"] * each["weights"][i] for i in (0, 2)))
            for name, each in said.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
