"""Dynamic batching: requests that arrive while the model is busy are answered together.

An idle model answers at once, so a single client never waits for others. Requests that arrive while the model is
busy form one batch. A batch waits for more requests only while some are being received, and for `max_wait_ms` at
most.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from dropzoo.serving.server.limits import Limits, Refused

#: Arrays by the name of an input or an output; the rows are the first axis.
Arrays = dict[str, np.ndarray]
#: A function from the inputs of a batch to its outputs, row by row.
Run = Callable[[Arrays], Arrays]


class _Job:
    """One request that waits for its answer."""

    def __init__(self, inputs: Arrays, pixels: int, future: "asyncio.Future[Arrays]") -> None:
        self.inputs, self.pixels, self.future, self.since = inputs, pixels, future, time.monotonic()
        shapes = [array.shape for array in inputs.values()]
        self.rows = shapes[0][0]
        self.row_shapes = [shape[1:] for shape in shapes]  # only images of the same size fit into one batch


class Batcher:
    """Answers the requests for one signature, one batch at a time.

    Args:
        run: Function from the inputs of a batch to its outputs, row by row. It is called in a thread of `pool`.
        pool: Executor that runs `run`.
        limits: Limits of batches, waiting and the queue.
        arriving: Function that returns how many requests are being received.
        ran: Function that is called with the number of rows of each batch.
    """

    def __init__(
        self,
        run: Run,
        pool: Executor,
        limits: Limits,
        arriving: Callable[[], int] = lambda: 0,
        ran: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self.run = run
        self._pool, self._limits = pool, limits
        self._arriving, self._ran = arriving, ran
        self._waiting: deque[_Job] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """The number of requests that are in no batch yet."""
        return len(self._waiting)

    async def __call__(self, inputs: Arrays, pixels: int) -> Arrays:
        """Returns the answer to one request.

        Args:
            inputs: Arrays by the name of the input.
            pixels: Int, pixels of all images together, which the arrays of encoded files do not show.

        Raises:
            Refused: If the queue is full.
        """
        if self.waiting >= self._limits.max_queue:
            raise Refused(503, f"The server is busy: {self.waiting} requests are waiting already")
        loop = asyncio.get_running_loop()
        job = _Job(inputs, pixels, loop.create_future())
        self._waiting.append(job)
        if self._task is None:
            self._task = loop.create_task(self._work())
        return await job.future

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._wait_for_others()
                if jobs := self._take():
                    await self._answer(jobs)
        finally:
            self._task = None

    async def _wait_for_others(self) -> None:
        """Waits while requests are arriving, the batch has room, and no request has waited for too long."""
        until = self._waiting[0].since + self._limits.max_wait_ms / 1000
        while self._arriving() and self.waiting < self._limits.max_batch_size:
            if (left := until - time.monotonic()) <= 0:
                return
            await asyncio.sleep(min(left, 0.0005))

    def _take(self) -> list[_Job]:
        """Takes the first request and as many like it as fit. It drops requests that were cancelled."""
        taken: list[_Job] = []
        later: deque[_Job] = deque()
        rows = pixels = 0
        for job in self._waiting:
            if job.future.done():
                continue
            room = (
                rows + job.rows <= self._limits.max_batch_size and pixels + job.pixels <= self._limits.max_pixels
            )
            if not taken or (room and job.row_shapes == taken[0].row_shapes):
                taken.append(job)
                rows, pixels = rows + job.rows, pixels + job.pixels
            else:
                later.append(job)
        self._waiting = later
        return taken

    async def _answer(self, jobs: list[_Job]) -> None:
        try:
            whole = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}
            outputs = await asyncio.get_running_loop().run_in_executor(self._pool, self.run, whole)
        except Exception as error:
            if len(jobs) == 1:
                if not jobs[0].future.done():
                    jobs[0].future.set_exception(error)
                return
            for job in jobs:  # one bad request must not fail the others
                await self._answer([job])
            return
        self._ran(sum(job.rows for job in jobs))
        start = 0
        for job in jobs:
            stop = start + job.rows
            if not job.future.done():
                job.future.set_result({name: value[start:stop] for name, value in outputs.items()})
            start = stop
