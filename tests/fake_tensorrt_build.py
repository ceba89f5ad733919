"""The fake TensorRT's side that builds: what a version refuses is refused in its words. See fake_tensorrt.py."""

from __future__ import annotations

import json

import onnx
import onnx.shape_inference


def build_classes(trt, surface, faults, error):
    """Builder, network, parser, config and timing cache, with all names that any version has."""
    typed = "STRONGLY_TYPED" in surface["classes"]["NetworkDefinitionCreationFlag"]["members"]

    class Builder:
        def __init__(self, logger):
            self._logger = logger

        def create_network(self, flags=0):
            members = trt.NetworkDefinitionCreationFlag.__members__
            if "EXPLICIT_BATCH" in members and not flags & 1 << members["EXPLICIT_BATCH"] and not typed:
                raise AssertionError("8.6 parses no ONNX graph into a network of implicit batch")
            made = trt.INetworkDefinition()
            made._typed = typed and bool(flags & 1 << members["STRONGLY_TYPED"])
            return made

        def create_builder_config(self):
            return trt.IBuilderConfig()

        def create_optimization_profile(self):
            return trt.IOptimizationProfile()

        def build_serialized_network(self, network, config):
            monitor = getattr(config, "progress_monitor", None)
            if monitor is not None:
                monitor.phase_start("Tactics", "", 3)
                for step in range(3):
                    if not monitor.step_complete("Tactics", step):
                        return None
                monitor.phase_finish("Tactics")
            why = faults.build or _wrong(trt, network, config, typed)
            if why:
                error(self._logger, why)
                return None
            config._timings += b"timed;"
            plan = {
                "version": surface["version"],
                "profile": config._profiles[0]._shapes[network._input],
                "detailed": config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED,
                "tf32": trt.BuilderFlag.TF32 in config._flags,
            }
            return _host(trt, json.dumps(plan).encode() + b"\n" + network._model)

    class INetworkDefinition:
        def __init__(self):
            self._model, self._input, self._typed = b"", "", False

        def get_input(self, index):
            made = trt.ITensor()
            made._name = self._input
            sides = onnx.load_from_string(self._model).graph.input[0].type.tensor_type.shape.dim
            made._shape = [-1 if side.dim_param else side.dim_value for side in sides]
            return made

    class ITensor:
        @property
        def name(self):
            return self._name

        @property
        def shape(self):
            return self._shape

    class OnnxParser:
        def __init__(self, network, logger):
            self._network, self._logger, self._errors = network, logger, []

        @property
        def num_errors(self):
            return len(self._errors)

        def get_error(self, index):
            made = trt.ParserError()
            made._text = self._errors[index]
            return made

        def parse_from_file(self, model):
            parsed = onnx.load(model)
            opset = parsed.opset_import[0].version
            why = faults.parse or ("" if typed or opset <= 17 else f"opset {opset} is newer than this parser's 17")
            why = why or _wrong_outputs(parsed)
            if why:
                self._errors.append(why)
                return False
            self._network._model = parsed.SerializeToString()
            self._network._input = parsed.graph.input[0].name
            return True

    class ParserError:
        def desc(self):
            return self._text

    class IOptimizationProfile:
        def __init__(self):
            self._shapes = {}

        def set_shape(self, input, min, opt, max):
            assert all(low <= best <= high for low, best, high in zip(min, opt, max, strict=True))
            self._shapes[input] = [list(min), list(opt), list(max)]

    class IBuilderConfig:
        def __init__(self):
            self._flags, self._profiles, self._pools, self._timings = {trt.BuilderFlag.TF32}, [], {}, b""
            self._sources = None
            object.__setattr__(self, "profiling_verbosity", trt.ProfilingVerbosity.LAYER_NAMES_ONLY)

        def set_flag(self, flag):
            self._flags.add(flag)

        def clear_flag(self, flag):
            self._flags.discard(flag)

        def set_tactic_sources(self, tactic_sources):
            self._sources = tactic_sources
            return True

        def set_memory_pool_limit(self, pool, pool_size):
            self._pools[pool] = pool_size

        def add_optimization_profile(self, profile):
            self._profiles.append(profile)
            return 0

        def create_timing_cache(self, serialized_timing_cache):
            made = trt.ITimingCache()
            made._data = bytes(serialized_timing_cache)
            return made

        def set_timing_cache(self, cache, ignore_mismatch):
            if faults.refuse_timings and cache._data:
                return False
            self._timings = cache._data
            return True

        def get_timing_cache(self):
            made = trt.ITimingCache()
            made._data = self._timings
            return made

    class ITimingCache:
        def serialize(self):
            return _host(trt, self._data)

    class IHostMemory:
        def __bytes__(self):
            return self._data

    return {name: value for name, value in locals().items() if isinstance(value, type)}


def _host(trt, data):
    made = trt.IHostMemory()
    made._data = data
    return made


def _wrong_outputs(model):
    """What the parser of every version refuses: an output of no type, or of another than its tensor has."""
    if any(not output.type.tensor_type.elem_type for output in model.graph.output):
        return "Failed to convert ONNX date type to TensorRT data type."  # its words
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        return str(error)
    return ""


def _wrong(trt, network, config, typed):
    """What TensorRT would refuse to build, "" if nothing."""
    graph = onnx.load_from_string(network._model).graph
    kinds = {tensor.data_type for tensor in graph.initializer}
    allowed = {flag.name for flag in config._flags}
    dynamic = any(dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim)
    if dynamic and not (config._profiles and network._input in config._profiles[0]._shapes):
        return "Network has dynamic inputs but no optimization profile"
    if network._typed and allowed & {"FP16", "INT8"}:
        return "FP16 and INT8 flags cannot be set on a strongly typed network"
    if typed and not network._typed:
        return "a network that is not strongly typed"
    if not typed and onnx.TensorProto.FLOAT16 in kinds and "FP16" not in allowed:
        return "Network has FP16 tensors but the FP16 flag is not set"
    if not typed and onnx.TensorProto.INT8 in kinds and "INT8" not in allowed:
        return "Network has Q/DQ layers but the INT8 flag is not set"
    if not typed and (config._sources is None or config._sources & 0b111):
        return "Unable to load library: libcudnn.so.8"
    return ""
