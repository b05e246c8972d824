"""How fast the input is, how fast the steps are, and so which of the two waits for the other."""

import itertools
import statistics
import time
from dataclasses import dataclass

import keras
import tensorflow as tf

from dropzoo import models, training
from dropzoo.runs.run import RunConfig


@dataclass(frozen=True)
class InputRate:
    """Of the pipeline alone: reading, augmentation, batching.

    Attributes:
        first_batch: Seconds until the first batch of the first epoch is there.
        filling: Images a second of the first epoch, which reads and decodes.
        steady: Images a second afterwards, out of the cache; None where the time ended before.
    """

    first_batch: float
    filling: float
    steady: float | None


def input_rate(data: training.Data, seconds: float = 10.0) -> InputRate:
    """Draws training batches for about so many seconds, at least those of one epoch's first ten."""
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
    """Seconds a training step takes by itself, without and with XLA, always on the same batch.

    Medians of interleaved rounds of `steps` steps in one execution; what is compiled first is not counted.
    """
    batch = next(iter(data.train.at_epoch(0)))
    same = tf.data.Dataset.from_tensors(batch).repeat(steps)
    shape = {"input_shape": data.info.input_shape, "num_classes": data.info.num_classes}
    trainers = {}
    for jit_compile in (False, True):
        keras.utils.set_random_seed(config.seed)
        model = models.build_model(config.model, dropout=config.dropout, **{**shape, **config.options})
        optimizer = keras.optimizers.Adam(config.learning_rate)
        trainers[jit_compile] = training.Trainer(
            model, optimizer, jit_compile=jit_compile, steps_per_execution=steps
        )
    times: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds + 1):
        for jit_compile, trainer in trainers.items():
            start = time.perf_counter()
            trainer.fit(same, verbose=0)
            if number:
                times[jit_compile].append((time.perf_counter() - start) / steps)
    return {jit_compile: statistics.median(values) for jit_compile, values in times.items()}
