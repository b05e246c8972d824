"""The line about the devices."""

import pytest
import tensorflow as tf

from dropzoo.runs.devices import prepare_devices


@pytest.mark.parametrize(
    "said, expected", [(None, "all threads"), ("0", "all threads"), ("1", "1 thread"), ("6", "6 threads")]
)
def test_the_threads_of_the_cpu_are_those_of_the_environment(monkeypatch, said, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 0)
    if said is None:
        monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    else:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", said)
    assert prepare_devices() == f"CPU only, {expected} per operation"
