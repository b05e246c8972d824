"""Measures how fast the input is and how fast the steps are, to see which of the two waits for the other."""

import itertools
import statistics
import time
from dataclasses import dataclass

import tensorflow as tf

from dropzoo import training
from dropzoo.runs.config import RunConfig
from dropzoo.runs.inputs import fed


@dataclass(frozen=True)
class InputRate:
    """The speed of the input pipeline alone: reading, augmentation and batching.

    Attributes:
        first_batch: Float, seconds until the first batch of the first epoch is ready.
        filling: Float, images a second in the first epoch.
        steady: Float, images a second in later epochs; None if the time ended in the first epoch.
    """

    first_batch: float
    filling: float
    steady: float | None


def input_rate(data: training.Data, seconds: float = 10.0) -> InputRate:
    """Measures the speed of the input for about `seconds` seconds, over at least ten batches of each epoch.

    An epoch of fewer batches is measured to its end.
    """
    start = time.perf_counter()
    first_batch, rates = 0.0, []
    for epoch in itertools.count():
        images, began = 0, time.perf_counter()
        for number, (batch, _) in enumerate(data.train.at_epoch(epoch)):
            images += len(batch)
            if not first_batch:
                first_batch = time.perf_counter() - start
            if number >= 9 and time.perf_counter() - start > seconds:
                break
        rates.append(images / (time.perf_counter() - began))
        if time.perf_counter() - start > seconds:
            return InputRate(first_batch, rates[0], statistics.median(rates[1:]) if len(rates) > 1 else None)
    raise AssertionError("unreachable")


def step_times(config: RunConfig, data: training.Data, steps: int = 20, rounds: int = 3) -> dict[bool, float]:
    """Measures training steps by themselves: all of them take the same batch, which is in memory.

    The times are medians over interleaved rounds, each of which runs `steps` steps in one execution. A first
    round, which compiles, is left out.

    Args:
        config: The config of the run to time.
        data: The data of the run.
        steps: Int above 0, the number of steps in one round.
        rounds: Int above 0, the number of rounds that count.

    Returns:
        Seconds per step, by `jit_compile`.
    """
    built = {jit_compile: config.build(data.info) for jit_compile in (False, True)}
    batch = next(iter(fed(data.train, built[False]).at_epoch(0)))
    same = tf.data.Dataset.from_tensors(batch).repeat(steps)
    trainers = {
        jit_compile: config.trainer(model, data.info, jit_compile=jit_compile, steps_per_execution=steps)
        for jit_compile, model in built.items()
    }
    times: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds + 1):
        for jit_compile, trainer in trainers.items():
            start = time.perf_counter()
            trainer.fit(same, verbose=0)
            if number:
                times[jit_compile].append((time.perf_counter() - start) / steps)
    return {jit_compile: statistics.median(values) for jit_compile, values in times.items()}
