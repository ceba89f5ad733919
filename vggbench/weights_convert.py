"""Other people's weights files -> this project's safetensors, with where they came from in the metadata.

The first layer's input channels are put into RGB order, so that one set of weights has one digest and one set of cached
posteriors, whether it came as the authors' Caffe file (BGR) or as a port of it (RGB). No arithmetic is done: a value is
moved or kept, bit for bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

import vggbench
from vgg_reference.architectures import ARCHITECTURES, CROP_SIZE, HIDDEN_UNITS, Architecture, architecture
from vgg_reference.weights import METADATA_KEY, PREPROCESSING, BadWeights, Source, Weights, digest_of, read_weights
from vggbench import cache, paper_models, weights_formats
from vggbench.errors import StorageError, UsageError, WeightsError
from vggbench.progress import Report, silent

#: What a format's files expect where nobody says; Caffe's and Keras' VGG take BGR minus the mean pixel.
_USUAL = {"caffemodel": "paper-bgr", "h5": "paper-bgr"}
_FULLY_CONNECTED = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
#: Keras' names of the three; fc7 of a layer list without "predictions" is Caffe's.
_KERAS = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}
#: torchvision before 2017 had its dropout first.
_OLD_CLASSIFIER = {"classifier.1.": "classifier.0.", "classifier.4.": "classifier.3."}
_LAYER = re.compile(
    r"(?:^|/)(?:conv(\d)_(\d+)|block(\d)_conv(\d+)|(fc\d|predictions))(?=[/.:]|_(?:W|b|weights?|bias(?:es)?|kernel)$|$)"
)


def convert(
    path: Path,
    out: Path,
    network: str | None = None,
    preprocess: str | None = None,
    train_scale: str | None = None,
    progress: Report = silent,
) -> Weights:
    """Write ``out`` from any accepted file; returns what it holds, as read back and checked.

    network: where the file fits several (A and A-LRN). preprocess: a name of PREPROCESSING, what the file expects,
    where neither its digest nor its format says. Raises WeightsError, UsageError, StorageError, BackendUnavailable.
    """
    path, out = Path(path), Path(out)
    check_names(network, preprocess)
    if out.exists() and path.exists() and out.samefile(path):
        raise UsageError(f"{out}: is the file to convert. Name another --out.")
    kind, tensors = weights_formats.read(path)
    if kind == "safetensors" and weights_formats.says_all(path):
        raise UsageError(f"{path}: says all of itself already, as converted and trained files do. Use it as it is.")
    digests = file_digests(path, progress)
    known = paper_models.identify(digests)
    preprocess = preprocess or (known.preprocess if known else _USUAL.get(kind))
    if preprocess is None:
        raise WeightsError(
            f"{path}: a {kind} file that no publisher is known of; say what it expects: --preprocess "
            f"{', '.join(PREPROCESSING)}."
        )
    progress("Converting", 1, 3, "")
    named = network or (known.network if known else None)
    state, weights = arrange(path, tensors, named)
    if known is not None and weights.network != known.network:
        raise WeightsError(f"{path}: is {known.name}, network {known.network}; asked was {network}.")
    del tensors
    done = [f"{kind} read as {weights.network}"]
    if preprocess == "paper-bgr":
        first = state["features.0.weight"]
        state["features.0.weight"] = first[:, [2, 1, 0]].contiguous()
        done.append("first layer's input channels reversed (BGR -> RGB)")
        preprocess = "paper-rgb"
    source = Source(
        path.name, kind, path.stat().st_size, **digests, by=f"vggbench {vggbench.__version__}", done="; ".join(done)
    )
    weights = dataclasses.replace(
        weights,
        name=known.name if known else path.name,
        preprocess=PREPROCESSING[preprocess],
        train_scale=train_scale or (known.train_scale if known else None),
        status=known.status if known else "other",
        recipe=known.training if known else "",
        licence=known.licence if known else "",
        source=source,
    )
    return _write(path, out, state, weights, progress)


def converted(path: Path, network: str | None, preprocess: str | None, progress: Report = silent) -> Path:
    """The file as this project's safetensors: itself if it is safetensors, else from the cache, made if need be."""
    if path.suffix == ".safetensors" or not path.is_file() or weights_formats.sniff(path) == "safetensors":
        return path
    check_names(network, preprocess)
    asked = network if network == "A-LRN" else None  # all others are found, and compared by who reads the file
    name = "-".join(part for part in (file_digests(path)["sha256"], asked, preprocess) if part)
    kept = cache.root() / "weights" / f"{name}.safetensors"
    if not kept.is_file():
        convert(path, kept, asked, preprocess, progress=progress)
    cache.touch(kept)
    return kept


def file_digests(path: Path, progress: Report = silent) -> dict[str, str]:
    """SHA-1, SHA-256 and MD5 of a file: each publisher names another. Raises WeightsError."""
    hashers = {"sha1": hashlib.sha1(), "sha256": hashlib.sha256(), "md5": hashlib.md5()}
    try:
        with open(path, "rb") as file:
            size, done = os.fstat(file.fileno()).st_size, 0
            while chunk := file.read(2**22):
                for hasher in hashers.values():
                    hasher.update(chunk)
                done += len(chunk)
                progress("Digests", done, size, "")
    except OSError as error:
        raise WeightsError(f"{path}: no such weights file, or it cannot be read ({error.strerror}).") from error
    return {name: hasher.hexdigest() for name, hasher in hashers.items()}


def arrange(path: Path, tensors: Mapping[str, Tensor], network: str | None) -> tuple[dict[str, Tensor], Weights]:
    """Tensors by any source's names -> a state dict by torchvision's names, and the network that it is of.

    network: None finds it. Raises WeightsError.
    """
    if any(name.startswith("features.") for name in tensors):
        state = {_renamed(name, tensors): tensor for name, tensor in tensors.items()}
        kernels = {
            name[: -len(".weight")]: t.shape[-1]
            for name, t in state.items()
            if t.dim() == 4 and name.endswith(".weight")
        }
        batch_norm = any(name.endswith("running_mean") for name in state)
        found = _network(path, kernels, network, batch_norm, by_layer=False)
    else:
        layers = _layers(path, tensors)
        last = _channels_last(path, layers)
        kernels = {name: pair[0].shape[0 if last else -1] for name, pair in layers.items() if name.startswith("conv")}
        batch_norm = False
        found = _network(path, kernels, network, batch_norm, by_layer=True)
        state = _placed(path, layers, found, last)
    return state, _measured(path, state, found, batch_norm)


def check_names(network: str | None, preprocess: str | None) -> None:
    """Raises UsageError; None is none."""
    if network is not None and network not in ARCHITECTURES:
        raise UsageError(f"No network {network!r}. Known: {', '.join(ARCHITECTURES)}.")
    if preprocess is not None and preprocess not in PREPROCESSING:
        raise UsageError(f"No preprocessing {preprocess!r}. Known: {', '.join(PREPROCESSING)}.")


def _renamed(name: str, names: Iterable[str]) -> str:
    if "classifier.0.weight" in names or "classifier.1.weight" not in names:
        return name
    return next((new + name.removeprefix(old) for old, new in _OLD_CLASSIFIER.items() if name.startswith(old)), name)


def _layers(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """ "conv1_1" or "fc6" -> weights and biases, in the file's layout."""
    found: dict[str, list[Tensor]] = {}
    for name, tensor in tensors.items():
        match = _LAYER.search(name)
        if match is None:
            raise WeightsError(f"{path}: {name[:60]!r} is no layer of a VGG network (conv1_1 ... fc8).")
        block, conv = match[1] or match[3], match[2] or match[4]
        found.setdefault(f"conv{block}_{conv}" if block else match[5], []).append(tensor)
    layers = {}
    for name, pair in found.items():
        if len(pair) != 2:
            raise WeightsError(f"{path}: layer {name} has {len(pair)} tensors, expected are weights and biases.")
        weight, bias = sorted(pair, key=lambda tensor: -tensor.numel())
        layers[_KERAS.get(name, name) if "predictions" in found else name] = (weight, bias.flatten())
    return layers


def _channels_last(path: Path, layers: Mapping[str, tuple[Tensor, Tensor]]) -> bool:
    """Whether kernels are (k, k, in, out), as Keras and TensorFlow keep them, and not (out, in, k, k)."""
    shape = tuple(layers["conv1_1"][0].shape) if "conv1_1" in layers else ()
    first = len(shape) == 4 and shape[2] == shape[3] and shape[1] == 3
    last = len(shape) == 4 and shape[0] == shape[1] and shape[2] == 3
    if first == last:
        raise WeightsError(
            f"{path}: its first kernel is {shape or 'absent'}; accepted are (out, 3, k, k), (k, k, 3, out)."
        )
    return last


def _places(network: Architecture) -> dict[str, str]:
    """ "conv1_1" -> "features.0": Caffe's names of the convolutions and torchvision's."""
    places, index = {}, 0
    for b, block in enumerate(network.blocks, start=1):
        for c, _ in enumerate(block, start=1):
            places[f"conv{b}_{c}"] = f"features.{index}"
            index += (3 if network.batch_norm else 2) + (1 if network.lrn and b == c == 1 else 0)
        index += 1
    return places


def _network(path: Path, kernels: Mapping[str, int], wanted: str | None, batch_norm: bool, by_layer: bool) -> str:
    """The network with exactly these convolutions and kernel sides; of A and A-LRN it is A unless asked."""
    for name in [wanted] if wanted else ARCHITECTURES:
        net = architecture(name, batch_norm)
        sides = [conv.kernel for _, conv in net.convolutions]
        places = _places(net)
        if dict(zip(places if by_layer else places.values(), sides, strict=True)) == dict(kernels):
            return name
    listed = ", ".join(f"{name} {side}x{side}" for name, side in list(kernels.items())[:4])
    raise WeightsError(
        f"{path}: its {len(kernels)} convolutions ({listed}, ...) do not fit "
        + (f"network {wanted}." if wanted else f"any of {', '.join(ARCHITECTURES)}.")
    )


def _placed(
    path: Path, layers: Mapping[str, tuple[Tensor, Tensor]], network: str, channels_last: bool
) -> dict[str, Tensor]:
    """torchvision's names and layout. fc6 of channels-last files takes its inputs as (row, column, channel)."""
    places = {**_places(architecture(network)), **_FULLY_CONNECTED}
    if set(layers) != set(places):
        odd = sorted(set(layers) ^ set(places))[0]
        raise WeightsError(f"{path}: {odd} is {'absent' if odd in places else 'no layer of ' + network}.")
    channels = layers[list(_places(architecture(network)))[-1]][1].numel()
    state = {}
    for name, place in places.items():
        weight, bias = layers[name]
        units = bias.numel()
        if name.startswith("conv"):
            weight = weight.permute(3, 2, 0, 1) if channels_last else weight
        elif channels_last and name == "fc6":
            side = math.isqrt(weight.numel() // max(units * channels, 1))
            if side * side * channels * units == weight.numel():
                weight = weight.reshape(side, side, channels, units).permute(3, 2, 0, 1)
            weight = weight.reshape(units, -1)
        elif channels_last:
            weight = weight.reshape(-1, units).T
        elif units and weight.numel() % units == 0:
            weight = weight.reshape(units, -1)
        state[f"{place}.weight"], state[f"{place}.bias"] = weight.contiguous(), bias
    return state


def _measured(path: Path, state: Mapping[str, Tensor], network: str, batch_norm: bool) -> Weights:
    """Sizes as the tensors have them; whether all fit is found when the written file is read back."""
    places = _places(architecture(network, batch_norm))
    wanted = (f"{list(places.values())[-1]}.weight", *(f"{place}.weight" for place in _FULLY_CONNECTED.values()))
    for name in wanted:
        if name not in state or state[name].dim() < 2 or not state[name].numel():
            raise WeightsError(f"{path}: {name} is absent or empty, expected by network {network}.")
    last, fc6, fc8 = state[wanted[0]], state["classifier.0.weight"], state["classifier.6.weight"]
    width = state["features.0.weight"].shape[0] / architecture(network).blocks[0][0].channels
    hidden = fc6.shape[0] / HIDDEN_UNITS
    side = math.isqrt(fc6.shape[1] // last.shape[0])
    if side < 1 or side * side * last.shape[0] != fc6.shape[1]:
        raise WeightsError(
            f"{path}: fc6 takes {fc6.shape[1]:,} values, which is no square of positions over {last.shape[0]} channels."
        )
    return Weights(
        name=path.name,
        network=network,
        width=width,
        hidden_width=None if hidden == width else hidden,
        num_classes=fc8.shape[0],
        crop_size=CROP_SIZE if side == 7 else side << len(architecture(network).blocks),
        batch_norm=batch_norm,
    )


def _write(path: Path, out: Path, state: dict[str, Tensor], weights: Weights, progress: Report) -> Weights:
    """Under a temporary name, read back and checked, and only then under its own."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        weights = dataclasses.replace(weights, digest=digest_of(state))
        metadata = {METADATA_KEY: json.dumps(dataclasses.asdict(weights), sort_keys=True)}
        out.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, temporary, metadata=metadata)
        state.clear()
        progress("Converting", 2, 3, "")
        found = read_weights(temporary, weights.network)
        os.replace(temporary, out)
    except BadWeights as error:
        raise WeightsError(str(error).replace(str(temporary), str(path))) from error
    except Exception as error:
        # safetensors' own error for a full disk is no OSError.
        if isinstance(error, OSError) or type(error).__module__.startswith("safetensors"):
            why = cache.reason(out, error) if isinstance(error, OSError) else str(error)
            raise StorageError(f"{out}: cannot be written ({why}). Free space or name another --out.") from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    progress("Converting", 3, 3, "")
    return dataclasses.replace(found, path=str(out))
