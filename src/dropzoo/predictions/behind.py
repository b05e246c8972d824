"""Writes answers in a thread of its own, while the model computes the next ones."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod

from dropzoo.predictions.answers import Answer
from dropzoo.predictions.summary import Row

_HELD_PIXELS = 2**22  # of answers that wait to be written, which bounds the memory
_HELD = 256  # answers that wait


def written_behind(
    found: Iterable[Answer], write: Callable[[Answer], Row], before: Callable[[], None]
) -> Iterator[tuple[Answer, Row | Exception]]:
    """Yields each answer, in order, with its row or with the error that it or its files have.

    One thread writes, because the pictures of Matplotlib cannot be drawn in several. The answer of tiles computes
    while it is written, so nothing else is computed meanwhile.

    Args:
        found: The answers.
        write: Function that writes the files of an answer and returns its row.
        before: Function that is called before the first answer is written.

    Raises:
        Exception: Errors of `write` and `before` other than ValueError and OSError.
    """
    waiting: deque[tuple[Answer, Future[Row]]] = deque()
    held = 0
    pool = ThreadPoolExecutor(1, "write")
    try:
        for answer in found:
            waiting.append((answer, _begun(pool, answer, write, before)))
            held += prod(answer.size)
            whole = isinstance(answer.strips, list) or answer.error is not None
            while waiting and (waiting[0][1].done() or not whole or held > _HELD_PIXELS or len(waiting) > _HELD):
                held -= prod(waiting[0][0].size)
                yield waiting[0][0], _outcome(waiting.popleft()[1])
        while waiting:
            yield waiting[0][0], _outcome(waiting.popleft()[1])
    finally:
        pool.shutdown(cancel_futures=True)


def _begun(
    pool: ThreadPoolExecutor, answer: Answer, write: Callable[[Answer], Row], before: Callable[[], None]
) -> Future[Row]:
    """Begins to write an answer."""
    failed: Future[Row] = Future()
    try:
        if answer.error is None:
            before()
            return pool.submit(write, answer)
        error = answer.error
        failed.set_exception(error if isinstance(error, (ValueError, OSError)) else ValueError(str(error)))
    except (ValueError, OSError) as other:
        failed.set_exception(other)
    return failed


def _outcome(future: Future[Row]) -> Row | Exception:
    """The row, or the error of a file that cannot be written."""
    try:
        return future.result()
    except (ValueError, OSError) as error:
        return error
