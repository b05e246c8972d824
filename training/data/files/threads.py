"""Work on many files at once, in threads: decoders and file systems let other threads work meanwhile."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_CHUNK = 64


def map_files(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Returns the results of a function for each item, in their order, from several threads."""

    def some(start: int) -> list[R]:  # a task for each file would cost more than a look at its header
        return [function(item) for item in items[start : start + chunk]]

    threads = min(8, 2 * (os.cpu_count() or 1))
    chunk = max(1, min(_CHUNK, len(items) // threads))
    with ThreadPoolExecutor(threads) as pool:
        return [each for part in pool.map(some, range(0, len(items), chunk)) for each in part]
