"""What a run would cost and where its time went, for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vggbench.cli_common import note, print_json, say

_WORDS = {
    "read": "files read, digests checked",
    "decode": "bytes to pixels",
    "resize": "rescaled and cut to views",
    "upload": "views to inputs, to the device",
    "compute": "the network, waited for",
    "store": "posteriors to the disk",
    "wait": "the session's thread, for views",
    "helped": "the session's thread, preparing views itself",
    "idle": "preparing threads, with enough ready",
}


def show_estimate(estimate: Any, json: bool) -> None:
    if json:
        print_json(dataclasses.asdict(estimate))
        return
    say(f"{estimate.data}: {estimate.images:,} images; {estimate.rows} rows")
    for line in estimate.networks:
        passes = ", ".join(f"{count} x {name}" for name, count in line["passes"].items())
        say(f"  {line['network']:9} S = {line['train_scale'] or 'unknown':10} {line['precision']:5} {passes}")
        say(f"  {'':30} {line['crop_equivalents']:,.0f} crop-equivalents, about {duration(line['seconds'])}")
    say(
        f"In all {estimate.crop_equivalents:,.0f} crop-equivalents, {estimate.views_to_compute:,} of "
        f"{estimate.views:,} views are not in the cache yet: about {duration(estimate.seconds)} "
        f"({estimate.speed})"
    )
    each = estimate.preparing["decode_seconds_an_image"]
    say(
        f"{estimate.limits.capitalize()} limits: {duration(estimate.network_seconds)} of the network, "
        f"{duration(estimate.preparing_seconds)} of preparing on {estimate.workers} threads "
        f"({1000 * each:.1f} ms an image to decode)."
    )
    say(f"Posteriors in the cache: {estimate.disk_bytes / 1e6:,.0f} MB. To be downloaded: nothing.")
    for name, size in estimate.downloads.items():
        say(f"  not given, and public: weights of {name}, {size / 1e6:,.0f} MB (vggbench weights fetch)")
    show_missing(estimate.missing)


def show_missing(missing: Sequence[str]) -> None:
    if missing:
        note(
            f"No weights for {', '.join(missing)}: their rows are not measured. Give them by --weights NETWORK:S=FILE."
        )


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_stages(stages: Mapping[str, float]) -> None:
    """Where the time went, in seconds over all threads, and what limits."""
    from vggbench.measure.stages import ADVICE, limiting

    limit = limiting(stages)
    if not limit:
        say("Nothing was computed: everything was in the cache.")
        return
    say(f"Where the time went ({stages['total']:.2f} s, {stages['threads']:.0f} threads prepare beside the session):")
    for name, words in _WORDS.items():
        if name in stages:
            say(f"  {name:8} {stages[name]:9.2f} thread-seconds   {words}")
    say(f"What limits: {ADVICE[limit]}.")
