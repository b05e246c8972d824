"""Reads the bodies of requests into arrays, with all checks, and writes arrays into the body of an answer."""

import base64
import binascii
import codecs
import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import tensorflow as tf

from dropzoo.common.checks import did_you_mean
from dropzoo.common.images import sides_of
from dropzoo.common.pixels import Pixels, doubt
from dropzoo.common.words import count_of
from dropzoo.serving.server.batching import Arrays
from dropzoo.serving.server.bodies import is_base64
from dropzoo.serving.server.files import check_bits, check_image, how_to_convert, is_deep
from dropzoo.serving.server.hints import about_files, about_shape
from dropzoo.serving.server.limits import Limits, Refused
from dropzoo.serving.server.versions import Signature

_DEEPEST = 16  # levels of nested lists
_KEYS = {"signature_name", "instances", "inputs"}
_log = logging.getLogger("dropzoo.serving")


@dataclass(frozen=True)
class Predict:
    """A Predict request of TensorFlow Serving's REST API.

    Attributes:
        signature_name: Name of the signature to call.
        form: `"instances"` for rows, or `"inputs"` for columns.
        value: The rows or columns, as they were in the JSON.
    """

    signature_name: str
    form: str
    value: Any


def read_predict(body: bytes, signature_name: str | None = None) -> Predict:
    """Returns the Predict request in a body.

    Args:
        body: Bytes of JSON.
        signature_name: Name of the signature that the address asks for; None if it asks for none.

    Raises:
        Refused: If the body is not a Predict request, or asks for a signature other than that of the address.
    """
    try:
        request = orjson.loads(body.removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError as error:
        if body.startswith(b"\x1f\x8b"):
            raise Refused(400, "The body is gzip. Send it with the header Content-Encoding: gzip") from None
        if hint := how_to_convert(body):
            raise Refused(400, "JSON Parse error: the body is not JSON", hint) from None
        reason = "; NaN and Infinity are not JSON" if b"NaN" in body or b"Infinity" in body else ""
        # What is not even text may be bare numbers, of which neither the type nor the shape is known.
        hint = (
            "" if _is_text(body) else "The body is not text. Send an array as NumPy saves it (application/x-npy)"
        )
        raise Refused(400, f"JSON Parse error: {error}{reason}", hint) from None
    if not isinstance(request, dict):
        hint = 'Put it into one: {"instances": [...]}' if isinstance(request, list) else ""
        raise Refused(400, "JSON Parse error: the body must be an object", hint)
    if unknown := request.keys() - _KEYS:
        near = did_you_mean(sorted(unknown)[0], _KEYS).strip()
        hint = near or 'The form is {"instances": [...]}'
        raise Refused(400, f"JSON object has unknown keys: {', '.join(map(repr, sorted(unknown)))}"[:150], hint)
    if len(request.keys() & {"instances", "inputs"}) != 1:
        raise Refused(400, "JSON object must have exactly one of 'instances' and 'inputs'")
    name = request.get("signature_name", signature_name or "serving_default")
    if not isinstance(name, str) or (signature_name and name != signature_name):
        expected = repr(signature_name) if signature_name else "a string"
        raise Refused(400, f"'signature_name' must be {expected} here, or left out")
    form = "instances" if "instances" in request else "inputs"
    return Predict(name, form, request[form])


def _is_text(body: bytes) -> bool:
    try:
        return "\0" not in body.decode()
    except UnicodeDecodeError:
        return False


def to_arrays(request: Predict, signature: Signature, limits: Limits) -> tuple[Arrays, int]:
    """Returns the inputs of a signature, and the pixels of all images together.

    Args:
        request: Predict request, in row or in columnar form.
        signature: The signature that the request calls.
        limits: Limits of a request.

    Returns:
        The arrays by the name of the input, and the number of pixels.

    Raises:
        Refused: If the inputs do not fit the signature or the limits.
    """
    value, names = request.value, list(signature.specs)
    if request.form == "instances":
        if not isinstance(value, list) or not value:
            raise Refused(400, "'instances' must be a list with at least one instance")
        if all(isinstance(row, dict) and "b64" not in row for row in value):
            for row in value:
                check_names(row, names)
            value = {name: [row[name] for row in value] for name in names}
    if not isinstance(value, dict) or "b64" in value:
        if len(names) != 1:
            raise Refused(400, f"The inputs must be named: {', '.join(names)}")
        value = {names[0]: value}
    check_names(value, names)
    arrays, pixels = {}, 0
    for name, spec in signature.specs.items():
        read = _numbers if spec.dtype != tf.string else _encoded if name in signature.files else _texts
        arrays[name], found = read(name, value[name], spec, limits, signature)
        pixels += found
    check_same_rows(arrays)
    return arrays, pixels


def check_same_rows(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises Refused if the inputs of a request are not equally many."""
    if len({len(array) for array in arrays.values()}) != 1:
        raise Refused(400, "The inputs must have the same batch size")


def check_names(given: Mapping[str, Any], names: list[str]) -> None:
    """Raises Refused if the inputs of a request are not those of the signature."""
    if given.keys() != set(names):
        found = ", ".join(map(repr, sorted(given)[:8])) or "none"
        if len(given) > 8:
            found += f" and {count_of(len(given) - 8, 'other')}"
        # JSON.stringify writes a typed array as an object with a key for each number.
        hint = "For a typed array of JavaScript, send Array.from(array)" if given.keys() >= {"0", "1"} else ""
        hint = 'For a file in base64, write {"b64": "..."}' if "base64" in given else hint
        raise Refused(400, f"The inputs must be {', '.join(map(repr, names))}; received {found}", hint)


def _check_rows(rows: int, limits: Limits) -> None:
    if rows > limits.max_rows:
        raise Refused(413, f"A request may have {limits.max_rows:,} rows at most; received {rows:,}. Send fewer")


def _check_pixels(pixels: int, rows: int, limits: Limits, least: int) -> None:
    """Refuses too many pixels. A single image of the size to which the model resizes is always accepted."""
    if pixels > max(limits.max_pixels, least):
        raise Refused(
            413,
            f"A request may have {limits.max_pixels:,} pixels at most (after resizing, if the model enlarges "
            f"images); received {pixels:,} (images: {rows:,}). Send fewer or smaller images",
        )


def _flat(name: str, value: Any) -> tuple[list[int], list[int | float]]:
    """The shape of nested lists and the numbers in them.

    NumPy is not used for this, because it would turn strings and booleans into numbers, or all numbers into
    strings as long as the longest one.
    """
    shape: list[int] = []
    level = [value]
    while (kinds := set(map(type, level))) == {list} and len(shape) < _DEEPEST:
        lengths = set(map(len, level))
        if len(lengths) != 1:
            break
        shape += lengths
        level = list(itertools.chain.from_iterable(level))
    if list in kinds:
        raise Refused(400, f"{name!r} must be a regular array, with rows of one length")
    if not kinds <= {int, float}:
        raise Refused(400, f"{name!r} must be an array of numbers")
    return shape, level


def _numbers(
    name: str, value: Any, spec: tf.TensorSpec, limits: Limits, signature: Signature
) -> tuple[np.ndarray, int]:
    if found := _file_in(value):
        hint = about_files(signature.names, signature.name)
        raise Refused(400, f"{name!r} must be an array of numbers. Received: {found}", hint)
    shape, numbers = _flat(name, value)
    return check_numbers(name, shape, numbers, spec, limits, signature)


def _file_in(value: Any) -> str:
    """Names the encoded file that a client sends where numbers belong, judged by the first row; empty if none."""
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, str) and first.startswith("data:"):
        return "a data URL, in which base64 follows the comma"
    is_text = isinstance(first, str) and is_base64(first[:8].encode())
    return "a file in base64" if is_text or (isinstance(first, dict) and "b64" in first) else ""


def pixels_of(shape: Sequence[int]) -> int:
    """Returns the number of pixels of one row; for a row that is not an image, at most the number of values."""
    return math.prod(sides_of(shape) if len(shape) == 4 else shape[1:3])


def check_numbers(
    name: str,
    shape: Sequence[int],
    numbers: Sequence[int | float] | np.ndarray,
    spec: tf.TensorSpec,
    limits: Limits,
    signature: Signature,
) -> tuple[np.ndarray, int]:
    """Returns numbers as the array that a signature takes, and the pixels of all images together.

    Args:
        name: Name of the input.
        shape: The shape of the numbers.
        numbers: The numbers, flat or in that shape.
        spec: Shape and dtype of the input.
        limits: Limits of a request.
        signature: The signature.

    Raises:
        Refused: If the numbers do not fit the signature or the limits.
    """
    if 0 in shape or not spec.shape.is_compatible_with(shape):
        wanted = ", ".join("any" if n is None else str(n) for n in spec.shape)
        message = f"{name!r} must have the shape ({wanted}); received {tuple(shape)}"
        raise Refused(400, message, about_shape(name, shape, spec))
    _check_rows(shape[0], limits)
    pixels = shape[0] * max(pixels_of(shape), signature.least)
    _check_pixels(pixels, shape[0], limits, signature.least)
    array, wanted = np.array(numbers).reshape(shape), spec.dtype.as_numpy_dtype
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(wanted)
    if not np.isfinite(cast).all():
        raise Refused(400, f"{name!r} must be finite numbers")
    if cast.dtype.kind in "iu" and not np.array_equal(cast, array):
        raise Refused(400, f"{name!r} must be whole numbers that fit {spec.dtype.name}")
    if cast.dtype.kind == "f":
        _check_range(name, cast, signature)
    return cast, pixels


def _check_range(name: str, images: np.ndarray, signature: Signature) -> None:
    """Raises Refused for images of another range. If the range is only assumed, it logs one warning instead."""
    known = signature.pixels.get(name)
    text = known and doubt(images, known)
    if known and text and known.source:
        shown = known.source.startswith("its ")
        way = ". If the model was trained on such pixels, export it with their `input_range`" if shown else ""
        raise Refused(400, f"{name!r}: {text}{way}")
    if text and name not in signature.doubted:
        signature.doubted.add(name)
        _log.warning("%s: %s. If the images are right, export the model with their `input_range`", name, text)


def _texts(
    name: str, value: Any, spec: tf.TensorSpec, limits: Limits, signature: Signature
) -> tuple[np.ndarray, int]:
    """Strings, or bytes from `{"b64": ...}`, in nested lists of the shape that the signature takes."""
    shape: list[int] = []
    level = [value]
    while set(map(type, level)) == {list} and len(set(map(len, level))) == 1 and len(shape) < _DEEPEST:
        shape.append(len(level[0]))
        level = list(itertools.chain.from_iterable(level))
    if not level or not spec.shape.is_compatible_with(shape):
        wanted = ", ".join("any" if n is None else str(n) for n in spec.shape)
        raise Refused(400, f"{name!r} must be strings of the shape ({wanted}); received {tuple(shape)}")
    _check_rows(shape[0], limits)
    texts = [each.encode() if isinstance(each, str) else _from_base64(name, each) for each in level]
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape), 0


def _from_base64(name: str, value: Any) -> bytes:
    """The bytes in `{"b64": ...}`, the form in which TensorFlow Serving's clients send them."""
    text = value.get("b64") if isinstance(value, dict) and len(value) == 1 else None
    if isinstance(text, str) and text.startswith("data:"):
        raise Refused(400, f"{name!r} must only contain base64. Leave out {text.partition(',')[0][:40] + ','!r}")
    try:
        return base64.b64decode(text, validate=True)  # type: ignore[arg-type]
    except (TypeError, ValueError, binascii.Error):
        hint = "Write it with + and /, padded by =, and without line breaks" if isinstance(text, str) else ""
        raise Refused(400, f'{name!r} must be {{"b64": ...}}, with base64 text', hint) from None


def _encoded(
    name: str, value: Any, spec: tf.TensorSpec, limits: Limits, signature: Signature
) -> tuple[np.ndarray, int]:
    """Files of images from `{"b64": ...}`."""
    if not isinstance(value, list) or not value:
        raise Refused(400, f'{name!r} must be a list of {{"b64": ...}}')
    _check_rows(len(value), limits)
    files, pixels = [], 0
    for each in value:
        files.append(_from_base64(name, each))
        pixels += max(math.prod(check_image(files[-1], limits).size), signature.least)
        check_bits(is_deep(files[-1]), signature.pixels.get(name, Pixels()))
    _check_pixels(pixels, len(files), limits, signature.least)
    return np.array(files, object), pixels


def check_finite(outputs: Arrays) -> None:
    """Raises Refused if a number of an answer is not finite: a mask made of it would look like an answer."""
    if not all(np.isfinite(value).all() for value in outputs.values() if value.dtype.kind == "f"):
        raise Refused(500, "The model's answer is not finite")


def to_json(outputs: Arrays, form: str) -> bytes:
    """Returns an answer as JSON.

    Args:
        outputs: Arrays by the name of the output, with finite numbers, because JSON has no others.
        form: Form of the request: `"instances"` for rows, `"inputs"` for columns.
    """
    outputs = {name: np.ascontiguousarray(value) for name, value in outputs.items()}
    if form == "inputs":
        answer: Any = {"outputs": next(iter(outputs.values())) if len(outputs) == 1 else outputs}
    elif len(outputs) == 1:
        answer = {"predictions": next(iter(outputs.values()))}
    else:
        columns = outputs.values()
        answer = {"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
