"""Networks as ONNX graphs, written node by node from Table 1 and the state dict, so that the bytes are reproducible.

No tracing: nodes are named as the paper's layers (``block3.conv2``, ``fc6``), initializers as in the state dict.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import onnx
from onnx import TensorProto, helper

import vggbench
from vgg_reference.weights import BadWeights, state_dict
from vggbench import cache, qdq
from vggbench.errors import UsageError, WeightsError
from vggbench.graph_files import MAX_MODEL_BYTES, sha256_of, weight_bytes, write_model
from vggbench.graph_nodes import INPUT, OUTPUT, Draft, draw
from vggbench.graph_pixels import from_pixels
from vggbench.precisions import QUANTIZED
from vggbench.qdq_fp8 import fp16_layers
from vggbench.variants import Variant, digest_of

__all__ = ["INPUT", "OPSET", "OUTPUT", "build_graph", "export_onnx", "graph_path", "graph_sha256", "least_opset"]
__all__ += ["newest_opset"]

#: The newest opset that TensorRT 8.6 reads.
OPSET = 17
#: The oldest that has E4M3.
FP8_OPSET = 19
#: Counts changes of these modules that change the bytes of a graph; part of a cached graph's name.
GRAPH_VERSION = 2

#: What a graph computes in, for its metadata and for records.
FP16_STORED = "fp32 arithmetic on fp16 weights"


def build_graph(variant: Variant, opset: int | None = None, *, storage_only: bool = False) -> onnx.ModelProto:
    """The variant's ONNX model: "images" (batch, 3, h, w) -> "scores" (batch, classes), both FP32 at every precision.

    Crop form: h = w = crop size, batch dynamic. Dense form: batch, h and w dynamic, fully-connected layers as
    convolutions (section 3.2), the score map averaged by ``variant.score_pool`` inside the graph.

    "fp16": weights and layers in FLOAT16, but for local response normalization and the mean over the score map, which
    stay in FP32; batch norm is folded into the convolutions. storage_only: FP16 weights alone, cast to FP32 before
    each layer, for CPUs that do not compute in FP16. "int8": Q/DQ nodes in ``variant.quantization``'s layout. "fp8":
    Q/DQ nodes of E4M3 in an FP16 graph (see qdq_fp8). Of a variant that takes pixels: those in place of "images" (see
    graph_pixels). opset: None for least_opset's.
    Raises UsageError, WeightsError, CalibrationError.
    """
    opset = least_opset(variant.precision) if opset is None else opset
    _check(variant, opset, storage_only)
    try:
        arrays = {name: tensor.numpy() for name, tensor in state_dict(variant.weights).items()}
    except BadWeights as error:
        raise WeightsError(str(error)) from error
    fp16, fp8 = variant.precision == "fp16", variant.precision == "fp8"
    draft = Draft(variant, opset, arrays, fp16, fp8 or (fp16 and not storage_only))
    draw(draft)
    model = _model(draft)
    if variant.precision in QUANTIZED:
        model = qdq.quantize(model, variant)
    if variant.takes_pixels:
        model = from_pixels(model, variant.weights.preprocess)
    said = provenance(variant, opset, storage_only=storage_only)
    helper.set_model_props(model, dict(sorted(said.items())))
    return model


def export_onnx(variant: Variant, opset: int | None = None, *, storage_only: bool = False) -> bytes:
    """build_graph's model as the bytes of a file. Raises UsageError for one beyond 2 GB too."""
    model = build_graph(variant, opset, storage_only=storage_only)
    size = weight_bytes(model)
    if size > MAX_MODEL_BYTES:
        raise UsageError(
            f"The graph of {variant.weights.name} takes {size / 2**30:.1f} GiB, one ONNX file holds 2. Keep its "
            "weights beside it: vggbench export --external-weights."
        )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def graph_path(variant: Variant, cache_root: Path, opset: int | None = None, *, storage_only: bool = False) -> Path:
    """The variant's graph as a file in the cache, written on first use, whole or not at all.

    Beyond 2 GB its weights lie beside it. Raises StorageError, and what build_graph raises.
    """
    key = digest_of(provenance(variant, opset, storage_only=storage_only))
    path, large = cache_root / "graphs" / f"{key}.onnx", cache_root / "graphs" / key / "graph.onnx"
    with cache.storage_errors(path):
        # A prune that was broken off may have left the one without the other.
        present = [path.is_file(), large.is_file() and any(large.parent.glob("weights-*.bin"))]
    if any(present):
        path = path if present[0] else large
        for file in [path] if present[0] else large.parent.iterdir():
            cache.touch(file)
        return path
    model = build_graph(variant, opset, storage_only=storage_only)
    path = path if weight_bytes(model) <= MAX_MODEL_BYTES else large
    write_model(model, path)
    return path


def graph_sha256(graph: bytes | Path) -> str:
    """SHA-256 of a graph's bytes, for records."""
    return hashlib.sha256(graph).hexdigest() if isinstance(graph, bytes) else sha256_of(graph)


def provenance(variant: Variant, opset: int | None = None, *, storage_only: bool = False) -> dict[str, str]:
    """A graph's metadata: everything that decides its bytes, and nothing of where and when. For every backend."""
    weights = variant.weights
    found = {key: str(value) for key, value in variant.identity.items() if key != "backend"}
    found |= {
        "opset": str(least_opset(variant.precision) if opset is None else opset),
        "arithmetic": FP16_STORED if storage_only else variant.precision,
        "graph_version": str(GRAPH_VERSION),
        "vggbench": vggbench.__version__,
    }
    if variant.precision in QUANTIZED:
        found["qdq_version"] = str(qdq.QDQ_VERSION)
    if variant.takes_pixels:
        found["input"] = "pixels"
    if variant.precision == "fp8":
        found["fp16_layers"] = " ".join(fp16_layers(variant))
    # A foreign file is called what its file is called today; its digest names it.
    if weights.path is None or weights.name != Path(weights.path).name:
        found["weights_name"] = weights.name
    return found


def least_opset(precision: str) -> int:
    """The oldest opset that a graph is written in, and its default: more runtimes read it."""
    return FP8_OPSET if precision == "fp8" else OPSET


@functools.cache
def newest_opset() -> int:
    """The newest opset that the installed onnx writes and the installed ONNX Runtime reads; OPSET at least."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a refusal is the answer, not an error
    value = helper.make_tensor_value_info
    for opset in range(onnx.defs.onnx_opset_version(), OPSET, -1):
        # A runtime may have most operators of an opset, and lack the ones that changed last.
        pair = [helper.make_node("QuantizeLinear", "xs", "q"), helper.make_node("DequantizeLinear", "qs", "y")]
        graph = helper.make_graph(
            [helper.make_node("Relu", "i", "x"), *pair],
            "probe",
            [value("i", TensorProto.FLOAT, [1])],
            [value("y", TensorProto.FLOAT, [1])],
            [helper.make_tensor("s", TensorProto.FLOAT, [], [1.0])],
        )
        try:
            onnxruntime.InferenceSession(
                helper.make_model(graph, **_versions(opset)).SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception:  # its exceptions share no base class of their own
            continue
        return opset
    return OPSET


def _check(variant: Variant, opset: int, storage_only: bool) -> None:
    precision, weights = variant.precision, variant.weights
    if precision == "bf16":
        raise UsageError(
            "No bf16 graph: no runtime here reads BF16 layers from ONNX. Export fp32, which a runtime may run in BF16."
        )
    if precision not in ("fp32", "fp16", *QUANTIZED):
        raise UsageError(f"No {precision} graph. Known: fp32, fp16, int8, fp8.")
    if storage_only and precision != "fp16":
        raise UsageError(f"Weights stored in FP16 are a kind of fp16 graph, asked was {precision}.")
    least = least_opset(precision)
    if opset != least and not least < opset <= newest_opset():
        with_fp8 = " for fp8" if precision == "fp8" else ""
        raise UsageError(
            f"No opset {opset}{with_fp8}. Accepted here: {least} to {newest_opset()}, what the installed onnx writes "
            "and ONNX Runtime reads."
        )
    if precision in QUANTIZED:
        if variant.quantization is None:
            raise UsageError(
                f"An {precision} graph needs calibration ranges. Make them: vggbench calibrate --network "
                f"{weights.network}."
            )
        variant.quantization.ranges.check(weights.network, weights.digest)


def _model(draft: Draft) -> onnx.ModelProto:
    weights = draft.variant.weights
    sides: list[int | str] = ["height", "width"] if draft.dense else [weights.crop_size] * 2
    graph = helper.make_graph(
        draft.nodes,
        f"{weights.network} {draft.variant.form}",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 3, *sides])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", weights.num_classes])],
    )
    model = helper.make_model(
        graph, producer_name="vggbench", producer_version=vggbench.__version__, **_versions(draft.opset)
    )
    for name, array in draft.constants.items():
        # Filled in place: helper's functions would copy half a gigabyte at each level.
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = model.graph.initializer.add(name=name, dims=array.shape, data_type=kind)
        tensor.raw_data = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes()
    return model


def _versions(opset: int) -> dict[str, object]:
    """Opset and the IR version that came with it, as make_model's arguments."""
    imports = [helper.make_opsetid("", opset)]
    return {"opset_imports": imports, "ir_version": helper.find_min_ir_version_for(imports)}
