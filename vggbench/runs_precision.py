"""The other precisions of `reproduce`: which run, on which rows, with which calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from vgg_reference.weights import Weights
from vggbench import backends, cache, environment, plan, runs_inputs
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.images import Dataset
from vggbench.precisions import QUANTIZED
from vggbench.progress import Report
from vggbench.ranges import Quantization
from vggbench.report.precision import missed, precision_rows
from vggbench.report.rows import measured
from vggbench.results import NetworkRun, Record, read_records, write_records
from vggbench.runs_inputs import Request, Setting
from vggbench.variants import digest_of

#: On the sample set the precisions beside the first are measured on these rows, one of each network; --full takes all.
SAMPLE_TABLES, SAMPLE_TRAIN_SCALES = (3,), ("256",)
#: What `reproduce` measures on the sample set without --precision; a folder takes fp32 alone.
SAMPLE_PRECISIONS = ("fp32", "bf16", "int8")

#: Images on which the layers of a network are judged that moved more than expected; their distances need few.
CAUSE_IMAGES = 64
#: To be raised when kept numerics would come out otherwise today.
CAUSES_VERSION = 2

Given = TypeVar("Given")
#: Weights' digest -> how they are made INT8.
Quantizations = Mapping[str, Quantization]


def settings(
    precisions: str | None, *, on_sample: bool, backend: str | None = None, **common: Any
) -> tuple[Setting, tuple[Setting, ...], tuple[str, ...]]:
    """The first precision's setting, those of the others, and what cannot run here, a sentence each.

    precisions: as typed, "fp32,int8"; None takes those of the sample set, as far as they run here. common: what
    runs_inputs.setting takes beside. Raises UsageError, BackendUnavailable for a precision that was asked for by name.
    """
    names = list(SAMPLE_PRECISIONS if on_sample else ("fp32",)) if precisions is None else parse(precisions)
    found, left_out = [], []
    for name in names:
        try:
            found.append(runs_inputs.setting(backend=backend, precision=name, **common))
        except BackendUnavailable as error:
            if precisions is not None or not found:
                raise
            left_out.append(f"{name} was not measured: {str(error).rstrip('.')}.")
    return found[0], tuple(found[1:]), tuple(left_out)


def parse(precisions: str) -> list[str]:
    """ "fp32,int8" -> its names, each known and once. Raises UsageError."""
    names = [name.strip() for name in precisions.split(",")]
    for name in names:
        if name not in backends.PRECISIONS:
            raise UsageError(f"No precision {name!r}. Known: {', '.join(backends.PRECISIONS)}.")
    if len(set(names)) < len(names):
        raise UsageError(f"Precisions {precisions!r}: each is accepted once.")
    return names


def others(request: Request) -> list[Request]:
    """The request at each further precision: on the sample set without --full for fewer rows, or for none."""
    tables, train_scales = request.tables, request.train_scales
    if request.on_sample and not request.full:
        known = {claim.table for claim in plan.choose_claims(request.tables)}
        tables, train_scales = tuple(table for table in SAMPLE_TABLES if table in known), SAMPLE_TRAIN_SCALES
        if not tables:
            return []
    changes: dict[str, Any] = {"tables": tables, "train_scales": train_scales, "others": ()}
    return [dataclasses.replace(request, setting=setting, **changes) for setting in request.others]


def quantizations(
    request: Request, setting: Setting, weights: Sequence[Weights], dataset: Dataset, progress: Report
) -> Quantizations:
    """How each set of weights is made INT8; nothing for another precision.

    Ranges come from the files given, for the sample family else from its tuning split. Raises UsageError where a
    folder's weights have none, CalibrationError for ranges of other weights or images that are evaluated too.
    """
    if setting.precision not in QUANTIZED:
        return {}
    from vggbench.quantize import check_disjoint
    from vggbench.runs_calibrate import ranges_for

    found = {}
    for each in weights:
        file = _of(request.calibrations, each)
        if file is None and not request.on_sample:
            raise UsageError(
                f"INT8 needs the ranges of {each.network}, taken from other images than those evaluated. Make them: "
                f"vggbench calibrate --network {each.network} --data OTHER-FOLDER --out ranges.json, and give them: "
                f"--calibration {each.network}=ranges.json."
            )
        ranges = ranges_for(each, file=file, threads=setting.threads, progress=progress)
        check_disjoint(ranges, dataset)
        found[each.digest] = Quantization(ranges, _of(request.float_layers, each) or ())
    return found


def causes(
    request: Request, dataset: Dataset, weights: Sequence[Weights], records: Sequence[Record], progress: Report
) -> list[Record]:
    """For each network whose error moved more than expected: which layers moved, and of INT8 which cost how much.

    Kept in the cache, for the same networks, images and versions give the same.
    """
    found: list[Record] = []
    seen: list[tuple[str, NetworkRun]] = []
    by_digest = {each.digest: each for each in weights}
    _, rows = precision_rows(measured(records), [])
    for _, precision, change in missed(rows):
        runs = change.row.record.networks
        if len(runs) == 1 and runs[0].weights.get("digest") in by_digest and (precision, runs[0]) not in seen:
            seen.append((precision, runs[0]))
            found += _numerics(request, dataset, by_digest[runs[0].weights["digest"]], runs[0], progress)
    return found


def _numerics(request: Request, dataset: Dataset, weights: Weights, run: NetworkRun, progress: Report) -> list[Record]:
    from vggbench.measure.shards import LIBRARIES
    from vggbench.runs_numerics import Asked, numerics

    first = dataset.first(CAUSE_IMAGES)
    library = environment.installed(LIBRARIES.get(run.backend, run.backend))
    ran = [run.precision, run.calibration, run.backend, library]
    key = [weights.digest, *ran, first.fingerprint, request.setting.choices, CAUSES_VERSION]
    path = cache.root() / "numerics" / f"{digest_of({'key': [str(part) for part in key]})}.jsonl"
    with cache.storage_errors(path):
        present = path.is_file()
    if present:
        cache.touch(path)
        return read_records(path)
    asked = Asked(
        request.setting,
        variants=(f"{run.precision}@{run.backend}",),
        calibration=_of(request.calibrations, weights),
        float_layers=_of(request.float_layers, weights) or (),
        sensitivity=run.precision == "int8",
    )
    records = numerics(first, weights, asked, progress)
    write_records(path, records)
    return records


def _of(given: Mapping[tuple[str, str | None], Given], weights: Weights) -> Given | None:
    """What was given for these weights: for their training scale, else for all of their network."""
    return given.get((weights.network, weights.train_scale)) or given.get((weights.network, None))
