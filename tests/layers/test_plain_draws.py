"""The draws without XLA use only operations that other runtimes have, and give the same masks to the bit."""

import numpy as np
import pytest
import tensorflow as tf

from dropzoo.layers.draws.hash import keep_mask
from dropzoo.layers.draws.samples import SampleDraw, sample_bits


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 30, 64, 1000])
def test_bits_are_those_of_the_compiled_draws(count):
    random = np.random.default_rng(count)
    key, rows = (tf.constant(random.integers(0, 2**32, n, dtype="uint32")) for n in (2, 3))
    for sample in {0, count // 2, count - 1}:
        plain, wanted = (
            sample_bits((3, 5, 4), key, rows, tf.constant(sample), count, balanced=True, plain=plain).numpy()
            for plain in (True, False)
        )
        np.testing.assert_array_equal(plain, wanted)


def draw(plain, balanced=False):
    rows = tf.zeros([2], tf.uint32)
    return SampleDraw("a", tf.constant(3, tf.int64), 0, rows, tf.constant(1), 4, balanced, plain)


@pytest.mark.parametrize("rate", [0.0, 1e-7, 0.3, 0.5, 0.999])
def test_masks_compare_as_unsigned_numbers_do(rate):
    kept = draw(True).keep((2, 1000), tf.constant(rate))
    np.testing.assert_array_equal(kept, keep_mask(draw(False).bits((2, 1000)), rate))


def test_normal_draws():
    np.testing.assert_allclose(draw(True).normal((2, 5000)), draw(False).normal((2, 5000)), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["bits", "uniform", "normal", "keep"])
def test_only_operations_that_other_runtimes_have(name):
    more = [tf.constant(0.3)] if name == "keep" else []
    for balanced in (False, True):
        drawn = draw(True, balanced)
        function = tf.function(lambda drawn=drawn: getattr(drawn, name)((2, 8), *more), autograph=False)
        used = {node.op for node in function.get_concrete_function().graph.as_graph_def().node}
        assert not used & {"BitwiseAnd", "BitwiseOr", "Erfinv"}
