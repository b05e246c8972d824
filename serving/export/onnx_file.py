"""Files of ONNX, which ONNX Runtime, OpenVINO, Triton and others run."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from dropzoo.serving.export.onnx_graph import graph_of
from dropzoo.serving.export.parts import Parts
from dropzoo.serving.export.unsupported import UnsupportedError

_HALF_FROM = 256  # elements; smaller constants may be thresholds, and stay exact


def content_of(parts: Parts, precision: str, facts: Mapping[str, str]) -> bytes:
    """Returns the content of a file of ONNX.

    Args:
        parts: The functions of the export.
        precision: `"float32"`, or `"float16"` to store the weights in half precision; answers are computed in
            float32.
        facts: Texts that the file holds, by name.

    Raises:
        UnsupportedError: If ONNX has no operation for one of TensorFlow.
    """
    from onnx import helper

    model = graph_of(parts)
    if precision == "float16":
        _store_in_half(model.graph)
    helper.set_model_props(model, dict(facts))
    return model.SerializeToString()


def run(content: bytes, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the answers of ONNX Runtime by name.

    Args:
        content: The content of a file.
        given: The inputs by name.

    Raises:
        UnsupportedError: If ONNX Runtime cannot run the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised too
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(given)), strict=True))
    except Exception as error:  # of classes of its own
        raise UnsupportedError([], re.findall(r"[\w/]+/[\w/]+", str(error))) from error


def _store_in_half(graph: Any) -> None:
    """Stores the weights in float16. Runtimes cast them back when they load the file."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for constant in graph.initializer:
        array = numpy_helper.to_array(constant)
        if constant.data_type != TensorProto.FLOAT or array.size < _HALF_FROM:
            continue
        if np.abs(array).max() > np.finfo(np.float16).max:
            continue
        name, half = constant.name, f"{constant.name}/half"
        constant.CopyFrom(numpy_helper.from_array(array.astype(np.float16), half))  # this changes its name
        casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.g.node:
                _store_in_half(attribute.g)
