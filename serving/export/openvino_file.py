"""Files of OpenVINO: a graph, `.xml`, and its weights, `.bin`, for processors of Intel and others."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from dropzoo.common.files import whole_file
from dropzoo.serving.export.onnx_graph import graph_of
from dropzoo.serving.export.openvino_bits import make_signed, read
from dropzoo.serving.export.parts import Parts

_FULL = {"INFERENCE_PRECISION_HINT": "f32"}  # by default it computes in 16 bits where the processor can


def weights_of(path: Path) -> Path:
    """Returns the path of the weights, which lie beside the graph.

    Args:
        path: Path of the graph.
    """
    return path.with_suffix(".bin")


def write(
    path: Path, parts: Parts, precision: str, facts: Mapping[str, str], accept: Callable[[Path], None]
) -> None:
    """Writes the two files, after a check of the files themselves.

    Args:
        path: Path of the graph.
        parts: The functions of the export.
        precision: `"float32"`, or `"float16"` to store the weights in half precision.
        facts: Texts that the file holds, by name.
        accept: Function of the path of the finished graph, which raises an error to refuse the files.

    Raises:
        ValueError: If ONNX or OpenVINO has no operation for one of TensorFlow.
    """
    import openvino

    graph = graph_of(parts, simple=True)
    make_signed(graph)
    model = read(graph.SerializeToString())
    names = {value.name for value in (*graph.graph.input, *graph.graph.output)}
    for node in model.get_ops():  # OpenVINO adds the names of inner values to those of inputs and outputs
        for value in node.outputs():
            value.get_tensor().set_names(value.get_names() & names)
    for name, text in facts.items():
        model.set_rt_info(text, ["dropzoo", name])
    with whole_file(path) as unfinished:
        weights = weights_of(unfinished)
        try:
            openvino.save_model(model, unfinished, compress_to_fp16=precision == "float16")
            accept(unfinished)
            path.unlink(missing_ok=True)  # a process that is killed here leaves no graph with other weights
            os.replace(weights, weights_of(path))
        finally:
            weights.unlink(missing_ok=True)


def run(file: Path, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the answers of OpenVINO by name.

    Args:
        file: The path of the graph.
        given: The inputs by name.
    """
    import openvino

    answers = openvino.Core().compile_model(openvino.Core().read_model(file), "CPU", _FULL)(dict(given))
    return {name: value for output, value in answers.items() for name in output.get_names()}
