"""Exports in one file, for runtimes other than TensorFlow."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from dropzoo.common.checks import check_choice
from dropzoo.common.files import whole_file
from dropzoo.serving.export import litert_file, onnx_file, openvino_file
from dropzoo.serving.export.inputs import Input
from dropzoo.serving.export.parts import Parts, Unrolled
from dropzoo.serving.export.unsupported import UnsupportedError, check_texts, refusal

FORMATS = ("saved_model", "onnx", "litert", "openvino")
_SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}
_PACKAGES = {
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
    "litert": ("ai_edge_litert",),
    "openvino": ("onnx", "openvino", "tf2onnx"),
}
_PRECISIONS = {
    "saved_model": ("float32",),
    "onnx": ("float32", "float16"),
    "litert": ("float32", "float16", "int8"),
    "openvino": ("float32", "float16"),
}
# A sample may move a unit across a threshold that depends on activations, where two runtimes round differently.
_CLOSE, _SHARE = 1e-3, 0.01
_LENGTH, _LENGTH_OF_VOLUMES = (76, 92), 20  # of axes that the model leaves open; no multiples of 16, on purpose


def check_format(format: str, precision: str, path: Path, overwrite: bool) -> None:
    """Raises an error if an export in this format cannot be written to this path.

    Args:
        format: One of `FORMATS`.
        precision: The precision of the weights.
        path: Path of the file; it is not checked for `"saved_model"`, apart from its suffix.
        overwrite: Bool, whether an existing file may be replaced.

    Raises:
        ValueError: If an argument is bad, they do not go together, or the file exists.
        ImportError: If a package is missing.
    """
    check_choice(format, "format", FORMATS)
    if precision not in _PRECISIONS[format]:
        only = " (int8 needs `examples`, in Python)" if "int8" in _PRECISIONS[format] else ""
        one_of = "one of " if len(_PRECISIONS[format]) > 1 else ""
        raise ValueError(
            f"`precision` must be {one_of}{', '.join(_PRECISIONS[format])}{only} for format={format!r}. "
            f"Received: precision={precision!r}"
        )
    meant = next((name for name, suffix in _SUFFIXES.items() if path.suffix == suffix), "saved_model")
    if format == "saved_model":
        if meant != format:
            raise ValueError(
                f"`path` of a SavedModel is a folder. Pass format={meant!r} for a {path.suffix} file. "
                f"Received: path={str(path)!r}"
            )
        return
    if meant != format:
        raise ValueError(f"`path` must end in {_SUFFIXES[format]!r} for format={format!r}. Received: {path}")
    if missing := [name for name in _PACKAGES[format] if importlib.util.find_spec(name) is None]:
        raise ImportError(
            f"An export with format={format!r} needs {', '.join(missing)}: pip install '.[{format}]'"
        )
    for each in [path, openvino_file.weights_of(path)] if format == "openvino" else [path]:
        if each.exists() and (each.is_dir() or not overwrite):
            raise ValueError(
                f"{each} exists already; choose another path, or pass overwrite=True to replace a file"
            )


def write_file(
    path: Path,
    format: str,
    precision: str,
    signatures: Unrolled,
    facts: Mapping[str, object],
    held: tf.Module,
    examples: Sequence[Mapping[str, np.ndarray]],
) -> Path:
    """Writes an export to one file, after a check that the runtime gives the answers of TensorFlow.

    Args:
        path: Path of the file.
        format: One of `FORMATS`, except `"saved_model"`.
        precision: The precision of the weights.
        signatures: The signatures of the export.
        facts: The facts that the file holds about itself, by name.
        held: The variables that the signatures read.
        examples: Batches of inputs, for `"int8"`.

    Raises:
        ValueError: If the format cannot express the model.
        RuntimeError: If the runtime gives different answers from TensorFlow.
    """
    check_texts(signatures.inputs, signatures.models, format)
    texts = {name: json.dumps(value) for name, value in facts.items()}
    try:
        content = _content_of(path, format, precision, signatures, texts, held, examples)
    except UnsupportedError as error:
        raise refusal(error, signatures.models, format, signatures.samples) from error
    if content is not None:
        with whole_file(path) as unfinished:
            unfinished.write_bytes(content)
    return path


def _content_of(
    path: Path,
    format: str,
    precision: str,
    signatures: Unrolled,
    texts: Mapping[str, str],
    held: tf.Module,
    examples: Sequence[Mapping[str, np.ndarray]],
) -> bytes | None:
    """The content of a file after its check; None for OpenVINO, whose two files are written here."""
    if format == "litert":
        functions = signatures.looped()
        content = litert_file.content_of(functions, held, precision, texts, examples)
        given = examples[0] if precision == "int8" else example_of(signatures.inputs)
        wanted = [function(**_tensors(given)) for function in functions.values()]
        found = litert_file.run(content, given)
        compare({name: x.numpy() for each in wanted for name, x in each.items()}, found, format, precision)
    else:
        parts = signatures.parts()
        given = example_of(signatures.inputs)
        if format == "openvino":

            def accept(file: Path) -> None:
                compare(_by_tensorflow(parts, given), openvino_file.run(file, given), format, precision)

            openvino_file.write(path, parts, precision, texts, accept)
            return None
        content = onnx_file.content_of(parts, precision, texts)
        compare(_by_tensorflow(parts, given), onnx_file.run(content, given), format, precision)
    return content


def _tensors(given: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(x) for name, x in given.items()}


def example_of(inputs: Sequence[Input]) -> dict[str, np.ndarray]:
    """Returns a random batch of two for the check.

    Images have the range of the model. Other integers are 0 or 1, since a table of tokens has these at least.

    Args:
        inputs: The inputs.
    """
    random, given = np.random.default_rng(0), {}
    for each in inputs:
        spec = each.spec
        dtype = spec.dtype.as_numpy_dtype
        lengths = [_LENGTH_OF_VOLUMES] * 3 if len(spec.shape) == 5 else [*_LENGTH]
        shape = [2, *(lengths[i % len(lengths)] if n is None else n for i, n in enumerate(spec.shape[1:]))]
        if spec.dtype.is_floating:
            low, high = (0.0, 1.0) if each.pixels is None else each.pixels.range
            given[each.name] = random.uniform(low, high, shape).astype(dtype)
        else:
            of_files = each.pixels is not None or each.dtype != each.model_dtype
            largest = np.iinfo(dtype).max if of_files else 1
            given[each.name] = random.integers(0, min(largest, 65535), shape, endpoint=True).astype(dtype)
    return given


def _by_tensorflow(parts: Parts, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The answers of TensorFlow to a batch."""
    inputs = _tensors(given)
    first = parts.before(**inputs)
    found = {name: first[name] for name in parts.answers}
    if parts.turn is not None:
        shared = {name: first[name] for name in parts.shared}
        sums = [tf.constant(zero) for zero in parts.zeros]
        for turn in range(parts.turns):
            values = {f"dz_sum_{i}": x for i, x in enumerate(sums)}
            totals = parts.turn(turn=tf.constant(turn), **values, **shared)
            sums = [totals[f"dz_total_{i}"] for i in range(len(sums))]
        found |= parts.after(**{f"dz_total_{i}": x for i, x in enumerate(sums)}, **inputs)
    return {name: x.numpy() for name, x in found.items()}


def compare(
    wanted: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], format: str, precision: str
) -> None:
    """Raises an error if two answers differ by more than rounding.

    Args:
        wanted: The answers of TensorFlow by name.
        found: The answers of the runtime by name.
        format: The format of the file.
        precision: The precision of the weights.

    Raises:
        RuntimeError: If too many values of an answer differ.
    """
    for name, value in wanted.items():
        other = found[name]
        if value.shape != other.shape:
            far = 1.0
        elif value.dtype.kind == "f":
            sizes = np.abs(value.astype("float64"))
            # Numbers of eight bits are rounded by the whole range of the values, floats by their own size.
            scale = np.maximum(sizes, (sizes.max() if precision == "int8" else sizes.mean()) + _CLOSE)
            allowed = {"float32": 1, "float16": 50, "int8": 250}[precision] * _CLOSE
            far = float(np.mean(~(np.abs(value.astype("float64") - other) <= allowed * scale)))
        else:
            far = float(np.mean(value != other))
        if far > {"float32": 1, "float16": 10, "int8": 30}[precision] * _SHARE:
            raise RuntimeError(
                f"For random inputs, {name!r} from the file of format={format!r} differs from that of TensorFlow: "
                f"{far:.1%} of the values differ (shapes {other.shape} and {value.shape}). Nothing was written; "
                "use format='saved_model', and please report the model"
            )
