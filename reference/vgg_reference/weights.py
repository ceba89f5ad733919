"""Weights files: read, checked and written; what they say of themselves is a Weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vgg_reference.architectures import CROP_SIZE, NUM_CLASSES, UnknownArchitecture, count_parameters, final_side
from vgg_reference.architectures import architecture as find_architecture
from vgg_reference.model import VGG, build, initialize_he
from vgg_reference.weights_description import METADATA_KEY, PREPROCESSING, BadWeights, Preprocess, Source, Weights

__all__ = [
    "METADATA_KEY",
    "PREPROCESSING",
    "BadWeights",
    "Preprocess",
    "Source",
    "Weights",
    "digest_of",
    "empty_model",
    "load",
    "random_weights",
    "read_header",
    "read_weights",
    "save_weights",
    "state_dict",
]

#: Of random weights: VGG-16 sixteen times as wide has 35 billion parameters.
WIDEST = 16


def digest_of(state: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, independent of order and of the container."""
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous().reshape(-1)
        sha.update(f"{name} {tensor.dtype} {tuple(state[name].shape)}\n".encode())
        sha.update(tensor.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def random_weights(
    network: str,
    seed: int = 0,
    *,
    width: float = 1.0,
    hidden_width: float | None = None,
    num_classes: int = NUM_CLASSES,
    crop_size: int = CROP_SIZE,
    batch_norm: bool = False,
) -> Weights:
    """He-initialized weights by seed: for speed and for relations that hold for any weights.

    Raises UnknownArchitecture, ValueError for sizes that no network has.
    """
    blocks = len(find_architecture(network, batch_norm).blocks)
    final_side(crop_size, blocks)
    for given in (width, width if hidden_width is None else hidden_width):
        if not 0 < given <= WIDEST:
            raise ValueError(f"Width {given:g}: accepted are widths above 0, up to {WIDEST}.")
    if num_classes < 1:
        raise ValueError(f"{num_classes} classes: accepted is 1 class or more.")
    identity = f"he {network} {seed} {width} {hidden_width} {num_classes} {crop_size} {batch_norm}"
    return Weights(
        name=f"random:{seed}",
        network=network,
        width=width,
        hidden_width=hidden_width,
        num_classes=num_classes,
        crop_size=crop_size,
        batch_norm=batch_norm,
        status="random",
        recipe=f"He initialization, seed {seed}",
        digest=hashlib.sha256(identity.encode()).hexdigest(),
        seed=seed,
    )


def empty_model(weights: Weights, *, dense: bool = False, pool_ceil: bool = False) -> VGG:
    """The network of these weights in evaluation mode, its tensors without storage: shapes, no values.

    So nothing is drawn from torch's global generator, and a full-size network takes no time.
    """
    with torch.device("meta"):
        return build(
            weights.network,
            weights.width,
            weights.num_classes,
            weights.crop_size,
            dense,
            batch_norm=weights.batch_norm,
            pool_ceil=pool_ceil,
            hidden_width=weights.hidden_width,
            lrn_alpha=weights.lrn_alpha,
        ).eval()


def state_dict(weights: Weights) -> dict[str, Tensor]:
    """The tensors of these weights, FP32 on the CPU. Raises BadWeights."""
    if weights.path is None:
        model = empty_model(weights).to_empty(device="cpu")
        for layer in model.features:
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_parameters()
        return initialize_he(model, weights.seed or 0).state_dict()
    with _opened(Path(weights.path)) as file:
        return {name: _aligned(file.get_tensor(name).float()) for name in file.keys()}  # noqa: SIM118


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor where PyTorch itself would have put it: at 64 bytes, where a mapped file's need not begin.

    On some CPUs matrix products of other addresses are added in another order, so that the same weights under a longer
    header would give logits that differ in their last bits.
    """
    return tensor if tensor.data_ptr() % 64 == 0 else tensor.clone()


def load(weights: Weights, *, dense: bool = False, pool_ceil: bool = False) -> VGG:
    """The network with its weights, in evaluation mode. Raises BadWeights."""
    model = empty_model(weights, dense=dense, pool_ceil=pool_ceil)
    state = state_dict(weights)
    _check_shapes(weights.path or weights.name, weights.network, model, state)
    model.load_state_dict(state, assign=True)
    return model


def save_weights(path: Path, state: dict[str, Tensor], weights: Weights) -> Weights:
    """Write FP32 safetensors with its Weights as metadata, atomically; returns them with digest and path."""
    state = {name: tensor.detach().float().cpu().contiguous() for name, tensor in state.items()}
    named = dataclasses.replace(weights, digest=digest_of(state), path=None)
    data = save(state, metadata={METADATA_KEY: json.dumps(dataclasses.asdict(named), sort_keys=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
    return dataclasses.replace(named, path=str(path))


def read_weights(
    path: Path,
    network: str | None = None,
    num_classes: int | None = None,
    preprocess: Preprocess | None = None,
) -> Weights:
    """What a safetensors file holds, checked against the network and class count asked for. Raises BadWeights.

    A file of this project says all about itself. A foreign one (torchvision's or timm's names) must be of a full-size
    224 network, and ``preprocess`` must say what input it expects. Raises UnknownArchitecture too.
    """
    path = Path(path)
    with _opened(path) as file:
        metadata = (file.metadata() or {}).get(METADATA_KEY)
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if metadata is not None:
        weights = _from_metadata(path, metadata)
        if network is not None and network != weights.network:
            raise BadWeights(f"{path}: holds network {weights.network}, asked was {network}.")
    else:
        weights = _foreign(path, shapes, network, preprocess)
    if num_classes is not None and num_classes != weights.num_classes:
        raise BadWeights(f"{path}: has {weights.num_classes} classes, the data has {num_classes}.")
    if preprocess is not None:
        weights = dataclasses.replace(weights, preprocess=preprocess)
    try:
        model = empty_model(weights)
    except UnknownArchitecture:
        raise
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise BadWeights(f"{path}: describes a network that cannot be built ({error}).") from error
    _check_shapes(str(path), weights.network, model, shapes)
    state = state_dict(weights)
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise BadWeights(
                f"{path}: {name} has values that are not finite; the file is damaged or its training failed."
            )
    digest = digest_of(state)
    if weights.digest and weights.digest != digest:
        raise BadWeights(f"{path}: its tensors do not match the digest in its metadata; the file was altered.")
    return dataclasses.replace(weights, digest=digest)


def read_header(path: Path) -> Weights:
    """What a file of this project says of itself; its tensors stay unread and unchecked. Raises BadWeights."""
    with _opened(path) as file:
        metadata = (file.metadata() or {}).get(METADATA_KEY)
    if metadata is None:
        raise BadWeights(f"{path}: says nothing of itself.")
    return _from_metadata(path, metadata)


def _opened(path: Path):  # type: ignore[no-untyped-def]
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        if not path.is_file():
            raise BadWeights(f"{path}: no such weights file.") from error
        raise BadWeights(f"{path}: not a safetensors file ({error}). Accepted are .safetensors files.") from error


def _from_metadata(path: Path, text: str) -> Weights:
    try:
        fields = json.loads(text)
        order, mean, scale = (fields["preprocess"][key] for key in ("order", "mean", "scale"))
        known = {field.name for field in dataclasses.fields(Weights)} - {"preprocess", "path", "source"}
        kept = {key: value for key, value in fields.items() if key in known}
        source = _source(fields.get("source"))
        weights = Weights(
            **kept, preprocess=Preprocess(order, tuple(mean), tuple(scale)), path=str(path), source=source
        )
        find_architecture(weights.network)
    except (ValueError, KeyError, TypeError, UnknownArchitecture) as error:
        raise BadWeights(f"{path}: its {METADATA_KEY!r} metadata cannot be read ({error}).") from error
    return weights


def _source(fields: dict[str, str | int] | None) -> Source | None:
    """As a later version may have written it, with more fields. Raises KeyError."""
    if fields is None:
        return None
    return Source(**{field.name: fields[field.name] for field in dataclasses.fields(Source)})  # type: ignore[arg-type]


def _foreign(
    path: Path, shapes: dict[str, tuple[int, ...]], network: str | None, preprocess: Preprocess | None
) -> Weights:
    if network is None or preprocess is None:
        raise BadWeights(
            f"{path}: says nothing of itself; name its network and its preprocessing ({', '.join(PREPROCESSING)})."
        )
    last = shapes.get("classifier.6.weight", (NUM_CLASSES,))[0]
    return Weights(
        name=path.name,
        network=network,
        num_classes=last,
        batch_norm=any(name.endswith("running_mean") for name in shapes),
        preprocess=preprocess,
        path=str(path),
    )


def _check_shapes(name: str, network: str, model: VGG, state: dict[str, Tensor] | dict[str, tuple[int, ...]]) -> None:
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) if isinstance(value, Tensor) else value for key, value in state.items()}
    for key in [*wanted, *found]:
        if wanted.get(key) != found.get(key):
            parameters = count_parameters(model.architecture) if model.crop_size == CROP_SIZE else None
            raise BadWeights(
                f"{name}: does not fit network {network}: {key} is {found.get(key, 'absent')}, "
                f"expected {wanted.get(key, 'absent')}"
                + (f" ({network} has {parameters:,} parameters at 1000 classes)." if parameters else ".")
            )
