"""Python's random state, from which Keras takes the seeds of new layers and weights."""

import contextlib
import random
from collections.abc import Iterator


@contextlib.contextmanager
def random_untouched() -> Iterator[None]:
    """Restores Python's random state after the block, so that it does not change the seeds of later layers."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
