"""The runs, each a page of calls that take the last one's result. Nothing here prints or exits."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vggbench import environment, paper, plan, runs_inputs, runs_notes, runs_precision, runs_speed, runs_thumbnails
from vggbench import report as pages
from vggbench.distributed import ALONE, Group
from vggbench.findings import Finding, judge
from vggbench.images import Dataset
from vggbench.measure import stages
from vggbench.measure.accuracy import PassResults, Progress
from vggbench.measure.pipeline import DecodedImages
from vggbench.measure.records import accuracy_record
from vggbench.measure.together import run_passes_together
from vggbench.progress import Report, silent
from vggbench.protocols import default_scales, protocol
from vggbench.report.anchors import verdicts_of
from vggbench.report.frame import frame
from vggbench.report.rows import measured
from vggbench.results import Record, write_output, write_records
from vggbench.results_names import float_layers_in
from vggbench.runs_inputs import Request, Setting
from vggbench.runs_precision import Quantizations
from vggbench.sizes import check_forms

#: (weights digest, its rows' own resize filter, number of first images) -> what ran.
Results = Mapping[tuple[str, str | None, int], PassResults]


@dataclass(frozen=True)
class Reproduced:
    """What a run of `reproduce` left behind. records: measured in this run; missing: networks without weights.

    stages: seconds by stage over all threads, see measure.stages.
    """

    page: Path
    records_path: Path
    records: list[Record]
    findings: list[Finding]
    missing: tuple[str, ...]
    stages: dict[str, float]


def reproduce(request: Request, out: Path, progress: Report = silent, group: Group = ALONE) -> Reproduced | None:
    """Tables 3-6 as far as the weights reach: records and the page. None on all ranks of the group but 0.

    Raises any VggbenchError.
    """
    started, clock = _now(), time.monotonic()
    runs_inputs.check_out(out)
    dataset = group.first(lambda: runs_inputs.dataset_of(request, progress))
    # The first to come converts weights of other formats, which takes GBs of memory; the others find them converted.
    work = group.first(lambda: runs_inputs.plan_of(request, dataset))
    records, how, took = _measure(request, dataset, work, progress, group)
    hows = [(request.setting, how)]
    for other in runs_precision.others(request):
        found, how, more = _measure(other, dataset, runs_inputs.plan_of(other, dataset), progress, group)
        records += found
        hows.append((other.setting, how))
        took = stages.total([took, more], in_turn=True)
    if group.rank:
        return None
    records += runs_precision.causes(request, dataset, [each.weights for each in work.networks], records, progress)
    if request.speed and len(hows) > 1:
        records += runs_speed.speeds(work.networks, hows, progress)
    recorded = runs_inputs.recorded_runs() if request.on_sample else []
    findings = judge([*records, *recorded])
    context = pages.context_from(records)
    context = dataclasses.replace(
        context,
        started=started,
        elapsed_seconds=time.monotonic() - clock,
        dataset={**context.dataset, "classes": list(dataset.classes)},
        thumbnails=runs_thumbnails.thumbnails(dataset, records, request.setting.choices),
        notes=runs_notes.notes(request, dataset, work),
        full=len({row.images for row in work.rows}) == 1,
    )
    write_records(out / "records.jsonl", [*records, *recorded])
    write_output(out / "results.csv", frame([*records, *recorded]).to_csv(index=False).encode(), "results")
    pages.write_page(out / "index.html", pages.render([*records, *recorded], findings, context))
    return Reproduced(out / "index.html", out / "records.jsonl", records, findings, work.missing, took)


def _measure(
    request: Request, dataset: Dataset, work: plan.Plan, progress: Report, group: Group
) -> tuple[list[Record], Quantizations, dict[str, float]]:
    """One record a row of the plan, at the request's precision (none on other ranks than 0), how the networks were made
    INT8 for it, and where the time went."""
    started, setting = _now(), request.setting
    weights = [network.weights for network in work.networks]
    how = group.first(lambda: runs_precision.quantizations(request, setting, weights, dataset, progress))
    results = run_networks(dataset, work, setting, progress, how, group)
    records = [] if group.rank else records_of(dataset, work, results, setting, started)
    return records, how, stages.total((each.counts.stages for each in results.values()), in_turn=True)


def run_networks(
    dataset: Dataset,
    work: plan.Plan,
    setting: Setting,
    progress: Report = silent,
    quantizations: Quantizations = MappingProxyType({}),
    group: Group = ALONE,
) -> Results:
    """Every pass of the plan, one network after the other; decoded images are kept between them.

    Of several processes rank 0 has the results, the others none.
    """
    several = sum(len(network.batches) for network in work.networks) > 1
    decoded = DecodedImages() if several else DecodedImages(0)
    total = sum(plan.crop_equivalents(network, setting.choices) for network in work.networks)
    done = 0.0
    results: dict[tuple[str, str | None, int], PassResults] = {}
    for number, network in enumerate(work.networks, start=1):
        name = f"{network.weights.network} {network.weights.train_scale or ''}".strip() + f" {setting.precision}"
        cost = plan.crop_equivalents(network, setting.choices)
        weight = sum(images * len(steps) for images, steps in network.batches)
        for images, steps in network.batches:
            share = cost * images * len(steps) / weight
            found = run_passes_together(
                dataset.first(images),
                network.weights,
                steps,
                group=group,
                backend=setting.backend,
                precision=setting.precision,
                quantization=quantizations.get(network.weights.digest),
                choices=network.choices(setting.choices),
                device=setting.device,
                threads=setting.threads,
                on_bad=setting.on_bad,
                progress=_part_of(progress, done, share, total, f"{name} ({number} of {len(work.networks)})"),
                decoded=decoded,
                decoder=setting.decoder,
                sizes=setting.sizes,
            )
            if found is not None:
                results[network.weights.digest, network.resize_filter, images] = found
            done += share
            progress("Running the networks", done, total, name)
    return results


def _part_of(progress: Report, before: float, share: float, total: float, name: str) -> Progress:
    """The progress of one call as a share of the whole run, in crop-equivalents."""

    def report(done: int, of: int, what: str) -> None:
        progress("Running the networks", before + share * done / of, total, f"{name}: {what}")

    return report


def records_of(dataset: Dataset, work: plan.Plan, results: Results, setting: Setting, started: str) -> list[Record]:
    """One record a row."""
    here = environment.environment()
    records = []
    for row in work.rows:
        parts = [(results[part.weights.digest, row.resize_filter, row.images], part.protocol) for part in row.parts]
        records.append(
            accuracy_record(
                dataset.first(row.images),
                parts,
                choices=row.choices(setting.choices),
                environment=here,
                claim=row.claim,
                fingerprint_full=dataset.fingerprint,
                started=started,
                elapsed_seconds=sum(each.counts.seconds for each, _ in parts),
            )
        )
    return records


def evaluate(
    *,
    setting: Setting,
    data: str = runs_inputs.SAMPLE,
    labels: Path | None = None,
    split: str = "test",
    network: str = "D",
    weights: str = "sample",
    preprocess: str | None = None,
    train_scale: str | None = None,
    protocol_name: str = "dense",
    scales: tuple[int, ...] | None = None,
    images: int | None = None,
    size: Mapping[str, float | int] | None = None,
    calibration: Path | None = None,
    float_layers: tuple[str, ...] = (),
    progress: Report = silent,
    group: Group = ALONE,
) -> tuple[Record, dict[str, Any]] | None:
    """One network by one protocol: its record, and what the run took. None on all ranks of the group but 0.

    Raises any VggbenchError.

    size: width, hidden_width, crop_size of random weights. calibration: ranges for int8; the sample set has its own.
    float_layers: of int8 and fp8 stay in floating point.
    """
    started = _now()
    runs_inputs.check_names(network, protocol_name)
    dataset = group.first(lambda: runs_inputs.open_images(data, labels, progress, split))
    size = {**(runs_inputs.SAMPLE_SIZE if data == runs_inputs.SAMPLE else {}), **(size or {})}
    classes = len(dataset.classes)
    found = group.first(lambda: runs_inputs.weights_of(weights, network, train_scale, classes, preprocess, size))
    at = scales or default_scales(protocol_name, train_scale or found.train_scale, found.crop_size)
    count = min(images or len(dataset.images), len(dataset.images))
    work = plan.single(found, protocol(protocol_name, at), count)
    check_forms(setting.sizes, runs_inputs.forms_of(work))
    request = Request(
        setting,
        data,
        calibrations={(network, None): calibration} if calibration else {},
        float_layers={(network, None): float_layers},
    )
    how = group.first(lambda: runs_precision.quantizations(request, setting, [found], dataset, progress))
    results = run_networks(dataset, work, setting, progress, how, group)
    if group.rank:
        return None
    (record,) = records_of(dataset, work, results, setting, started)
    counts = next(iter(results.values())).counts
    took = {**dataclasses.asdict(counts), "limiting": stages.limiting(counts.stages)}
    return record, {**took, "views_per_second": counts.views_per_second}


def report(records_path: Path, out: Path) -> Path:
    """The page rebuilt from records alone. Raises RecordError, StorageError."""
    runs_inputs.check_out(out)
    page = out / "index.html"
    pages.write_page(page, pages.rebuild(records_path))
    return page


def save(records: Sequence[Record], path: Path) -> None:
    """Records as JSON lines. Raises StorageError."""
    write_records(path, records)


def summary_of(record: Record) -> dict[str, Any]:
    """A record's numbers, flat: errors in percent with their intervals, and what the paper printed beside them."""
    (row,) = measured([record])
    claim = next((claim for claim in paper.claims() if claim.id == record.claim), None)
    names = "+".join(f"{run.network}/{run.weights.get('train_scale') or '?'}" for run in record.networks)
    return {
        "row": record.claim or f"{record.workload.protocol}/{names}",
        "claim": record.claim,
        "networks": [run.network for run in record.networks],
        "weights": [run.weights["name"] for run in record.networks],
        "protocol": record.workload.protocol,
        "scales": sorted({step["scale"] for run in record.networks for step in run.passes}),
        "choices": record.workload.choices,
        "backend": record.networks[0].backend,
        "precision": record.networks[0].precision,
        "float_layers": float_layers_in(record),
        "data": record.workload.data["name"],
        "images": row.images,
        "top1_error_percent": row.top1.percent,
        "top1_interval_percent": [row.top1.low, row.top1.high],
        "top5_error_percent": row.top5.percent,
        "top5_interval_percent": [row.top5.low, row.top5.high],
        "paper_top1_error_percent": claim.top1_error_percent if claim else None,
        "paper_top5_error_percent": claim.top5_error_percent if claim else None,
        "bad": record.workload.data.get("bad", []),
        **verdicts_of(record),
    }


def summary_of_all(done: Reproduced) -> dict[str, Any]:
    """What `reproduce --json` prints."""
    return {
        "page": str(done.page),
        "records": str(done.records_path),
        "rows": [summary_of(record) for record in done.records if record.kind == "accuracy"],
        "findings": [dataclasses.asdict(finding) for finding in done.findings],
        "missing": list(done.missing),
        "stages": done.stages,
        "limiting": stages.limiting(done.stages),
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
