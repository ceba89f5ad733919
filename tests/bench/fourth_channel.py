"""VGG-16's INT8 graph with and without the image's fourth channel of zeros (vggbench.qdq_cpu), a call of each in turn.

    python tests/bench/fourth_channel.py [--batch 8] [--rounds 10]

Milliseconds of a call and, by ONNX Runtime's profiler, of its first convolution: medians. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnx import numpy_helper

from vgg_reference.weights import random_weights
from vggbench import environment
from vggbench.backends import ort
from vggbench.graphs import INPUT
from vggbench.measure.latency import random_input
from vggbench.ranges import Quantization
from vggbench.runs_calibrate import ranges_for
from vggbench.variants import Variant

FIRST, WEIGHTS = "block1.conv1", "features.0.weight"


def with_three(model):
    """The graph without the Pad and the weights of zero."""
    (pad,) = (node for node in model.graph.node if node.op_type == "Pad")
    reader = next(node for node in model.graph.node if node.input[0] == pad.output[0])
    reader.input[0] = pad.input[0]
    model.graph.node.remove(pad)
    stored = next(each for each in model.graph.initializer if each.name == WEIGHTS)
    stored.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(stored)[:, :3]), WEIGHTS))
    return model


def milliseconds(session):
    """(of a call, of the first convolution), medians over the calls but the first."""
    events = json.loads(Path(session.end_profiling()).read_text())
    calls = [event["dur"] for event in events if event["name"] == "model_run"][1:]
    first = [
        event["dur"]
        for event in events
        if event["name"].startswith(FIRST) and event["args"].get("op_name") == "QLinearConv" and event["dur"]
    ][1:]
    return median(calls) / 1000, median(first) / 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    weights = random_weights("D", 0)
    how = Quantization(ranges_for(weights, images=16))
    graph = ort.graph_of(Variant(weights, "crop", "onnxruntime", "int8", quantization=how))
    four = onnx.load_from_string(graph) if isinstance(graph, bytes) else onnx.load(graph)
    images = random_input(arguments.batch, (224, 224))
    with tempfile.TemporaryDirectory() as folder:
        graphs = {"four channels": four.SerializeToString(), "three channels": with_three(four).SerializeToString()}
        sessions = {
            name: ort.inference_session(
                data, enable_profiling=True, profile_file_prefix=str(Path(folder) / name.split()[0])
            )
            for name, data in graphs.items()
        }
        scores = {}
        for _ in range(arguments.rounds + 1):
            for name, session in sessions.items():
                (scores[name],) = session.run(None, {INPUT: images})
        taken = {name: milliseconds(session) for name, session in sessions.items()}
    told = {
        "batch": arguments.batch,
        "rounds": arguments.rounds,
        "same_scores": bool(np.array_equal(*scores.values())),
        "milliseconds": {
            name: {"call": round(call, 2), "first_convolution": round(first, 2)}
            for name, (call, first) in taken.items()
        },
        "environment": environment.environment(),
    }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
