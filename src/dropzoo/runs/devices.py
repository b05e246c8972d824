"""The devices of this machine."""

import os

import tensorflow as tf


def prepare_devices() -> str:
    """Lets GPUs take memory as they need it, and returns a line that says which devices there are.

    Call it before TensorFlow first uses a GPU; afterwards the memory setting stays as it is.

    Returns:
        Str, for example `"1 GPU (NVIDIA A100, memory grows)"`.
    """
    gpus, grows = tf.config.list_physical_devices("GPU"), True
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # TensorFlow uses the GPU already, so the setting is fixed
            grows = bool(tf.config.experimental.get_memory_growth(gpu))
    if not gpus:
        # If the program has not set the number, TensorFlow reads the environment variable.
        said = os.environ.get("TF_NUM_INTRAOP_THREADS", "").strip()
        said = said if said.isdecimal() and int(said) else "all"
        threads = str(tf.config.threading.get_intra_op_parallelism_threads() or said)
        return f"CPU only, {threads} thread{'s' * (threads != '1')} per operation"
    names = sorted({tf.config.experimental.get_device_details(gpu).get("device_name", "unknown") for gpu in gpus})
    memory = "memory grows" if grows else "TensorFlow reserves all memory"
    return f"{len(gpus)} GPU{'s' * (len(gpus) > 1)} ({', '.join(names)}, {memory})"
