"""The commands that look after things: data, cache, doctor."""

from __future__ import annotations

import dataclasses
from collections import Counter
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
    data: Annotated[str, typer.Argument(help="A folder of labelled images, or sample.", metavar="DIR|sample")],
    split: Annotated[str, typer.Option(help="Of the sample set: test, tune or train.")] = "test",
    labels: options.Labels = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """What a folder is taken for: layout, classes, images a class, fingerprint."""
    from vggbench.runs_inputs import open_images

    with progress.shown(quiet or json) as shown:
        dataset = open_images(data, labels, shown, split)
    sizes = Counter(image.label for image in dataset.images)
    counts = [sizes.get(label, 0) for label in range(len(dataset.classes))]
    document = {
        "name": dataset.name,
        "split": dataset.split,
        "layout": dataset.layout,
        "images": len(dataset.images),
        "classes": len(dataset.classes),
        "images_per_class": {"least": min(counts), "most": max(counts)},
        "first_classes": list(dataset.classes[:5]),
        "first_images": [{"id": image.id, "label": image.label} for image in dataset.images[:5]],
        "fingerprint": dataset.fingerprint,
    }
    if json:
        print_json(document)
        return
    say(f"{dataset.name} ({dataset.split}): {dataset.layout}")
    say(f"{len(dataset.images):,} images in {len(dataset.classes):,} classes, {min(counts)} to {max(counts)} a class")
    say(f"fingerprint {dataset.fingerprint}")
    for image in dataset.images[:5]:
        say(f"  {image.id}  is class {image.label}, {dataset.classes[image.label]}")


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
        say(f"{kind:12} {len(found):6,} entries {mib(sum(entry.bytes for entry in found)):>12}   {cache.KINDS[kind]}")


def cache_prune(
    older_than: Annotated[float | None, typer.Option(help="Entries not used for so many days.", metavar="DAYS")] = None,
    max_size: Annotated[
        float | None, typer.Option(help="The least recently used until the rest takes so many MiB.", metavar="MIB")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only this kind (see cache ls), repeatable.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All entries.")] = False,
    json: options.Json = False,
) -> None:
    """Remove what can be computed again; leftovers of killed runs always go."""
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
