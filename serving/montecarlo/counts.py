"""The checks of the arguments that say how many samples are taken, and until when."""

from typing import Any

from dropzoo.common.checks import check_count


def count_or_auto(value: int | str, name: str) -> int:
    """Returns a positive int; the error for other values says that 'auto' is possible too."""
    try:
        return check_count(value, name)
    except ValueError:
        raise ValueError(f"`{name}` must be a positive int or 'auto'. Received: {name}={value!r}") from None


def check_auto(
    num_samples: int | str, tolerance: Any, max_samples: int | None, return_samples: bool
) -> float | dict[str, float]:
    """Returns the tolerance, or raises a ValueError if these options do not go together."""
    if num_samples != "auto" and (tolerance, max_samples) != (None, None):
        raise ValueError(
            "`tolerance` and `max_samples` are for num_samples='auto'. "
            f"Received: num_samples={num_samples!r}, tolerance={tolerance!r}, max_samples={max_samples!r}"
        )
    if num_samples == "auto" and return_samples:
        raise ValueError("`return_samples` needs a number of samples. Received: num_samples='auto'")
    if tolerance is None:
        return 0.01
    for each in tolerance.values() if isinstance(tolerance, dict) else [tolerance]:
        if not isinstance(each, (int, float)) or not each >= 0:
            raise ValueError(f"`tolerance` must be a float of at least 0. Received: tolerance={tolerance!r}")
    return tolerance
