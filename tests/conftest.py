"""Set-up shared by all tests: a quiet TensorFlow, two logical devices, one seed a test."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest
import tensorflow as tf

# Test processes that run side by side share the cores: with a thread a core each, they wait for each other.
_SHARE = (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
tf.config.threading.set_intra_op_parallelism_threads(max(1, _SHARE))

# Two logical devices, so that every machine can run MirroredStrategy; must happen before TensorFlow starts.
_CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(_CPU, [tf.config.LogicalDeviceConfiguration()] * 2)

# What is imported stays, and is most of what a collection would look through: a tenth of the time of the tests.
gc.collect()
gc.freeze()


@pytest.fixture(autouse=True)
def _fresh_state():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
