"""How fast the input and the steps are, on data that take no time."""

import numpy as np
import pytest
import tensorflow as tf

from dropzoo import training
from dropzoo.runs.config import RunConfig
from dropzoo.runs.throughput import input_rate, step_times


class Epochs:
    """Two batches of blank images in every epoch."""

    def at_epoch(self, epoch):
        images = np.zeros((16, 8, 8, 1), "float32")
        return tf.data.Dataset.from_tensor_slices((images, np.zeros(16, "int32"))).batch(8)


def blank() -> training.Data:
    names = tuple("0123456789")
    info = training.DataInfo("blank", "classification", 10, names, (8, 8, 1), 16, 0, 0)
    return training.Data(Epochs(), None, None, info)


def test_the_rate_of_the_input_until_the_time_is_over():
    once = input_rate(blank(), 0.0)  # the first epoch is always read
    assert once.first_batch > 0 and once.filling > 0 and once.steady is None
    several = input_rate(blank(), 1.0)
    assert several.steady is not None and several.steady > 0


@pytest.mark.costly(keep=0)
def test_the_time_of_a_step_without_and_with_xla():
    config = RunConfig(model="simple_cnn", data="digits", options={"filters": [2], "dense": [2]})
    times = step_times(config, blank(), steps=2, rounds=1)
    assert set(times) == {False, True} and min(times.values()) > 0
