"""The devices of this machine."""

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
        return f"CPU only, {tf.config.threading.get_intra_op_parallelism_threads() or 'all'} threads per operation"
    names = sorted({tf.config.experimental.get_device_details(gpu).get("device_name", "unknown") for gpu in gpus})
    memory = "memory grows" if grows else "TensorFlow reserves all memory"
    return f"{len(gpus)} GPU{'s' * (len(gpus) > 1)} ({', '.join(names)}, {memory})"
