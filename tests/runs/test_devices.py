"""The devices of a run: when they can still be set up, and the line about them."""

import subprocess
import sys

import pytest
import tensorflow as tf

from dropzoo.runs.devices import prepare_devices

# TensorFlow refuses to change this setting once it has started.
NOT_STARTED = """
import tensorflow as tf
from dropzoo.runs.config import RunConfig

for optimizer in ("adam", "adamw:weight_decay=0.05", "sgd:momentum=0.9", "lion"):
    RunConfig(model="unet", data="digit_scenes", dropout=0.3, optimizer=optimizer, clip_norm=1.0, ema=0.99,
              precision="mixed_bfloat16", rate_schedule={"*": "linear:0,0.3"}, label_smoothing=0.1, patience=2)
tf.config.threading.set_intra_op_parallelism_threads(1)
"""


def test_a_config_does_not_start_tensorflow():
    """Otherwise GPUs reserve all memory, and workers cannot connect."""
    done = subprocess.run([sys.executable, "-c", NOT_STARTED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
