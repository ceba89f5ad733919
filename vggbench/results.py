"""Records: what was measured, raw, as JSON lines; everything shown is derived from them."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer, model_validator

import vggbench
from vggbench import cache
from vggbench.errors import RecordError, StorageError, first_problem
from vggbench.results_engines import Engine, with_engines, without_no_engines

#: A reader takes every format up to its own and refuses a later one, naming who reads it. So whatever an older reader
#: would refuse or misread - a field, a kind, a unit - takes a new number; a record is of the format in which it is
#: written, and one that was read becomes of this one.
#: 1: first format. 2: numerics and peak, calibration of a network, scenario and process of a timing. 3: engines of a
#: network, the kind "loop".
FORMAT = 3
ACCEPTED = "Give a .jsonl or .jsonl.gz that vggbench wrote."


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Samples(_Frozen):
    """What was observed, raw. unit: "rank" (of the true label, 0 = top-1 right), "seconds", or "ratio" (the relative L2
    distance of an image's logits from the reference's). Raises ValidationError for a value that none of them can be."""

    unit: Literal["rank", "seconds", "ratio"]
    values: list[int] | list[float]
    warmups: list[float] = Field(default_factory=list)

    @field_validator("values", "warmups")
    @classmethod
    def _possible(cls, values: list[int] | list[float]) -> list[int] | list[float]:
        """Every comparison with NaN is false, so that one would pass any gate."""
        if values and not (min(values) >= 0 and sum(values) < math.inf):
            raise ValueError("accepted are finite numbers from 0 on")
        return values


class NetworkRun(_Frozen):
    """One network's part in a record: weights (flat description), protocol and passes, backend and what ran.

    calibration: of INT8: digest, method, images, data, layout, float_layers; empty for other precisions.
    engines: of TensorRT, with what each layer ran in; a session's text "layers" becomes them. Not written where none.
    """

    network: str
    weights: dict[str, Any]
    passes: list[dict[str, Any]]
    backend: str
    precision: str
    session: dict[str, Any] = Field(default_factory=dict)
    calibration: dict[str, Any] = Field(default_factory=dict)
    engines: list[Engine] = Field(default_factory=list)

    _takes_engines = model_validator(mode="before")(with_engines)

    @model_serializer(mode="wrap")
    def _written(self, fields: Callable[[NetworkRun], dict[str, Any]]) -> dict[str, Any]:
        return without_no_engines(fields(self))


class Workload(_Frozen):
    """What was run: protocol name, open choices, and the data (or the batch and size of a latency run).

    data: name, split, fingerprint, layout, classes, images (evaluated), total, decoder, bad (list of {id, why}).
    scenario: of a latency run: "latency" (one call at a time) or "throughput" (batches back to back).
    """

    protocol: str | None = None
    choices: dict[str, str] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    batch: int | None = None
    size: list[int] | None = None
    scenario: str | None = None


class Peak(_Frozen):
    """A matrix product (m, k) x (k, n) as fast as this machine does it. library: what ran it, with its version.

    operations: of one call, two for a multiply-accumulate. instances: products run at once.
    """

    precision: str
    library: str
    threads: int
    m: int
    n: int
    k: int
    operations: int
    instances: int = 1


class LayerDrift(_Frozen):
    """A layer's output against the reference's, over all images: relative_l2 = |x - ref| / |ref|, largest absolute
    difference, sqnr_db = 10 log10(|ref|^2 / |x - ref|^2) (None where nothing differs), cosine of the two."""

    layer: str
    relative_l2: float
    max_absolute: float
    sqnr_db: float | None
    cosine: float


class ImageDrift(_Frozen):
    """One image: margin between the reference's two best logits, top classes and ranks of the true label in both.

    drift: largest absolute change of a logit; rank -1 where there is no label.
    """

    id: str
    label: int
    margin: float
    drift: float
    reference_class: int
    variant_class: int
    reference_rank: int
    variant_rank: int


class Sensitivity(_Frozen):
    """Relative L2 of the logits and top-1 flips with only this layer quantized, and with all but it."""

    layer: str
    alone_relative_l2: float
    alone_flips: int
    without_relative_l2: float
    without_flips: int


class Recovery(_Frozen):
    """What keeping layers in floating point gives back: the k worst of the sensitivity list."""

    float_layers: list[str]
    relative_l2: float
    flips: int
    top1_errors: int


class Numerics(_Frozen):
    """What a variant moved against a reference on the same images.

    flips: images whose top-1 answer differs; lost, gained: right only with the reference, only with the variant;
    p_value: exact McNemar over lost and gained. changed: the images that flipped or moved most. margins, drifts: of
    every image, in the samples' order, as in ImageDrift. layers_note: why there are no layers.
    """

    reference: NetworkRun
    images: int
    reference_errors: int
    variant_errors: int
    flips: int
    lost: int
    gained: int
    p_value: float
    layers: list[LayerDrift]
    changed: list[ImageDrift]
    sensitivity: list[Sensitivity] = Field(default_factory=list)
    recovery: list[Recovery] = Field(default_factory=list)
    margins: list[float] = Field(default_factory=list)
    drifts: list[float] = Field(default_factory=list)
    layers_note: str = ""


class Record(_Frozen):
    """One measured number and all that is needed to know what it is.

    kind: "accuracy" (samples: ranks in the data's order), "latency" (seconds a call), "numerics" (ratios, an image
    each, with ``numerics``), "peak" (seconds a matrix product, with ``peak``) or "loop" (seconds of an evaluation of
    images in memory, a round each; conditions: session_seconds, of its session's calls alone).
    claim: id of the paper's row (paper.claims()) that it stands beside, or None.
    seed: of the training run for the sample family, so that findings can be judged over seeds.
    origin: "measured" in this run or "recorded" earlier and read from a file.
    process: number of the fresh process a timing was taken in. conditions: around a timing: memory, cold start, clocks,
    temperature, power, foreign processes; flat.
    """

    format: int = FORMAT
    kind: Literal["accuracy", "latency", "numerics", "peak", "loop"]
    claim: str | None = None
    networks: list[NetworkRun]
    workload: Workload
    samples: Samples
    seed: int | None = None
    origin: Literal["measured", "recorded"] = "measured"
    environment: dict[str, Any] = Field(default_factory=dict)
    started: str = ""
    elapsed_seconds: float | None = None
    hardest: list[dict[str, Any]] = Field(default_factory=list)
    process: int | None = None
    conditions: dict[str, Any] = Field(default_factory=dict)
    numerics: Numerics | None = None
    peak: Peak | None = None


def precision_of(record: Record) -> str:
    """The precision that all networks of a record ran at; "mixed" for several."""
    found = {run.precision for run in record.networks}
    return found.pop() if len(found) == 1 else "mixed"


def main_precision(records: Iterable[Record]) -> str:
    """The precision that a page's tables and findings speak of: fp32 if an accuracy record has it, else the first's."""
    found = [precision_of(record) for record in records if record.kind == "accuracy"]
    return "fp32" if "fp32" in found or not found else found[0]


def write_output(path: Path, data: bytes, what: str) -> None:
    """A file of a run's output folder, written whole or not at all. Raises StorageError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the parent may be a file
            temporary.unlink(missing_ok=True)
        why = cache.reason(path, error)
        raise StorageError(f"{path}: cannot write {what} ({why}). Free space or name another --out.") from error


def write_records(path: Path, records: Iterable[Record]) -> None:
    """One JSON line a record, written whole or not at all; .gz compresses. Raises StorageError."""
    data = "".join(record.model_dump_json() + "\n" for record in records).encode()
    write_output(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data, "records")


def read_records(path: Path) -> list[Record]:
    """All records of a JSON-lines file. Raises RecordError naming the line."""
    try:
        data = path.read_bytes()
        text = gzip.decompress(data).decode() if path.suffix == ".gz" else data.decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot read records ({error}). {ACCEPTED}") from error
    return records_of(path, text)


def records_of(path: Path, text: str) -> list[Record]:
    """The records of a file's text, of whatever format it is. Raises RecordError naming the line."""
    records = []
    # Not splitlines(): a name may hold U+2028 or U+0085, which stand unescaped in JSON.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if isinstance(fields, dict) and isinstance(written := fields.get("format"), int | float):
                if written > FORMAT:
                    raise RecordError(f"{path}, line {number}: {_too_new(fields)}")
                fields["format"] = FORMAT
            records.append(Record.model_validate(fields))
        except (ValueError, TypeError, RecursionError) as error:
            raise RecordError(f"{path}, line {number}: not a record ({first_problem(error)}). {ACCEPTED}") from error
    return records


def _too_new(fields: dict[str, Any]) -> str:
    """Says which version reads it: the one that wrote it does."""
    environment = fields.get("environment")
    writer = environment.get("vggbench") if isinstance(environment, dict) else None
    known = writer and writer != vggbench.__version__  # two commits of one version may differ in it
    wanted = f"vggbench {writer} or later reads it" if known else "a later vggbench reads it"
    return (
        f"format {fields['format']}, this version ({vggbench.__version__}) reads up to {FORMAT}; {wanted}: upgrade "
        "vggbench."
    )
