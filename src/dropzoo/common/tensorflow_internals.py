"""Private names of TensorFlow: the only module that uses them.

TensorFlow has no public way to do what these functions do; each says why it is needed. `NAMES` lists what they
rely on. No function here fails where a name is gone: its answer is then the safe one.
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
    """Returns whether a dataset, or one that it reads from, writes its elements to files: a cache or a snapshot.

    tf.data has no public way to look into a pipeline. Where the private names are gone the answer is True, with
    which the caller is as careful as it needs to be.
    """
    try:
        return _writes_files(dataset)
    except Exception:  # whatever a later TensorFlow makes of these names
        return True


def _writes_files(dataset: "tf.data.Dataset") -> bool:
    kind = type(dataset).__name__
    if "Snapshot" in kind or ("Cache" in kind and dataset._filename.numpy()):
        return True
    return any(map(_writes_files, dataset._inputs()))
