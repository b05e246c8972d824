"""Writes answers in a thread of its own, while the model computes the next ones."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod

from dropzoo.predictions.answers import Answer
from dropzoo.predictions.summary import Row

_HELD_VALUES = 2**23  # pixels times classes of answers that wait to be written, which bounds the memory
_HELD = 256  # answers that wait


def written_behind(
    found: Iterable[Answer], write: Callable[[Answer], Row], before: Callable[[], None]
) -> Iterator[tuple[Answer, Row | Exception]]:
    """Yields each answer, in order, with its row or with the error that it or its files have.

    One thread writes at a time, because the pictures of Matplotlib cannot be drawn in several. The answer of tiles
    computes while it is written, so the caller's thread writes it: an interrupt then stops it within a tile.

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
            whole = isinstance(answer.strips, list) or answer.error is not None
            if whole:
                waiting.append((answer, _begun(pool, answer, write, before)))
                held += _values(answer)
            while waiting and (waiting[0][1].done() or not whole or held > _HELD_VALUES or len(waiting) > _HELD):
                held -= _values(waiting[0][0])
                row = _outcome(waiting[0][1])
                yield waiting.popleft()[0], row
            if not whole:
                yield answer, _written_now(answer, write, before)
        while waiting:
            row = _outcome(waiting[0][1])
            yield waiting.popleft()[0], row
    except (Exception, KeyboardInterrupt):
        while waiting:  # what is computed already keeps its files and its row
            yield waiting[0][0], _outcome(waiting.popleft()[1])
        raise
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


def _values(answer: Answer) -> int:
    """How many numbers one statistic of an answer has."""
    strips = answer.strips
    classes = strips[0][1]["mean"].shape[-1] if isinstance(strips, list) and strips else 1
    return prod(answer.size) * classes


def _written_now(answer: Answer, write: Callable[[Answer], Row], before: Callable[[], None]) -> Row | Exception:
    """The row of an answer that computes while it is written, or the error of its file."""
    try:
        before()
        return write(answer)
    except (ValueError, OSError) as error:
        return error


def _outcome(future: Future[Row]) -> Row | Exception:
    """The row, or the error of a file that cannot be written."""
    try:
        return future.result()
    except (ValueError, OSError) as error:
        return error
