"""The other precisions of `reproduce`: which run, on which rows, with which calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vgg_reference.weights import Weights
from vggbench import backends, plan, runs_inputs
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.images import Dataset
from vggbench.precisions import QUANTIZED
from vggbench.progress import Report
from vggbench.ranges import Quantization
from vggbench.runs_inputs import Request, Setting

#: On the sample set the precisions beside the first are measured on these rows, one of each network; --full takes all.
SAMPLE_TABLES, SAMPLE_TRAIN_SCALES = (3,), ("256",)
#: What `reproduce` measures on the sample set without --precision; a folder takes fp32 alone.
SAMPLE_PRECISIONS = ("fp32", "bf16", "int8")

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
        file = request.calibrations.get((each.network, each.train_scale)) or request.calibrations.get(
            (each.network, None)
        )
        if file is None and not request.on_sample:
            raise UsageError(
                f"INT8 needs the ranges of {each.network}, taken from other images than those evaluated. Make them: "
                f"vggbench calibrate --network {each.network} --data OTHER-FOLDER --out ranges.json, and give them: "
                f"--calibration {each.network}=ranges.json."
            )
        ranges = ranges_for(each, file=file, threads=setting.threads, progress=progress)
        check_disjoint(ranges, dataset)
        found[each.digest] = Quantization(ranges)
    return found
