"""Python's random state, where Keras takes the seeds of new layers and weights from."""

import contextlib
import random
from collections.abc import Iterator


@contextlib.contextmanager
def random_untouched() -> Iterator[None]:
    """Undoes what the block draws, so that a user's next model gets the seeds it would have got without it."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
