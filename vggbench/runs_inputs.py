"""What a run is asked for, made into data, weights and a plan; every mistake in the asking is found here."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from vgg_reference.architectures import ARCHITECTURES, UnknownArchitecture
from vgg_reference.weights import PREPROCESSING, BadWeights, Weights, read_weights
from vggbench import backends, cache, paper, plan, weights_convert
from vggbench import weights as known_weights
from vggbench.backends.choice import choose
from vggbench.errors import StorageError, UsageError, WeightsError
from vggbench.images import Dataset, check_on_bad, open_dataset
from vggbench.images.decode import decoder_name
from vggbench.progress import Report
from vggbench.protocols import PROTOCOLS, Choices
from vggbench.report.rows import is_imagenet
from vggbench.results import Record, read_records
from vggbench.sizes import Sizes, check_forms

SAMPLE = "sample"
#: Random networks for the sample set are as small as the shipped ones.
SAMPLE_SIZE: Mapping[str, float | int] = {"width": 1 / 8, "hidden_width": 1 / 16, "crop_size": 64}
#: Of a file whose digest is no published one only the user can say whose weights it holds.
AUTHORS_AS_STATED = "the authors' public model, as stated by who ran this"


@dataclass(frozen=True)
class Setting:
    """How passes run. device: "auto", "cpu" or "cuda"; threads: None leaves the backend's default. decoder: of JPEGs.

    why: a sentence, where the backend was chosen and not asked for. sizes: what engines are built for.
    """

    backend: str
    precision: str = "fp32"
    device: str = "auto"
    threads: int | None = None
    on_bad: str = "stop"
    choices: Choices = field(default_factory=Choices)
    decoder: str = "pillow"
    why: str = field(default="", compare=False)
    sizes: Sizes | None = None


@dataclass(frozen=True)
class Request:
    """What `reproduce` was asked for. weights: (network, training scale or None) -> file; empty takes the family.

    authors: the user states that the files are the authors' public models; needed for verdicts where a file's digest is
    no published one.
    images: only the first so many; tables, train_scales: only these; full: all images for the costly rows of the sample
    set too. anchors: a name of plan.ANCHORS; None takes "center", beside chosen tables "none". speed: time the networks
    at each precision, where there are several. others: further precisions beside the first; left_out: those that cannot
    run here, a sentence each. calibrations: (network, training scale or None) -> file of ranges, for int8;
    float_layers: the same -> layers that stay in floating point then.
    only_planned: published models that were not fetched are taken as if they were.
    """

    setting: Setting
    data: str = SAMPLE
    labels: Path | None = None
    weights: Mapping[tuple[str, str | None], str] = field(default_factory=dict)
    preprocess: str | None = None
    authors: bool = False
    tables: tuple[int, ...] = ()
    images: int | None = None
    full: bool = False
    anchors: str | None = None
    train_scales: tuple[str, ...] = ()
    speed: bool = False
    others: tuple[Setting, ...] = ()
    left_out: tuple[str, ...] = ()
    calibrations: Mapping[tuple[str, str | None], Path] = field(default_factory=dict)
    float_layers: Mapping[tuple[str, str | None], tuple[str, ...]] = field(default_factory=dict)
    only_planned: bool = False

    @property
    def on_sample(self) -> bool:
        return self.data == SAMPLE

    @property
    def costly_images(self) -> int | None:
        """Images of the costly rows: a verdict on the paper's own rows needs all."""
        return None if self.full or not self.on_sample else plan.COSTLY_IMAGES


def setting(
    *,
    backend: str | None = None,
    precision: str = "fp32",
    device: str = "auto",
    threads: int | None = None,
    on_bad: str = "stop",
    choices: Choices | None = None,
    decoder: str = "pillow",
    sizes: Sizes | None = None,
) -> Setting:
    """A setting that can work here. Raises UsageError, BackendUnavailable before anything costly happens."""
    check_on_bad(on_bad)
    decoder_name(decoder)
    if backend is None or backend == backends.AUTO:
        backend, why = _default_backend(precision, device)
    else:
        backends.check_runs(backend, precision, device)
        why = ""
    backends.check_sizes(backend, sizes)
    return Setting(backend, precision, device, threads, on_bad, choices or Choices(), decoder, why, sizes)


def _default_backend(precision: str, device: str) -> tuple[str, str]:
    """The fastest here, and why it was chosen. Raises UsageError, BackendUnavailable."""
    choice = choose(precision, device)
    return choice.backend, choice.why


def dataset_of(request: Request, progress: Report) -> Dataset:
    """The images asked for; those of the sample set are drawn if they are not there. Raises DataError, UsageError."""
    chosen(request)  # a mistake in it is told before a large folder is read
    return open_images(request.data, request.labels, progress)


def open_images(
    data: str, labels: Path | None, progress: Report, split: str = "test", count: int | None = None
) -> Dataset:
    """A dataset by "sample" or its folder, with progress. count: no more images than these are drawn or read.

    Raises DataError, StorageError, UsageError.
    """
    stage = "Drawing the sample images" if data == SAMPLE else "Reading the folder"
    return open_dataset(
        data,
        split=split,
        cache_root=cache.root(),
        count=count,
        labels=labels,
        progress=lambda done, total: progress(stage, done, total, ""),
    )


def plan_of(request: Request, dataset: Dataset) -> plan.Plan:
    """The rows that the weights allow. Raises UsageError if there is none, WeightsError for other classes."""
    claims, anchors = chosen(request)
    available = _available(request, claims, len(dataset.classes))
    count = min(request.images or len(dataset.images), len(dataset.images))
    work = plan.plan(
        claims,
        available,
        count,
        request.costly_images,
        anchors if on_imagenet(dataset) else "none",
        request.setting.choices,
    )
    if not work.rows:
        known = ", ".join(f"{network} (S = {scale})" for network, scale in available) or "no network"
        needs = "no figure of others is known for them and these images" if anchors == "only" else ""
        raise UsageError(
            f"Nothing to measure: there are weights of {known}, and {needs or 'no chosen row of the paper needs them'}."
        )
    check_forms(request.setting.sizes, forms_of(work))
    return work


def forms_of(work: plan.Plan) -> set[str]:
    """Forms of the plan's passes."""
    return {step.form for network in work.networks for step, _ in network.passes}


def on_imagenet(dataset: Dataset) -> bool:
    """Whether these are the images that published figures are of, whole or in part."""
    return is_imagenet({"name": dataset.name, "classes": len(dataset.classes), "labels": dataset.label_set})


def chosen(request: Request) -> tuple[tuple[paper.Claim, ...], str]:
    """The rows of the paper and which of other people's figures are asked for. Raises UsageError."""
    anchors = request.anchors or ("none" if request.tables else "center")
    if anchors not in plan.ANCHORS:
        raise UsageError(f"No anchors {anchors!r}. Known: {', '.join(plan.ANCHORS)}.")
    if anchors != "only":
        return plan.choose_claims(request.tables), anchors
    if request.tables:
        raise UsageError("Both --table and --anchors only were given. Accepted is one; or --anchors center.")
    return (), anchors


def _available(request: Request, claims: Sequence[paper.Claim], classes: int) -> dict[tuple[str, str], Weights]:
    """(network, training scale) -> weights: those given, else the shipped family as far as it is there."""
    if request.weights:
        found = {}
        for (network, scale), file in request.weights.items():
            planned = known_weights.stand_in(file, network, scale, classes) if request.only_planned else None
            weights = planned or weights_of(file, network, scale, classes, request.preprocess)
            trained = _train_scale(network, scale, weights)
            if request.authors and weights.status == "other":
                weights = dataclasses.replace(weights, status="authors", recipe=AUTHORS_AS_STATED, train_scale=trained)
            found[network, trained] = weights
        return found
    if not request.on_sample:
        raise UsageError("A folder needs weights that know its classes. Give them: --weights D=vgg16.safetensors.")
    wanted = {(entry.network, entry.train_scale) for claim in claims for entry in claim.entries}
    wanted |= {(entry.network, entry.train_scale) for entry in plan.CENTER_CROP}
    shipped = {(row["network"], row["train_scale"]) for row in known_weights.list_weights() if row["name"] == SAMPLE}
    chosen = {key for key in wanted & shipped if not request.train_scales or key[1] in request.train_scales}
    return {key: weights_of(SAMPLE, *key, classes) for key in sorted(chosen)}


def _train_scale(network: str, scale: str | None, weights: Weights) -> str:
    """S of weights: as asked, as they say, or what the authors' models of D and E were trained with."""
    known = scale or weights.train_scale or (paper.PUBLIC_TRAIN_SCALE if network in paper.PUBLIC_NETWORKS else None)
    if known is None:
        raise UsageError(
            f"Weights of {network} do not say their training scale. Name it: --weights {network}:256=FILE."
        )
    return known


def weights_of(
    spec: str,
    network: str,
    train_scale: str | None,
    classes: int | None,
    preprocess: str | None = None,
    size: Mapping[str, float | int] | None = None,
) -> Weights:
    """Weights that fit the network and the data. size: of random weights, as resolve() takes it.

    Raises UsageError for an unknown network or size, WeightsError.
    """
    return known_weights.resolve(
        spec,
        network,
        train_scale=train_scale,
        num_classes=classes,
        preprocess=preprocess,
        **(size or {}),  # type: ignore[arg-type]
    )


def check_names(network: str, protocol_name: str) -> None:
    """Found before the data is looked at. Raises UsageError."""
    if network not in ARCHITECTURES:
        raise UsageError(f"No network {network!r}. Known: {', '.join(ARCHITECTURES)}.")
    if protocol_name not in PROTOCOLS:
        raise UsageError(f"No protocol {protocol_name!r}. Known: {', '.join(PROTOCOLS)}.")


def describe_file(file: Path, network: str | None, preprocess: str | None) -> dict[str, Any]:
    """A weights file's description, flat. Raises WeightsError, UsageError."""
    weights_convert.check_names(network, preprocess)
    try:
        found = read_weights(file, network, None, PREPROCESSING[preprocess] if preprocess else None)
    except UnknownArchitecture as error:
        raise UsageError(str(error)) from error
    except BadWeights as error:
        raise WeightsError(str(error)) from error
    return {key: value for key, value in dataclasses.asdict(found).items() if value not in (None, "")}


def recorded_runs() -> list[Record]:
    """Records of the sample family's other seeds, made earlier and shipped; empty where they are not."""
    tree = Path(__file__).resolve().parents[1] / "reports" / "sample-family" / "records.jsonl.gz"
    shipped = Path(str(resources.files("vggbench"))) / "sample_family" / "records.jsonl.gz"
    for path in (shipped, tree):
        if path.is_file():
            return [record.model_copy(update={"origin": "recorded"}) for record in read_records(path)]
    return []


def check_out(out: Path) -> None:
    """A folder; found before hours of work, not after. Raises StorageError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "a file is there" if out.is_file() else cache.reason(out, error)
        raise StorageError(f"{out}: cannot be made ({why}). Name another --out.") from error
    if not os.access(out, os.W_OK):
        raise StorageError(f"{out}: cannot be written to. Name another --out.")


def check_file(out: Path, example: str) -> None:
    """The same of a file to write, and its folder. Raises StorageError."""
    check_out(out.absolute().parent)
    if out.is_dir():
        raise StorageError(f"{out}: is a folder. Name a file: --out {out / example}.")
