"""After the sample family's training: ship one seed's weights, and record every seed's ranks.

    python -m vggbench.runs_family FAMILY_DIR [--seeds 0,1,2]

The first seed's networks become vggbench/sample_family/*.safetensors. The others are evaluated on the reported split as
`vggbench reproduce` evaluates the first, and their records, ranks and no pictures, go to
reports/sample-family/records.jsonl.gz, from which every page judges the paper's findings over seeds.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from vgg_reference.weights import Weights, read_weights
from vggbench import cache, paper, plan, progress, runs, runs_inputs
from vggbench.errors import WeightsError
from vggbench.results import Record, write_records
from vggbench.runs_inputs import Request
from vggbench.weights import SAMPLE_FAMILY

REPORTS = Path(__file__).resolve().parents[1] / "reports" / "sample-family"


def ship(family: Path, seed: int, target: Path = SAMPLE_FAMILY) -> list[Path]:
    """Copy the networks that the paper's rows need; returns the files."""
    target.mkdir(parents=True, exist_ok=True)
    shipped = []
    for (network, scale), weights in trained(family, seed).items():
        path = target / f"{network}-{_file_scale(scale)}.safetensors"
        cache.write_atomic(path, Path(str(weights.path)).read_bytes())
        shipped.append(path)
        curve = Path(str(weights.path)).with_name("curve.jsonl")
        (REPORTS / "curves").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(curve, REPORTS / "curves" / f"{path.stem}-seed{seed}.jsonl")
    return shipped


def trained(family: Path, seed: int) -> dict[tuple[str, str], Weights]:
    """(network, training scale S) -> weights, for every network of the paper's rows that this seed has."""
    found = {}
    wanted = {(entry.network, entry.train_scale) for claim in paper.claims() for entry in claim.entries}
    for network, scale in sorted(wanted):
        path = family / f"seed{seed}" / f"{network}-{_file_scale(scale)}" / "weights.safetensors"
        if path.is_file():
            found[network, scale] = read_weights(path, network)
    if not found:
        raise WeightsError(f"{family}: holds no networks of seed {seed}. Train them: python -m vggbench.train.family.")
    return found


def _file_scale(scale: str) -> str:
    return scale.strip("[]").replace(";", "-")


def record(
    family: Path, seeds: Sequence[int], full: bool = False, report: progress.Report = progress.silent
) -> list[Record]:
    """All rows of Tables 3-6 for each seed; full: on all images the rows of 150 crops an image too."""
    request = Request(runs_inputs.setting(), full=full)
    dataset = runs_inputs.dataset_of(request, report)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    records = []
    for seed in seeds:
        work = plan.plan(paper.claims(), trained(family, seed), len(dataset.images), request.costly_images)
        results = runs.run_networks(dataset, work, request.setting, report)
        for found in runs.records_of(dataset, work, results, request.setting, started):
            records.append(found.model_copy(update={"hardest": [], "origin": "recorded"}))
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", type=Path)
    parser.add_argument("--seeds", default="0,1,2", help="the first is shipped, the others are recorded")
    parser.add_argument("--full", action="store_true", help="all images for the costly rows too")
    arguments = parser.parse_args()
    first, *others = (int(seed) for seed in arguments.seeds.split(","))
    for path in ship(arguments.family, first):
        print(path)
    others = [seed for seed in others if (arguments.family / f"seed{seed}").is_dir()]
    if not others:  # the records that are there stay
        return
    with progress.shown() as report:
        write_records(REPORTS / "records.jsonl.gz", record(arguments.family, others, arguments.full, report))
    print(REPORTS / "records.jsonl.gz")


if __name__ == "__main__":
    main()
