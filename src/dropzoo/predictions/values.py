"""The row of an image in the table of a regression: its values, with their deviations and intervals."""

from collections.abc import Mapping, Sequence

import numpy as np

from dropzoo.predictions.summary import Arrays, Row

_ENDS = ("lower", "upper")


def with_deviation(strip: Arrays) -> dict[str, np.ndarray]:
    """Returns statistics with the standard deviation of the samples, if they have a variance."""
    return {**strip, "deviation": np.sqrt(strip["variance"])} if "variance" in strip else dict(strip)


def row_of_values(answer: Arrays, names: Sequence[str] | None) -> Row:
    """Returns the row of an image that has numbers: `value`, or `value_NAME` where there are several.

    Args:
        answer: The statistics of the image: `mean`, `(values,)`, and others by name.
        names: The names of the values, or None.
    """
    known = with_deviation(answer)
    columns = {"value": known["mean"]} | {name: known[name] for name in ("deviation", *_ENDS) if name in known}
    return _row(columns, _endings(names, len(known["mean"])))


class ValueSummary:
    """Collects the row of an image that has numbers for each pixel, from strips of the image.

    Args:
        names: The names of the values, or None.
    """

    def __init__(self, names: Sequence[str] | None) -> None:
        self._names = names
        self._parts: list[tuple[int, Mapping[str, np.ndarray]]] = []

    def add(self, strip: Arrays) -> None:
        """Adds rows of the image.

        Args:
            strip: Statistics `(rows, width, ...)` by name.
        """
        known = with_deviation(strip)
        flat = {name: x.reshape(-1, x.shape[-1]) for name, x in known.items() if x.ndim == 3}
        part = {"mean": flat["mean"].mean(0, dtype=np.float64)}
        part |= {"least": flat["mean"].min(0), "most": flat["mean"].max(0)}
        if "deviation" in flat:
            part |= {"deviation": flat["deviation"].mean(0, dtype=np.float64), "largest": flat["deviation"].max(0)}
        self._parts.append((len(flat["mean"]), part))

    def row(self, size: tuple[int, int]) -> Row:
        """Returns the row.

        Args:
            size: `(height, width)` of the image.
        """
        counts = [count for count, _ in self._parts]

        def all_of(name: str) -> np.ndarray:
            return np.array([part[name] for _, part in self._parts])

        columns = {"value_mean": np.average(all_of("mean"), 0, counts)}
        columns |= {"value_min": all_of("least").min(0), "value_max": all_of("most").max(0)}
        if "deviation" in self._parts[0][1]:
            columns["deviation_mean"] = np.average(all_of("deviation"), 0, counts)
            columns["deviation_max"] = all_of("largest").max(0)
        endings = _endings(self._names, len(columns["value_mean"]))
        return {"height": size[0], "width": size[1], **_row(columns, endings)}


def _row(columns: Mapping[str, np.ndarray], endings: Sequence[str]) -> Row:
    return {f"{name}{end}": float(x) for i, end in enumerate(endings) for name, x in _at(columns, i)}


def _at(columns: Mapping[str, np.ndarray], place: int) -> list[tuple[str, float]]:
    return [(name, values[place]) for name, values in columns.items()]


def _endings(names: Sequence[str] | None, count: int) -> list[str]:
    """The end of the name of a column: nothing for a single value without a name."""
    if names is None and count == 1:
        return [""]
    return [f"_{name}" for name in names or map(str, range(count))]
