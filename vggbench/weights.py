"""Where weights come from: drawn by seed, the shipped sample family, or a safetensors file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from vgg_reference.architectures import ARCHITECTURES, CROP_SIZE, NUM_CLASSES, UnknownArchitecture, architecture
from vgg_reference.weights import PREPROCESSING, BadWeights, Weights, random_weights, read_header, read_weights
from vggbench import paper
from vggbench.errors import UsageError, WeightsError

#: <network>-<scale>.safetensors, scale 256, 384 or 256-512: small networks trained on the sample set.
SAMPLE_FAMILY = Path(__file__).parent / "sample_family"


def resolve(
    spec: str,
    network: str,
    *,
    train_scale: str | None = None,
    preprocess: str | None = None,
    num_classes: int | None = None,
    width: float = 1.0,
    hidden_width: float | None = None,
    crop_size: int = CROP_SIZE,
    batch_norm: bool = False,
) -> Weights:
    """The weights that ``spec`` names: "random:SEED", "sample" or the path of a safetensors file.

    train_scale: the paper's S ("256", "384", "[256;512]"); of "sample" it chooses the file (the jittered one, else
    256, by default), of another file it says what the file does not. preprocess: a name of PREPROCESSING, for files
    that say nothing of their input. num_classes: what the data has; a file must have as many.
    width to batch_norm act on random weights only. Raises UsageError, WeightsError.
    """
    try:
        architecture(network)
        if preprocess is not None and preprocess not in PREPROCESSING:
            raise UsageError(f"No preprocessing {preprocess!r}. Known: {', '.join(PREPROCESSING)}.")
        if spec.startswith("random:"):
            return random_weights(
                network,
                _seed(spec),
                width=width,
                hidden_width=hidden_width,
                num_classes=NUM_CLASSES if num_classes is None else num_classes,
                crop_size=crop_size,
                batch_norm=batch_norm,
            )
        path = _sample_file(network, train_scale) if spec == "sample" else Path(spec)
        found = read_weights(path, network, num_classes, PREPROCESSING[preprocess] if preprocess else None)
    except UnknownArchitecture as error:
        raise UsageError(str(error)) from error
    except BadWeights as error:
        raise WeightsError(str(error)) from error
    except ValueError as error:  # a crop size or a width that no network has
        raise UsageError(str(error)) from error
    if train_scale is not None and spec != "sample":
        found = dataclasses.replace(found, train_scale=train_scale)
    return found


def list_weights() -> list[dict[str, Any]]:
    """What ``resolve`` takes, and the public models that are known: flat, for a table or JSON."""
    rows = [_sample_row(path) for path in _sample_files()]
    rows.append(
        {
            "name": "random:SEED",
            "network": ",".join(ARCHITECTURES),
            "status": "random",
            "available": True,
            "recipe": "He initialization by seed: for speed, not for accuracy",
        }
    )
    public = paper.public_models()
    for model in public["authors_caffe"]:
        if "caffemodel_url" in model:
            row = {"sha1": model["caffemodel_sha1"], "url": model["caffemodel_url"], "licence": model["licence"]}
            rows.append(_public_row(model, "authors", model["training"], row))
    for model in public["torchvision"]["weights"]:
        row = {"sha256_prefix": model["sha256_prefix"], "url": model["url"], "batch_norm": model["batch_norm"]}
        rows.append(_public_row(model, "other", "torchvision's own training", row))
    return rows


def _seed(spec: str) -> int:
    text = spec.removeprefix("random:")
    # int() takes "1_0" and " 1" too, which a record could not be searched for.
    if not text.isascii() or not text.isdigit() or int(text) >= 2**63:
        raise UsageError(f"No seed {text!r}. Accepted is random:N with a whole number N from 0, as in random:0.")
    return int(text)


def _sample_files() -> list[Path]:
    return sorted(SAMPLE_FAMILY.glob("*.safetensors"), key=lambda path: path.stem)


def _sample_file(network: str, train_scale: str | None) -> Path:
    scales = ["256-512", "256"] if train_scale is None else [train_scale.strip("[]").replace(";", "-")]
    for scale in scales:
        path = SAMPLE_FAMILY / f"{network}-{scale}.safetensors"
        if path.is_file():
            return path
    present = ", ".join(path.stem for path in _sample_files()) or "none"
    raise WeightsError(f"No sample weights {network}-{scales[0]}. Shipped: {present}. Train some with: vggbench train.")


def _sample_row(path: Path) -> dict[str, Any]:
    weights = read_header(path)
    return {
        "name": "sample",
        "network": weights.network,
        "train_scale": weights.train_scale,
        "status": weights.status,
        "available": True,
        "num_classes": weights.num_classes,
        "crop_size": weights.crop_size,
        "bytes": path.stat().st_size,
        "digest": weights.digest,
        "recipe": weights.recipe,
        "licence": weights.licence,
        "file": path.name,
    }


def _public_row(model: dict[str, Any], status: str, recipe: str, more: dict[str, Any]) -> dict[str, Any]:
    known = {"name": model["name"], "network": model["config"], "status": status, "available": False}
    return {**known, "recipe": recipe, **more, "note": "known, not downloaded yet"}
