"""Files of LiteRT, which was TensorFlow Lite: signatures for phones and small machines."""

import io
import re
import tempfile
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dropzoo.serving.export.unsupported import UnsupportedError


def content_of(
    functions: Mapping[str, Any],
    held: tf.Module,
    precision: str,
    facts: Mapping[str, str],
    examples: Sequence[Mapping[str, np.ndarray]],
) -> bytes:
    """Returns the content of a file of LiteRT.

    Args:
        functions: Traced functions by the names of their signatures.
        held: The variables that the functions read.
        precision: `"float32"`, `"float16"` for weights in half precision, or `"int8"`.
        facts: Texts that the file holds as a ZIP archive at its end, as LiteRT's own metadata does.
        examples: For `"int8"`, batches of inputs by name, whose values set the ranges of the integers.

    Raises:
        UnsupportedError: If LiteRT has no operation for one of TensorFlow.
    """
    lite = tf.lite
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(held, folder, signatures=dict(functions))
        converter = lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(functions))
        if precision != "float32":
            converter.optimizations = [lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            converter.representative_dataset = lambda: (("serving_default", each) for each in examples)
        try:
            with warnings.catch_warnings():
                # TensorFlow's own interpreter, which finds the ranges, is deprecated.
                warnings.simplefilter("ignore")
                content = converter.convert()
        except Exception as error:  # of a private class of TensorFlow
            raise _reason(str(error)) from error
    return content + _archive(facts)


def run(content: bytes, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the answers of all signatures of LiteRT by name.

    Args:
        content: The content of a file.
        given: The inputs by name.
    """
    from ai_edge_litert.interpreter import Interpreter

    found: dict[str, np.ndarray] = {}
    for name in Interpreter(model_content=content).get_signature_list():
        # A signature of its own interpreter: the sizes of one must not be those of another.
        found |= Interpreter(model_content=content).get_signature_runner(name)(**given)
    return found


def _archive(facts: Mapping[str, str]) -> bytes:
    """Texts as a ZIP archive, which can be read from the end of a file."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in facts.items():
            archive.writestr(f"{name}.json", text)
    return data.getvalue()


def _reason(error: str) -> UnsupportedError:
    """The error for the text of an error of the converter, which lists operations and their places."""
    starts = ("TF Select ops:", "Custom ops:")
    lines = error.splitlines()
    names = [
        name for line in lines if line.startswith(starts) for name in re.findall(r"\w+", line.partition(":")[2])
    ]
    places = re.findall(r'fused\["\w+:", "([^"@]+)', "".join(line for line in lines if "error:" in line))
    return UnsupportedError(names, places)
