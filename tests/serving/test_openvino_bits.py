"""OpenVINO computes what it reads of random bits exactly: each operation, near the numbers that floats confuse."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs dropzoo[openvino]")
openvino = pytest.importorskip("openvino", reason="needs dropzoo[openvino]")

X = np.random.default_rng(0).integers(0, 2**32, 4000, dtype="uint32")
Y = np.where(np.arange(4000) % 2, X + np.arange(4000, dtype="uint32") % 3 - np.uint32(1), X[::-1])
U32, I32, F32, BOOL = "UINT32", "INT32", "FLOAT", "BOOL"


def answer(operation, dtype, returns, second, **options):
    """What OpenVINO returns for an operation on `X`, as numbers of `dtype`, and a second input."""
    from onnx import TensorProto, helper

    from dropzoo.serving.export.openvino_bits import make_signed, read

    kinds = {name: getattr(TensorProto, name) for name in (U32, I32, F32, BOOL)}
    nodes = [helper.make_node("Cast", [name], [f"{name}_bits"], to=kinds[U32]) for name in "xy"]
    nodes += [helper.make_node("Cast", [f"{name}_bits"], [f"{name}_"], to=kinds[dtype]) for name in "xy"]
    constants = [] if second is None else [onnx.numpy_helper.from_array(np.array(second), "second")]
    reads = {"x_", "y_"} if second is Y else {"x_"}
    if operation == "Cast":
        reads, options = {"x_bits"}, {"to": kinds[returns]}
    names = [*sorted(reads), *(["second"] if second is not None and second is not Y else [])]
    nodes.append(helper.make_node(operation, names, ["z_"], **options))
    nodes.append(helper.make_node("Cast", ["z_"], ["z"], to=kinds[I32 if returns == U32 else returns]))
    inputs = [helper.make_tensor_value_info(name, kinds[I32], [None]) for name in "xy"]
    outputs = [helper.make_tensor_value_info("z", kinds[I32 if returns == U32 else returns], None)]
    graph = helper.make_graph(nodes, "bits", inputs, outputs, constants if second is not Y else [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    make_signed(model)
    run = openvino.Core().compile_model(read(model.SerializeToString()), "CPU")
    return run([X.view("int32"), Y.view("int32")])[0]


@pytest.mark.parametrize("places", [1, 7, 9, 16, 20, 31])
def test_shifts(places):
    found = answer("BitShift", U32, U32, np.uint32(places), direction="RIGHT")
    np.testing.assert_array_equal(found.view("uint32"), X >> np.uint32(places))


@pytest.mark.parametrize("name, compare", [
    ("Equal", np.equal), ("Greater", np.greater), ("GreaterOrEqual", np.greater_equal), ("Less", np.less),
    ("LessOrEqual", np.less_equal), ("Max", np.maximum), ("Min", np.minimum),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [U32, I32])
def test_comparisons(name, compare, dtype):
    wanted = compare(*((X, Y) if dtype == U32 else (X.view("int32"), Y.view("int32"))))
    found = answer(name, dtype, dtype if name in ("Max", "Min") else BOOL, Y)
    np.testing.assert_array_equal(found.view(wanted.dtype), wanted)


@pytest.mark.parametrize("divisor", [3, 7, 30, 1000, -7])
def test_divisions(divisor):
    x = X.view("int32")
    found = answer("Mod", I32, I32, np.int32(divisor))
    np.testing.assert_array_equal(found, x % np.int32(divisor))
    np.testing.assert_array_equal(answer("Div", I32, I32, np.int32(divisor)), np.trunc(x / divisor))


def test_products_sums_and_casts():
    factor = np.uint32(0xAC4C1B51)
    np.testing.assert_array_equal(answer("Mul", U32, U32, factor).view("uint32"), X * factor)
    found = answer("ReduceSum", I32, I32, np.array([0]))
    np.testing.assert_array_equal(found.view("uint32"), X.sum(dtype="uint32", keepdims=True))
    np.testing.assert_array_equal(answer("Cast", U32, F32, None), X.astype("float32"))


def test_what_is_not_exact_is_refused():
    with pytest.raises(
        ValueError, match="needs Mod of random bits, which OpenVINO cannot compute exactly.*format='onnx'"
    ):
        answer("Mod", U32, U32, np.uint32(3))
