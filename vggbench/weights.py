"""Where weights come from: drawn by seed, the shipped sample family, a published model, or a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from vgg_reference.architectures import ARCHITECTURES, CROP_SIZE, NUM_CLASSES, UnknownArchitecture
from vgg_reference.weights import PREPROCESSING, BadWeights, Source, Weights, random_weights, read_header, read_weights
from vggbench import paper, paper_anchors, paper_models, weights_convert, weights_fetch, weights_formats
from vggbench.errors import UsageError, WeightsError
from vggbench.progress import Report, silent
from vggbench.protocols import scale_range

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
    """The weights that ``spec`` names: "random:SEED", "sample", the name of a fetched published model, or a file.

    A file that is not safetensors is converted into the cache first; preprocess is then what that file expects.

    train_scale: the paper's S ("256", "384", "[256;512]"); of "sample" it chooses the file (the jittered one, else
    256, by default), of another file it says what the file does not. preprocess: a name of PREPROCESSING, for files
    that say nothing of their input. num_classes: what the data has; a file must have as many.
    width to batch_norm act on random weights only. Raises UsageError, WeightsError.
    """
    try:
        weights_convert.check_names(network, preprocess)
        if train_scale is not None:
            scale_range(train_scale)
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
        path = _sample_file(network, train_scale) if spec == "sample" else _file(spec)
        file = weights_convert.converted(path, network, preprocess)
        given = PREPROCESSING[preprocess] if preprocess and file == path else None
        found = read_weights(file, network, num_classes, given)
        if given is not None and found.source is not None and read_header(file).preprocess != given:
            raise WeightsError(f"{file}: was converted and says what it expects. Leave --preprocess {preprocess} out.")
    except UnknownArchitecture as error:
        raise UsageError(str(error)) from error
    except BadWeights as error:
        raise WeightsError(str(error)) from error
    except ValueError as error:  # a crop size or a width that no network has
        raise UsageError(str(error)) from error
    if train_scale is not None and spec != "sample":
        found = dataclasses.replace(found, train_scale=train_scale)
    return found


def stand_in(spec: str, network: str, train_scale: str | None, num_classes: int | None) -> Weights | None:
    """For a plan: a published model that can be fetched and was not, with random values; None for all else.

    Raises WeightsError where the data has other classes.
    """
    model = paper_models.by_name(spec)
    if model is None or model.url is None or model.network != network or Path(spec).exists():
        return None
    if weights_fetch.place(model).is_file():
        return None
    drawn = random_weights(network, batch_norm=model.batch_norm)
    if num_classes not in (None, drawn.num_classes):
        raise WeightsError(f"{spec}: has {drawn.num_classes} classes, the data has {num_classes}.")
    digests = {"sha1": "", "sha256": "", "md5": "", model.digest_kind: model.digest}
    return dataclasses.replace(
        drawn,
        name=model.name,
        status=model.status,
        train_scale=train_scale or model.train_scale,
        digest=f"not fetched: {model.name}",
        source=Source(file=model.file, format=Path(model.file).suffix[1:], bytes=0, by="", done="", **digests),
    )


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
    rows += [_published_row(model) for model in paper_models.published()]
    rows += [_missing_row(entry) for entry in paper_models.without_weights()]
    return rows


def published_model(name: str) -> paper_models.Published:
    """A published model by its name, its file's name, or the network ("D", "D:[256;512]": the authors' own).

    Raises UsageError for a name that nobody has, WeightsError for weights that nobody published.
    """
    network, _, scale = name.partition(":")
    scale = scale.replace("256-512", "[256;512]")
    model = paper_models.by_name(name)
    if model is None and network in ARCHITECTURES:
        authors = [each for each in paper_models.published() if each.status == "authors"]
        model = next((m for m in authors if m.network == network and scale in ("", m.train_scale)), None)
        if model is None:
            raise WeightsError(
                f"Nobody published weights of {network}{f' trained at S = {scale}' if scale else ''} as in the paper. "
                f"Train them: {train_command(network, scale or '256')}."
            )
    if model is None:
        known = ", ".join(each.name for each in paper_models.published() if each.url)
        raise UsageError(f"No published model {name!r}. Known: {known}.")
    return model


def verify(file: Path, wanted: paper_models.Published | None = None, progress: Report = silent) -> dict[str, Any]:
    """What a file is: its digests, the published model that has them, and of safetensors what they hold.

    wanted: what it must be. Raises WeightsError.
    """
    digests = weights_convert.file_digests(file, progress)
    found = paper_models.identify(digests)
    kind = weights_formats.sniff(file)
    source = None
    if kind == "safetensors":
        try:
            source = read_header(file).source
            read_weights(file)
        except BadWeights as error:
            if "says nothing of itself" not in str(error):
                raise WeightsError(str(error)) from error
    elif found is None:  # a file of no publisher: at least it must be one of a network
        weights_convert.arrange(file, weights_formats.read(file)[1], None)
    if source is not None:
        found = paper_models.identify({"sha1": source.sha1, "sha256": source.sha256, "md5": source.md5})
    if wanted is not None and found != wanted:
        kept = digests[wanted.digest_kind]
        raise WeightsError(
            f"{file}: is not {wanted.name}: its {wanted.digest_kind} is {kept}, published is {wanted.digest}. "
            f"Download it with: vggbench weights fetch {wanted.name}."
        )
    return {
        "file": str(file),
        "format": kind,
        "published": found.name if found else None,
        "publisher": found.publisher if found else None,
        "converted_from": source.file if source else None,
        **digests,
    }


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


def _file(spec: str) -> Path:
    """A path, or the place of a published model that was fetched. Raises WeightsError."""
    path, model = Path(spec), paper_models.by_name(spec)
    if path.exists() or model is None:
        return path
    kept = weights_fetch.place(model)
    if not kept.is_file():
        raise WeightsError(f"{model.name} is not here. Download it with: vggbench weights fetch {model.name}.")
    return kept


def _published_row(model: paper_models.Published) -> dict[str, Any]:
    here = weights_fetch.place(model).is_file()
    return {
        "name": model.name,
        "network": model.network,
        "train_scale": model.train_scale,
        "status": model.status,
        "available": here,
        "publisher": model.publisher,
        "recipe": model.training,
        model.digest_kind: model.digest,
        "url": model.url,
        "licence": model.licence,
        "citation": model.citation,
        "preprocess": model.preprocess,
        "batch_norm": model.batch_norm,
        "megabytes": model.megabytes,
        "scores": [_score(anchor) for anchor in paper_anchors.of_model(model)],
        "file": str(weights_fetch.place(model)) if here else model.file,
        "note": "fetched"
        if here
        else "can be fetched"
        if model.url
        else "no address is known; a local file is verified",
    }


def _score(anchor: paper_anchors.Anchor) -> dict[str, Any]:
    fields = ("who", "protocol", "top1_error_percent", "top5_error_percent", "why_not")
    return {name: getattr(anchor, name) for name in fields}


def _missing_row(entry: paper.Entry) -> dict[str, Any]:
    return {
        "name": f"{entry.network}:{entry.train_scale}",
        "network": entry.network,
        "train_scale": entry.train_scale,
        "status": "none",
        "available": False,
        "note": f"nobody published it; {train_command(entry.network, entry.train_scale)}",
    }


def train_command(network: str, train_scale: str) -> str:
    """What trains weights that nobody published."""
    return f"vggbench train --network {network} --train-scale '{train_scale}' --data IMAGENET_TRAIN_DIR --out DIR"
