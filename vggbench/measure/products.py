"""Matrix products (m, k) x (k, n) of the libraries that may be here, the right-hand side constant as weights are.

A maker returns a call that runs one product and waits for it; it raises whatever its library raises where it cannot. On
a GPU the call runs IN_A_ROW of them and returns the seconds of one, a float, by the GPU's own clock.
Outputs are kept between calls, so that no call pays for fresh memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Shape = tuple[int, int, int]  # m, k, n
Call = Callable[[], object]
Maker = Callable[[Shape, int], Call]
#: Launching a product and hearing of its end takes the host time that is not the product's. How much was not measured;
#: ten in a row between two events leave it out.
IN_A_ROW = 10
#: For a record of a GPU's.
CLOCK = f"CUDA events around {IN_A_ROW} products in a row, a sample their mean"


def torch_mm(dtype: str, device: str = "cpu", tf32: bool = False) -> Maker:
    """torch.mm: oneDNN or MKL on a CPU, cuBLAS on a GPU."""

    def make(shape: Shape, threads: int) -> Call:
        import torch

        m, k, n = shape
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a = torch.randn(m, k, device=device).to(getattr(torch, dtype))
        b = torch.randn(k, n, device=device).to(getattr(torch, dtype))
        out = a.new_empty(m, n)
        return _waiting(lambda: torch.mm(a, b, out=out), device)

    return make


def torch_prepacked(dtype: str) -> Maker:
    """oneDNN through torch with the weights in its own blocked layout, as compiled models have them."""

    def make(shape: Shape, threads: int) -> Call:
        import torch

        m, k, n = shape
        torch.set_num_threads(threads)
        a = torch.randn(m, k).to(getattr(torch, dtype))
        packed = torch.ops.mkldnn._reorder_linear_weight(torch.randn(n, k).to(a.dtype), m)
        return lambda: torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], "")

    return make


def torch_int_mm(device: str = "cpu") -> Maker:
    """int8 x int8 -> int32 by torch."""

    def make(shape: Shape, threads: int) -> Call:
        import torch

        m, k, n = shape
        torch.set_num_threads(threads)
        a = torch.randint(-127, 128, (m, k), dtype=torch.int8, device=device)
        # Column by column in memory: cuBLAS takes no other layout.
        b = torch.randint(-127, 128, (n, k), dtype=torch.int8, device=device).t()
        return _waiting(lambda: torch._int_mm(a, b), device)

    return make


def torch_scaled_mm(device: str) -> Maker:
    """E4M3 x E4M3 -> bf16 by torch, one scale a matrix."""

    def make(shape: Shape, threads: int) -> Call:
        import torch

        m, k, n = shape
        a = torch.randn(m, k, device=device).to(torch.float8_e4m3fn)
        b = torch.randn(n, k, device=device).to(torch.float8_e4m3fn).t()
        one = torch.ones((), device=device)
        return _waiting(lambda: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16), device)

    return make


def torch_qlinear(shape: Shape, threads: int) -> Call:
    """oneDNN's uint8 x int8 through torch, weights prepacked, requantized to uint8."""
    import torch

    m, k, n = shape
    torch.set_num_threads(threads)
    a = torch.randint(0, 256, (m, k), dtype=torch.uint8)
    weight = torch.randint(-127, 128, (n, k), dtype=torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(weight.t(), [m, k])
    scales, zeros = torch.full((n,), 0.01), torch.zeros(n, dtype=torch.int64)
    return lambda: torch.ops.onednn.qlinear_pointwise(
        a, 0.1, 0, packed, scales, zeros, None, 100.0, 0, torch.uint8, "none", [], ""
    )


def onnxruntime_product(operator: str) -> Maker:
    """MatMul (fp32), MatMulInteger (-> int32) or QLinearMatMul (-> uint8); uint8 x constant int8, prepacked."""

    def make(shape: Shape, threads: int) -> Call:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Its threads wait awake within a product, and must not beside the products of other libraries.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        graph, left, out = _graph(operator, shape)
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in (left, out)]
        binding.bind_ortvalue_input("a", values[0])
        binding.bind_ortvalue_output("y", values[1])

        def run(keep: Any = values) -> None:  # a binding alone does not keep the arrays' memory
            session.run_with_iobinding(binding)

        return run

    return make


def openvino_product(precision: str) -> Maker:
    """MatMul at an inference precision ("f32", "bf16", "f16"), or of quantized operands ("int8")."""

    def make(shape: Shape, threads: int) -> Call:
        from vggbench.backends.openvino import load

        openvino = load()
        graph, left, _ = _graph("QDQ" if precision == "int8" else "MatMul", shape)
        config: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        config["INFERENCE_PRECISION_HINT"] = "f32" if precision == "int8" else precision
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(graph), "CPU", config)
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(left))
        return lambda: request.infer()

    return make


def _graph(operator: str, shape: Shape) -> tuple[bytes, Any, Any]:
    """An ONNX model "a" (m, k) -> "y" (m, n) with constant weights; its input, and an array for its output."""
    from onnx import TensorProto, helper, numpy_helper

    m, k, n = shape
    random = np.random.default_rng(0)
    integer = operator != "MatMul"
    left = random.integers(0, 256, (m, k), np.uint8) if integer else random.normal(size=(m, k)).astype(np.float32)
    weights = random.integers(-127, 128, (k, n), np.int8) if integer else random.normal(size=(k, n)).astype(np.float32)
    out = np.zeros((m, n), {"MatMul": np.float32, "MatMulInteger": np.int32}.get(operator, np.uint8))
    constants = {
        "b": weights,
        "scale": np.array(0.01, np.float32),
        "out_scale": np.array(10.0, np.float32),
        "zero": np.array(0, np.uint8),
        "signed_zero": np.array(0, np.int8),
    }
    nodes = _nodes(operator)
    used = {name for node in nodes for name in node.input}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            operator,
            [helper.make_tensor_value_info("a", helper.np_dtype_to_tensor_dtype(left.dtype), [m, k])],
            [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(out.dtype), [m, n])],
            [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    assert model.graph.output[0].type.tensor_type.elem_type != TensorProto.UNDEFINED
    return model.SerializeToString(), left, out


def _nodes(operator: str) -> list[Any]:
    from onnx import helper

    if operator == "QLinearMatMul":
        inputs = ["a", "scale", "zero", "b", "scale", "signed_zero", "out_scale", "zero"]
        return [helper.make_node(operator, inputs, ["y"])]
    if operator == "QDQ":
        return [
            helper.make_node("DequantizeLinear", ["a", "scale", "zero"], ["left"]),
            helper.make_node("DequantizeLinear", ["b", "scale", "signed_zero"], ["right"]),
            helper.make_node("MatMul", ["left", "right"], ["product"]),
            helper.make_node("QuantizeLinear", ["product", "out_scale", "zero"], ["y"]),
        ]
    return [helper.make_node(operator, ["a", "b"], ["y"])]


def _waiting(call: Call, device: str) -> Call:
    """On a GPU the call so often that launching and waiting do not count; it gives the seconds of one by events."""
    if device == "cpu":
        return call
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

    def run() -> float:
        start.record()
        for _ in range(IN_A_ROW):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000 / IN_A_ROW

    return run


#: Precision -> name of a library's product -> its maker. The name, with its version, stands in the record.
ON_CPU: dict[str, dict[str, Maker]] = {
    "fp32": {
        "torch mm": torch_mm("float32"),
        "torch oneDNN, prepacked": torch_prepacked("float32"),
        "onnxruntime MatMul": onnxruntime_product("MatMul"),
        "openvino MatMul": openvino_product("f32"),
    },
    "bf16": {
        "torch mm": torch_mm("bfloat16"),
        "torch oneDNN, prepacked": torch_prepacked("bfloat16"),
        "openvino MatMul": openvino_product("bf16"),
    },
    "fp16": {
        "torch mm": torch_mm("float16"),
        "torch oneDNN, prepacked": torch_prepacked("float16"),
        "openvino MatMul": openvino_product("f16"),
    },
    "int8": {
        "onnxruntime MatMulInteger": onnxruntime_product("MatMulInteger"),
        "onnxruntime QLinearMatMul": onnxruntime_product("QLinearMatMul"),
        "torch oneDNN qlinear": torch_qlinear,
        "torch _int_mm": torch_int_mm(),
        "openvino MatMul": openvino_product("int8"),
    },
}
ON_CUDA: dict[str, dict[str, Maker]] = {
    "fp32": {"torch mm": torch_mm("float32", "cuda:0")},
    "tf32": {"torch mm": torch_mm("float32", "cuda:0", tf32=True)},
    "bf16": {"torch mm": torch_mm("bfloat16", "cuda:0")},
    "fp16": {"torch mm": torch_mm("float16", "cuda:0")},
    "int8": {"torch _int_mm": torch_int_mm("cuda:0")},
    "fp8": {"torch _scaled_mm": torch_scaled_mm("cuda:0")},
}
