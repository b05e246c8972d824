"""Requests whose body is an array of NumPy: npy for the only input, npz for several inputs by name."""

import io
import math
import zipfile

import numpy as np
import tensorflow as tf

from dropzoo.serving.server.batching import Arrays
from dropzoo.serving.server.limits import Limits, Refused
from dropzoo.serving.server.requests import check_names, check_numbers, check_same_rows
from dropzoo.serving.server.versions import Signature


def read_arrays(body: bytes, signature: Signature, limits: Limits) -> tuple[Arrays, int]:
    """Returns the inputs of a signature from an npy or npz body, and the pixels of all images together.

    An array without the batch axis is a batch of one.

    Args:
        body: Bytes of the file.
        signature: The signature that the request calls.
        limits: Limits of a request.

    Raises:
        Refused: If the file cannot be read, or the arrays do not fit the signature or the limits.
    """
    names = list(signature.specs)
    if body.startswith(b"PK"):
        given = _members(body, limits)
    elif len(names) != 1:
        raise Refused(400, f"The inputs must be named: send npz with {', '.join(names)}")
    else:
        given = {names[0]: _array(body)}
    check_names(given, names)
    arrays, pixels = {}, 0
    for name, spec in signature.specs.items():
        if spec.dtype == tf.string:
            raise Refused(400, f"{name!r} takes files or strings, not numbers. Call serving_default or predict_mc")
        value = given[name]
        if value.dtype.kind not in "fiu":
            raise Refused(400, f"{name!r} must be an array of numbers. Received: {value.dtype.name}")
        value = value[None] if spec.shape.rank is not None and value.ndim == spec.shape.rank - 1 else value
        arrays[name], found = check_numbers(name, list(value.shape), value, spec, limits, signature)
        pixels += found
    check_same_rows(arrays)
    return arrays, pixels


def _members(body: bytes, limits: Limits) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as file:
            size = sum(each.file_size for each in file.infolist())
            if size > limits.max_body_bytes:
                raise Refused(
                    413, f"The arrays may have {limits.max_body_bytes:,} bytes at most, received {size:,}"
                )
            return {each.removesuffix(".npy"): _array(file.read(each)) for each in file.namelist()}
    except Refused:
        raise
    except Exception:  # whatever a hostile file makes the parser raise
        raise Refused(400, "The npz file cannot be read; it may be truncated") from None


def _array(data: bytes) -> np.ndarray:
    """The array of an npy file. Its header is checked against its size before any memory is taken."""
    try:
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
            raise ValueError
        return np.load(io.BytesIO(data), allow_pickle=False)
    except Exception:  # whatever a hostile file makes the parser raise
        raise Refused(400, "The npy array cannot be read; it may be truncated, or hold objects") from None
