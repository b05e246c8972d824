"""Plain passes: layers that cannot be redirected draw by themselves in each sample, with seeds from the sampler.

Layers of Keras draw from a `SeedGenerator`, and so do custom layers that follow Keras' guide. While a sample is
traced, all generators return seeds that are derived from the sampler's seed and the number of the sample. So the
same call twice returns the same answer, and the state of the generators does not change.
"""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from dropzoo.layers.draws.hash import derive_key, mix, u32


@contextlib.contextmanager
def seeded(seed: tf.Tensor, group: int | tf.Tensor, sample: tf.Tensor) -> Iterator[None]:
    """Makes every `SeedGenerator` return the seeds of one sample while the block traces it.

    Inside of a loop or a branch one traced draw stands for many, so the seeds come from TensorFlow there.

    Args:
        seed: Int scalar, the sampler's seed.
        group: Int scalar, the number of the group of samples.
        sample: Int scalar, the number of the sample.
    """
    count, outside = itertools.count(1), tf.compat.v1.get_default_graph()
    word = mix(tf.cast(sample, tf.uint32) + u32(1)) + mix(tf.cast(group, tf.uint32))

    def following(generator: keras.random.SeedGenerator) -> tf.Tensor:
        if tf.compat.v1.get_default_graph() is not outside:
            return tf.cast(tf.random.uniform([2], 0, 2**31 - 1, tf.int32), generator.state.dtype)
        key = derive_key(tf.stack([tf.cast(seed, tf.uint32), mix(word + u32(next(count)))]))
        return tf.cast(tf.bitcast(key, tf.int32) & 0x7FFFFFFF, generator.state.dtype)

    with _instead(following):
        yield


@contextlib.contextmanager
def watched_seeds() -> Iterator[list[keras.random.SeedGenerator]]:
    """Yields a list. Each generator that is asked for a seed inside of a loop or a branch is added to it."""
    found: list[keras.random.SeedGenerator] = []
    outside = tf.compat.v1.get_default_graph()

    def following(generator: keras.random.SeedGenerator) -> tf.Tensor:
        if tf.compat.v1.get_default_graph() is not outside:
            found.append(generator)
        return tf.zeros([2], generator.state.dtype)

    with _instead(following):
        yield found


@contextlib.contextmanager
def _instead(following: Callable[[keras.random.SeedGenerator], tf.Tensor]) -> Iterator[None]:
    """Replaces `SeedGenerator.next` in this thread while the block runs."""
    original, tracer = keras.random.SeedGenerator.next, threading.get_ident()

    def step(self: keras.random.SeedGenerator, ordered: bool = True) -> tf.Tensor:
        return following(self) if threading.get_ident() == tracer else original(self, ordered)

    keras.random.SeedGenerator.next = step
    try:
        yield
    finally:
        keras.random.SeedGenerator.next = original
