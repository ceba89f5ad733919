"""The fake TensorRT's side that runs: plans are ONNX graphs, computed by onnxruntime. See fake_tensorrt.py."""

from __future__ import annotations

import ctypes
import json

import numpy as np
import onnx


def run_classes(trt, surface, cuda, faults, error):
    """Runtime, engine, context and inspector, with all names that any version has."""

    class Runtime:
        def __init__(self, logger):
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine):
            head, _, model = bytes(serialized_engine).partition(b"\n")
            try:
                plan = json.loads(head)
                onnx.load_from_string(model)
            except Exception:
                error(self._logger, "Error Code 1: Serialization (magic tag does not match)")
                return None
            if faults.deserialize or plan["version"] != surface["version"]:
                text = f"The engine plan file is of TensorRT {plan['version']}, expected is {surface['version']}"
                error(self._logger, faults.deserialize or text)
                return None
            made = trt.ICudaEngine()
            made._load(plan, model, self._logger)
            return made

    class ICudaEngine:
        def _load(self, plan, model, logger):
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.log_severity_level, options.intra_op_num_threads = 3, 2
            if onnx.TensorProto.FLOAT8E4M3FN in _types(onnx.load_from_string(model).graph).values():
                options.add_session_config_entry("session.disable_quant_qdq", "1")
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            self._plan, self._model, self._logger = plan, onnx.load_from_string(model), logger
            self._io = {value.name: value for value in (*self._session.get_inputs(), *self._session.get_outputs())}
            self._input = self._session.get_inputs()[0].name

        @property
        def num_io_tensors(self):
            return len(self._io)

        @property
        def device_memory_size(self):
            return 1 << 20

        @property
        def device_memory_size_v2(self):
            return 1 << 20

        def get_tensor_name(self, index):
            return list(self._io)[index]

        def get_tensor_mode(self, name):
            return trt.TensorIOMode.INPUT if name == self._input else trt.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name):
            kinds = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(uint8)": "UINT8"}
            return trt.DataType[kinds[self._io[name].type]]

        def get_tensor_shape(self, name):
            return [side if isinstance(side, int) else -1 for side in self._io[name].shape]

        def get_tensor_profile_shape(self, name, profile_index):
            return self._plan["profile"]

        def create_execution_context(self):
            if faults.context:
                return None
            made = trt.IExecutionContext()
            made._start(self)
            return made

        def create_engine_inspector(self):
            made = trt.EngineInspector()
            made._engine = self
            return made

    class IExecutionContext:
        def _start(self, engine):
            self._engine, self._shape, self._addresses, self._warm = engine, None, {}, None

        def set_input_shape(self, name, shape):
            low, _, high = self._engine._plan["profile"]
            if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
                error(self._engine._logger, f"{name}: {shape} is outside of the profile")
                return False
            self._shape, self._outputs, self._warm = tuple(shape), None, None
            return True

        def infer_shapes(self):
            engine = self._engine
            kind = np.uint8 if "uint8" in engine._io[engine._input].type else np.float32
            names = [name for name in engine._io if name != engine._input]
            found = engine._session.run(names, {engine._input: np.zeros(self._shape, kind)})
            self._outputs = {name: value.shape for name, value in zip(names, found, strict=True)}
            return []

        def get_tensor_shape(self, name):
            return self._shape if name == self._engine._input else self._outputs[name]

        def set_tensor_address(self, name, memory):
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle):
            if faults.enqueue or (stream_handle in cuda.capturing and self._warm != self._shape):
                error(self._engine._logger, "enqueueV3 failed")
                return False
            self._warm = self._shape
            cuda.enqueue(stream_handle, self._compute(self._shape, dict(self._addresses)))
            return True

        def _compute(self, shape, addresses):
            """With the shape and the addresses of now, whatever is set before it runs."""
            engine = self._engine
            kind = np.uint8 if "uint8" in engine._io[engine._input].type else np.float32

            def run():
                given = _view(cuda, addresses[engine._input], shape, kind)
                names = [name for name in engine._io if name != engine._input]
                for name, value in zip(names, engine._session.run(names, {engine._input: given}), strict=True):
                    _view(cuda, addresses[name], value.shape, value.dtype)[...] = value

            return run

    class EngineInspector:
        def get_engine_information(self, format):
            assert format == trt.LayerInformationFormat.JSON
            known = self.execution_context is not None and self.execution_context._shape is not None
            new = surface["version"].startswith("11")
            found = list(_layers(self._engine._model.graph, faults.fall_back, new, known, self._engine._plan["tf32"]))
            if not self._engine._plan["detailed"]:
                found = [layer["Name"] for layer in found]
            return json.dumps({"Layers": found, "I/O Tensors" if new else "Bindings": []})

    return {name: value for name, value in locals().items() if isinstance(value, type)}


def _view(cuda, address, shape, kind):
    """The device's memory, as an array; it must be large enough and still be there."""
    block = cuda.live["device"][address]
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    assert len(block) >= size
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), kind).reshape(shape)


def _types(graph):
    return {tensor.name: tensor.data_type for tensor in graph.initializer}


def _layers(graph, fall_back, new, known, tf32):
    """Convolutions with the activation behind them, as the inspector of the version writes them."""
    producers = {output: node for node in graph.node for output in node.output}
    kinds = _types(graph)
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        behind = next((each for each in graph.node if node.output[0] in each.input and each.op_type == "Relu"), None)
        source = producers.get(node.input[0])
        half = kinds.get(node.input[1]) == onnx.TensorProto.FLOAT16
        kind = "fp16" if half else "fp32"
        if source is not None and source.op_type == "DequantizeLinear":
            kind = "fp8" if kinds[source.input[2]] == onnx.TensorProto.FLOAT8E4M3FN else "int8"
        kind = "fp32" if node.name in fall_back else kind
        long = {
            "int8": "Thirty-two wide channel vectorized row major Int8 format",
            "fp8": "Channel major FP8 format where channel % 16 == 0",
            "fp16": "Channel major FP16 format where channel % 8 == 0",
            "fp32": "Row major linear FP32",
        }
        types = {"int8": "Int8", "fp8": "FP8", "fp16": "Half", "fp32": "Float"}
        if not known:
            form = {"Format/Datatype": "N/A due to dynamic shapes"}
        elif new:
            form = {"Format": "Row major linear", "DataType": types[kind]}
        else:
            form = {"Format/Datatype": long[kind]}
        yield {
            "Name": node.name if behind is None else f"{node.name} + {behind.name}",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": node.input[0], "Dimensions": [1], **form}],
            "TacticName": f"sm90_xmma_fprop_{'tf32' if tf32 and kind == 'fp32' else kind}",
        }
        if kind == "int8":
            yield {"Name": f"{node.name}.input.quantize", "LayerType": "Scale", "Inputs": [form]}
