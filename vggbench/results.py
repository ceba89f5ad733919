"""Records: what was measured, raw, as JSON lines; everything shown is derived from them."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vggbench.errors import RecordError, StorageError

#: 1: first format.
FORMAT = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Samples(_Frozen):
    """What was observed, raw. unit: "rank" (of the true label, 0 = top-1 right) or "seconds"."""

    unit: Literal["rank", "seconds"]
    values: list[int] | list[float]
    warmups: list[float] = Field(default_factory=list)


class NetworkRun(_Frozen):
    """One network's part in a record: weights (flat description), protocol and passes, backend and what ran."""

    network: str
    weights: dict[str, Any]
    passes: list[dict[str, Any]]
    backend: str
    precision: str
    session: dict[str, Any] = Field(default_factory=dict)


class Workload(_Frozen):
    """What was run: protocol name, open choices, and the data (or the batch and size of a latency run).

    data: name, split, fingerprint, layout, classes, images (evaluated), total, decoder, bad (list of {id, why}).
    """

    protocol: str | None = None
    choices: dict[str, str] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    batch: int | None = None
    size: list[int] | None = None


class Record(_Frozen):
    """One measured number and all that is needed to know what it is.

    kind: "accuracy" (samples: ranks in the data's order) or "latency" (samples: seconds a call).
    claim: id of the paper's row (paper.claims()) that it stands beside, or None.
    seed: of the training run for the sample family, so that findings can be judged over seeds.
    origin: "measured" in this run or "recorded" earlier and read from a file.
    """

    format: int = FORMAT
    kind: Literal["accuracy", "latency"]
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
        reason = error.strerror or type(error).__name__
        raise StorageError(f"{path}: cannot write {what} ({reason}). Free space or name another --out.") from error


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
        raise RecordError(f"{path}: cannot read records ({error}).") from error
    records = []
    # Not splitlines(): a name may hold U+2028 or U+0085, which stand unescaped in JSON.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if isinstance(fields, dict) and fields.get("format", 0) > FORMAT:
                raise RecordError(
                    f"{path}, line {number}: format {fields['format']}, this version reads up to {FORMAT}; "
                    "upgrade vggbench."
                )
            records.append(Record.model_validate(fields))
        except (ValueError, TypeError, ValidationError) as error:
            first = str(error).splitlines()[0]
            raise RecordError(f"{path}, line {number}: not a record ({first}).") from error
    return records
