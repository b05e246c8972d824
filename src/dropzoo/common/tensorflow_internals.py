"""Private names of TensorFlow; no other module uses any.

TensorFlow has no public way to do what these functions do, and each docstring says why the function is needed.
`NAMES` lists the private names. If one is gone, the function that relies on it does not fail, but returns the safe
answer.
"""

import contextlib
import functools
import inspect
from collections.abc import Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

#: The oldest and the newest version in which all of `NAMES` were seen. The bounds in pyproject.toml enclose them.
FIRST_SEEN, LAST_SEEN = "2.18.0", "2.21.0"

#: Each name with a path to its owner, the function that relies on it, and why.
NAMES = {
    "tf.data.Dataset._inputs": "writes_files: the datasets that a dataset reads from",
    "CacheDataset._filename": "writes_files: whether a cache is in a file or in memory",
    "_SnapshotDataset": "writes_files: the type of a dataset that takes a snapshot",
    "tf.recompute_grad.inner": "recomputed_calls: the function that runs the forward pass",
    "tf.recompute_grad.inner_recompute_grad": "recomputed_calls: the function that runs it again",
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


def recomputed_calls() -> Iterator[tuple[object, bool]]:
    """Yields the calls of `tf.recompute_grad` that are running, the innermost first.

    TensorFlow does not show whether a function runs in the forward pass or again for the gradient, nor which call
    runs again. Both passes of a call have the same dict of keyword arguments, so this dict identifies the call. If
    the private names are gone, no call is found, and a recomputation draws new masks.

    Yields:
        The object that identifies the call, and whether the call runs again.
    """
    again_by_code = codes_of_recompute_grad()
    frame = inspect.currentframe()
    while frame is not None:
        again = again_by_code.get(frame.f_code)
        if again is not None and isinstance(call := frame.f_locals.get("kwargs"), dict):
            yield call, again
        frame = frame.f_back


@functools.cache
def codes_of_recompute_grad() -> dict[CodeType, bool]:
    """Returns the code of the forward pass (False) and of the recomputation (True)."""
    import tensorflow as tf

    names = {"inner": False, "inner_recompute_grad": True}
    found = {}
    pending: list[Any] = [tf.recompute_grad.__code__]
    for code in pending:
        if isinstance(code, CodeType):
            pending += code.co_consts
            if code.co_name in names:
                found[code] = names[code.co_name]
    return found if len(found) == len(names) else {}


@contextlib.contextmanager
def inlined(graph: Any) -> Iterator[None]:
    """Lets TensorFlow inline all functions of a traced graph during the block.

    Keras compiles some operations by XLA, such as convolutions of several groups. TensorFlow keeps these as
    functions, which no other runtime can call. If the private names are gone, the functions stay.

    Args:
        graph: The graph of a concrete function.
    """
    original = graph.as_graph_def

    def definition(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        functions = found.library.function
        for each in (*found.node, *functions, *(node for function in functions for node in function.node_def)):
            for name in ("_XlaMustCompile", "_noinline"):
                each.attr.pop(name, None)
        return found

    graph.as_graph_def = definition
    try:
        yield
    finally:
        del graph.as_graph_def
