"""A tiny network's weights and INT8 ranges as files, for commands on the folder ``photos``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from cli_runs import weights_file

from vgg_reference.architectures import architecture
from vggbench import ranges
from vggbench.backends.ort import inference_session
from vggbench.graphs import INPUT, export_onnx
from vggbench.quantize import input_of
from vggbench.ranges import CalibrationImage, Ranges, TensorRange, quantized_inputs
from vggbench.variants import Variant
from vggbench.weights import resolve

LAYERS = list(quantized_inputs(architecture("A")))
#: As typed, and as it is written everywhere.
TYPED, KEPT = "fc6,block1.conv1", "block1.conv1,fc6"


def written(folder: Path) -> tuple[Path, Path]:
    """Weights and ranges, which were taken from images that are elsewhere."""
    network, path = weights_file(folder), folder / "ranges.json"
    weights = resolve(str(network), "A")
    tensors = list(dict.fromkeys(quantized_inputs(architecture("A")).values()))
    model = onnx.load_from_string(export_onnx(Variant(weights, "crop", "onnxruntime")))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors[1:])
    batch = np.random.default_rng(0).normal(0, 60, (8, 3, 32, 32)).astype(np.float32)
    values = [batch, *inference_session(model.SerializeToString(), threads=1).run(tensors[1:], {INPUT: batch})]
    largest = [float(abs(each).max()) for each in values]
    found = tuple(TensorRange(name, -most, most) for name, most in zip(tensors, largest, strict=True))
    views, used = {"input": input_of(weights)}, (CalibrationImage("other.jpg", "f" * 64),)
    made = Ranges("A", weights.digest, "minmax", None, {"name": "others"}, views, {}, found, used)
    path.write_bytes(ranges.to_json(made))
    return network, path
