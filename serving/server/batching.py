"""Dynamic batching: requests that come while the model is busy are answered together.

An idle model answers at once, so that a single client waits for nobody. What arrives meanwhile is answered as one
batch. Only when further requests are on their way in does a batch wait for them, for `max_wait_ms` at most.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from dropzoo.serving.server.requests import Arrays, Limits, Refused

Run = Callable[[Arrays], Arrays]


class _Job:
    """One request that waits for its answer."""

    def __init__(self, inputs: Arrays, pixels: int, future: "asyncio.Future[Arrays]") -> None:
        self.inputs, self.pixels, self.future, self.since = inputs, pixels, future, time.monotonic()
        shapes = [array.shape for array in inputs.values()]
        self.rows = shapes[0][0]
        self.kind = [shape[1:] for shape in shapes]  # only images of one size fit into one batch


class Batcher:
    """Calls `run` with the inputs of as many requests as fit, one batch at a time.

    Args:
        run: From arrays to arrays, row by row; called in a thread of `pool`.
        pool: Where it runs.
        limits: Of batches and waiting.
        arriving: How many requests are being read.
        ran: Told the size of each batch.
    """

    def __init__(
        self,
        run: Run,
        pool: Executor,
        limits: Limits,
        arriving: Callable[[], int] = lambda: 0,
        ran: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._run, self._pool, self._limits = run, pool, limits
        self._arriving, self._ran = arriving, ran
        self._waiting: deque[_Job] = deque()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, inputs: Arrays, pixels: int) -> Arrays:
        """The answer to `inputs`, which are so many pixels: of files, their arrays do not tell."""
        if len(self._waiting) >= self._limits.max_queue:
            raise Refused(503, f"The server is busy: {len(self._waiting)} requests are waiting already")
        loop = asyncio.get_running_loop()
        job = _Job(inputs, pixels, loop.create_future())
        self._waiting.append(job)
        if self._task is None:
            self._task = loop.create_task(self._work())
        return await job.future

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._others()
                if jobs := self._take():
                    await self._answer(jobs)
        finally:
            self._task = None

    async def _others(self) -> None:
        """Waits while more are coming in, there is room, and nobody has waited for too long."""
        until = self._waiting[0].since + self._limits.max_wait_ms / 1000
        while self._arriving() and len(self._waiting) < self._limits.max_batch_size:
            if (left := until - time.monotonic()) <= 0:
                return
            await asyncio.sleep(min(left, 0.0005))

    def _take(self) -> list[_Job]:
        """The first request and those like it, as many as fit; those that were cancelled are dropped."""
        taken: list[_Job] = []
        later: deque[_Job] = deque()
        rows = pixels = 0
        for job in self._waiting:
            if job.future.done():
                continue
            room = (
                rows + job.rows <= self._limits.max_batch_size and pixels + job.pixels <= self._limits.max_pixels
            )
            if not taken or (room and job.kind == taken[0].kind):
                taken.append(job)
                rows, pixels = rows + job.rows, pixels + job.pixels
            else:
                later.append(job)
        self._waiting = later
        return taken

    async def _answer(self, jobs: list[_Job]) -> None:
        try:
            whole = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}
            outputs = await asyncio.get_running_loop().run_in_executor(self._pool, self._run, whole)
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
