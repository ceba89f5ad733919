"""What every layer of a variant gives, beside its scores: hooks in PyTorch, further outputs of an ONNX graph elsewhere.

The tensors are those of ranges.quantized_inputs, as the next layer takes them (in INT8 after rounding), and "scores".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from vgg_reference.architectures import architecture
from vggbench import backends
from vggbench.backends import Array
from vggbench.backends.taps import Tap, tapped
from vggbench.errors import BackendUnavailable
from vggbench.graphs import INPUT, build_graph
from vggbench.ranges import quantized_inputs
from vggbench.variants import Variant

#: Images (n, 3, h, w) -> tensor's name -> its values (n, ...), float32, channels first.
LayerOutputs = Callable[[Array], dict[str, Array]]


def tensor_names(variant: Variant) -> list[str]:
    """The tensors of the table of layers, in the network's order."""
    weights = variant.weights
    return [*dict.fromkeys(quantized_inputs(architecture(weights.network, weights.batch_norm)).values()), "scores"]


def why_not(backend: str) -> str:
    """ "" where a backend's layers can be seen, else the reason in a sentence."""
    return "" if backend in _OPEN else f"{backend} compiles the network as a whole and shows its scores alone."


@contextmanager
def layer_outputs(variant: Variant, device: str = "auto", threads: int | None = None) -> Iterator[LayerOutputs]:
    """Calls with images as a session's, within the context. Raises BackendUnavailable, and what open_session raises."""
    reason = why_not(variant.backend)
    if reason:
        raise BackendUnavailable(reason)
    with _OPEN[variant.backend](variant, device, threads) as outputs:
        yield outputs


@contextmanager
def _pytorch(variant: Variant, device: str, threads: int | None) -> Iterator[LayerOutputs]:
    """The session that runs anyway, with hooks on its modules."""
    session: Any = backends.open_session(variant, device, threads)
    model = session._forward.args[0]  # the network that its function was made of
    found: dict[str, Array] = {}

    def keep(name: str, tensor: Any) -> None:
        array: Array = tensor.float().cpu().contiguous().numpy()
        # The dense form's classifier works on positions: (n, h w, channels).
        found[name] = np.array(array.swapaxes(1, 2) if array.ndim == 3 else array)

    def hook(name: str) -> Callable[..., None]:
        return lambda module, given, output: keep(name, output)

    wanted = tensor_names(variant)
    hooks = [model.features.register_forward_pre_hook(lambda module, given: keep("images", given[0]))]
    for name, module in _modules(model):
        if name in wanted:
            hooks.append(module.register_forward_hook(hook(name)))

    def outputs(images: Array) -> dict[str, Array]:
        scores = session(images)
        return {name: scores if name == "scores" else found.pop(name) for name in wanted}

    try:
        yield outputs
    finally:
        for each in hooks:
            each.remove()
        session.close()


def _modules(model: Any) -> Iterator[tuple[str, Any]]:
    """Activations, normalizations and pools of the torch network by their names in graphs."""
    block, position = 1, 0
    for module in model.features:
        kind = type(module).__name__
        if kind == "MaxPool2d":
            yield f"block{block}.pool", module
            block, position = block + 1, 0
        elif kind == "Conv2d":
            position += 1
        elif kind == "ReLU":
            yield f"block{block}.relu{position}", module
        elif kind == "LocalResponseNorm":
            yield f"block{block}.lrn", module
    activations = [module for module in model.classifier if type(module).__name__ == "ReLU"]
    yield from zip(("fc6.relu", "fc7.relu"), activations, strict=True)


@contextmanager
def _onnxruntime(variant: Variant, device: str, threads: int | None) -> Iterator[LayerOutputs]:
    from vggbench.backends import ort

    device = backends.resolve_device(device, ort.has_cuda())
    stored = variant.precision == "fp16" and device == "cpu"
    graph, taps = tapped(build_graph(variant, storage_only=stored), tensor_names(variant))
    dense, fp8 = variant.form == "dense", variant.precision == "fp8"
    session = ort.inference_session(graph, device, threads, dense=dense, pairs_as_they_stand=fp8)
    names = [output.name for output in session.get_outputs()]
    yield _reading(variant, taps, lambda images: zip(names, session.run(names, {INPUT: images}), strict=True))


@contextmanager
def _openvino(variant: Variant, device: str, threads: int | None) -> Iterator[LayerOutputs]:
    from vggbench.backends import openvino

    drawn, stored = openvino.drawn_as(variant)
    graph, taps = tapped(build_graph(drawn, storage_only=stored), tensor_names(variant))
    core = openvino.load().Core()
    options = {
        "INFERENCE_PRECISION_HINT": openvino.hint_of(variant),
        "INFERENCE_NUM_THREADS": threads or backends.default_threads(),
    }
    compiled = core.compile_model(openvino.read(core, graph, variant), "CPU", options)
    names = [output.get_any_name() for output in compiled.outputs]

    def run(images: Array) -> Iterator[tuple[str, Array]]:
        found = compiled(images)
        return ((name, found[output]) for name, output in zip(names, compiled.outputs, strict=True))

    yield _reading(variant, taps, run)


@contextmanager
def _tensorrt(variant: Variant, device: str, threads: int | None) -> Iterator[LayerOutputs]:
    """A second engine, whose layers' results are outputs too: TensorRT may choose other kernels for it."""
    from vggbench.backends import tensorrt

    backends.check_runs("tensorrt", variant.precision, device)
    drawn = replace(variant, precision="fp32") if variant.precision == "tf32" else variant
    graph, taps = tapped(build_graph(drawn), tensor_names(variant))
    with tensorrt.running(variant, graph) as runner:
        yield _reading(variant, taps, lambda images: runner(images).items())


def _reading(
    variant: Variant, taps: Sequence[Tap], run: Callable[[Array], Iterable[tuple[str, Array]]]
) -> LayerOutputs:
    def outputs(images: Array) -> dict[str, Array]:
        backends.check_images(images, variant)
        values = {INPUT: images, **dict(run(images))}
        return {tap.name: tap.values(values) for tap in taps}

    return outputs


_OPEN: dict[str, Callable[[Variant, str, int | None], AbstractContextManager[LayerOutputs]]] = {
    "pytorch": _pytorch,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tensorrt": _tensorrt,
}
