"""Private names of TensorFlow; no other module uses any.

TensorFlow has no public way to do what these functions do, and each docstring says why the function is needed.
`NAMES` lists the private names. If one is gone, the function that relies on it does not fail, but returns the safe
answer.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

#: The version in which all of `NAMES` were last seen.
LAST_SEEN = "2.21.0"

#: Each name with a path to its owner, the function that relies on it, and why.
NAMES = {
    "tf.data.Dataset._inputs": "writes_files: the datasets that a dataset reads from",
    "CacheDataset._filename": "writes_files: whether a cache is in a file or in memory",
    "_SnapshotDataset": "writes_files: the type of a dataset that takes a snapshot",
}


def writes_files(dataset: "tf.data.Dataset") -> bool:
    """Returns whether a dataset or one of its sources writes its elements to files, as a cache or a snapshot does.

    tf.data has no public way to look into a pipeline. If the private names are gone, the answer is True, which
    only makes the caller more careful than it needs to be.
    """
    try:
        return _writes_files(dataset)
    except Exception:  # a later TensorFlow may change these names in any way
        return True


def _writes_files(dataset: "tf.data.Dataset") -> bool:
    kind = type(dataset).__name__
    if "Snapshot" in kind or ("Cache" in kind and dataset._filename.numpy()):
        return True
    return any(map(_writes_files, dataset._inputs()))
