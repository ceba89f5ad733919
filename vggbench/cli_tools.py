"""The commands that look after things: data, cache, doctor."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection
from typing import Annotated

import typer

from vggbench import cli_options as options
from vggbench import progress
from vggbench.cli_common import print_json, say
from vggbench.errors import BackendUnavailable, UsageError


def data_prepare(
    split: Annotated[str, typer.Option(help="test, tune or train.")] = "test",
    images: Annotated[int | None, typer.Option(min=1, help="Only the first N.")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw the built-in sample set into the cache; the same bytes on every machine."""
    from vggbench import cache
    from vggbench.images import sample

    with progress.shown(quiet or json) as shown:
        folder = sample.prepare(
            split,
            cache.root() / "sample",
            images,
            progress=lambda done, total: shown("Drawing the sample images", done, total, ""),
        )
    count = images or sample.SPLITS[split]
    if json:
        print_json({"folder": str(folder), "split": split, "images": count})
    else:
        say(f"{count:,} images of split {split}: {folder}")


def data_describe(
    data: Annotated[
        str,
        typer.Argument(
            help="A folder of labelled images or shards, a tar archive, or sample.", metavar="DIR|TAR|sample"
        ),
    ],
    split: options.Split = "test",
    labels: options.Labels = None,
    images: Annotated[int | None, typer.Option(min=1, help="Only the first N.")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """What images are taken for: layout, classes, images a class, labels and what was checked of them, fingerprint."""
    from vggbench.runs_inputs import open_images

    with progress.shown(quiet or json) as shown:
        dataset = open_images(data, labels, shown, split).first(images)
    sizes = Counter(label for image in dataset.images for label in image.labels)
    counts = [sizes.get(label, 0) for label in range(len(dataset.classes))]
    answers = Counter(len(image.labels) for image in dataset.images)
    document = {
        "name": dataset.name,
        "split": dataset.split,
        "layout": dataset.layout,
        "images": len(dataset.images),
        "total": dataset.total,
        "classes": len(dataset.classes),
        "images_per_class": {"least": min(counts), "most": max(counts)},
        "classes_without_images": counts.count(0),
        "labels": dataset.label_set or "one an image",
        "labels_per_image": {"least": min(answers), "most": max(answers)},
        "checked": list(dataset.notes),
        "first_classes": list(dataset.classes[:5]),
        "first_images": [{"id": image.id, "label": image.label} for image in dataset.images[:5]],
        "fingerprint": dataset.fingerprint,
    }
    if json:
        print_json(document)
        return
    empty = f"; {counts.count(0):,} classes without one" if 0 in counts else ""
    several = f", {_between(answers)} an image" if max(answers) > 1 else ""
    part = "" if len(dataset.images) == dataset.total else f" of {dataset.total:,}"
    say(f"{dataset.name} ({dataset.split})")
    say(f"  taken for    {dataset.layout}")
    say(f"  images       {len(dataset.images):,}{part}, {_between(counts)} of each class{empty}")
    say(f"  classes      {len(dataset.classes):,}: {', '.join(dataset.classes[:3])}, ...")
    say(f"  labels       {document['labels']}{several}")
    for note in dataset.notes:
        say(f"  checked      {note}")
    say(f"  fingerprint  {dataset.fingerprint}")
    say("The first in the order of evaluation; --images N takes the first N, which are even over the classes:")
    for image in dataset.images[:5]:
        say(f"  {image.id}  is {' or '.join(f'{label} ({dataset.classes[label]})' for label in image.labels)}")


def _between(counts: Collection[int]) -> str:
    """ "0 to 3", or "2" where all are equal."""
    return f"{min(counts)} to {max(counts)}" if min(counts) != max(counts) else str(max(counts))


def cache_ls(json: options.Json = False) -> None:
    """What the cache holds, by kind."""
    from vggbench import cache
    from vggbench.doctor import mib

    root = cache.root()
    entries = cache.entries(root)
    kinds = {kind: [entry for entry in entries if entry.kind == kind] for kind in cache.KINDS}
    if json:
        document = {
            "root": str(root),
            "bytes": sum(entry.bytes for entry in entries),
            "entries": [dataclasses.asdict(entry) for entry in entries],
        }
        print_json(document)
        return
    say(f"{root}")
    for kind, found in kinds.items():
        journals = sum(entry.journals for entry in found)
        note = f"; journals of runs that go on or were killed: {journals:,}" if journals else ""
        size = mib(sum(entry.bytes for entry in found))
        say(f"{kind:13} {len(found):6,} entries {size:>12}   {cache.KINDS[kind]}{note}")


def cache_prune(
    older_than: Annotated[float | None, typer.Option(help="Entries not used for so many days.", metavar="DAYS")] = None,
    max_size: Annotated[
        float | None, typer.Option(help="The least recently used until the rest takes so many MiB.", metavar="MIB")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Of this kind only (see cache ls), repeatable.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All entries.")] = False,
    json: options.Json = False,
) -> None:
    """Remove what can be computed again: by age, by size, or --all. Half-written files of killed runs always go."""
    from vggbench import cache
    from vggbench.doctor import mib

    if (older_than is not None and older_than < 0) or (max_size is not None and max_size < 0):
        raise UsageError("A negative --older-than or --max-size. Give a number from 0 on.")
    freed = cache.prune(
        cache.root(),
        older_than_days=older_than,
        max_bytes=None if max_size is None else int(max_size * 2**20),
        kinds=tuple(kind) if kind else None,
        everything=everything,
    )
    if json:
        print_json({"root": str(cache.root()), "freed_bytes": freed})
    else:
        say(f"{mib(freed)} freed in {cache.root()}")


def doctor(json: options.Json = False) -> None:
    """What works on this machine, and the command that would fix the rest."""
    from vggbench.doctor import examine
    from vggbench.environment import environment

    checks = examine()
    if json:
        print_json({"checks": [dataclasses.asdict(check) for check in checks], "environment": environment()})
    else:
        for check in checks:
            say(f"{check.state:7} {check.name}: {check.detail}")
            if check.fix:
                say(f"        fix: {check.fix}")
    broken = [check.name for check in checks if check.state == "broken"]
    if broken:
        raise BackendUnavailable(f"Broken here: {', '.join(broken)}. The lines above say what to do.")
