"""What a run would cost and where its time went, for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vggbench.cli_common import note, print_json, say

#: Rows of one verdict that are named; of more, their number is.
LISTED = 4
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
    total = "" if estimate.of_images == estimate.images else f" of {estimate.of_images:,}"
    say(f"{estimate.data}: {estimate.images:,}{total} images; {estimate.layout}")
    others = f" and {estimate.other_rows} beside them (section 4.1, --anchors)" if estimate.other_rows else ""
    say(f"{_counted(estimate.rows, 'row')} of the paper{others}, from these passes, each run once:")
    for line in estimate.networks:
        _show_network(line)
    say(
        f"In all {estimate.crop_equivalents:,.0f} crop-equivalents, each the work of its network on one crop; "
        f"{estimate.views_to_compute:,} of {estimate.views:,} views are not in the cache yet."
    )
    if estimate.views_to_compute:
        say(f"Time: about {duration(estimate.seconds)}, at {estimate.speed}.")
        _show_limits(estimate)
    else:
        say("Time: seconds, for nothing is left to compute.")
    parts = ", ".join(f"{megabytes(size)} of {kind}" for kind, size in estimate.disk.items())
    say(
        f"Disk: up to {megabytes(estimate.disk_bytes)} in the cache ({parts}), with what is there already; "
        f"{megabytes(estimate.free_bytes)} are free."
    )
    for name, size in estimate.downloads.items():
        say(f"To be downloaded first: {name}, {megabytes(size)}: vggbench weights fetch {name}")
    if not estimate.downloads:
        say("To be downloaded: nothing.")
    for name, size in estimate.public.items():
        say(f"  not given, and public: weights of {name}, {megabytes(size)}: vggbench weights fetch {name[0]}")
    if estimate.no_verdict:
        say(f"No row of the paper will get a verdict: {'; '.join(estimate.no_verdict)}.")
    show_missing(estimate.missing)


def _show_limits(estimate: Any) -> None:
    each = estimate.preparing["decode_seconds_an_image"]
    say(
        f"  {estimate.limits} limits: {duration(estimate.network_seconds)} of the network beside "
        f"{duration(estimate.preparing_seconds)} of preparing images on {_counted(estimate.workers, 'thread')} "
        f"({1000 * each:.1f} ms an image to decode)"
    )


def _show_network(line: dict[str, Any]) -> None:
    """One network: what it runs on how many images, and what that takes."""
    scale = line["train_scale"] or f"{line['taken_for']} (not said)"
    resized = "" if line["resize_filter"] is None else f", resized {line['resize_filter']}"
    say(f"  {line['network']}, S = {scale}, {line['precision']}{resized}: {line['weights']}")
    images: dict[int, list[str]] = {}
    for name, count in line["passes"].items():
        images.setdefault(count, []).append(name)
    for count, names in images.items():
        say(f"    {count:,} images: {', '.join(_grouped(names))}")
    say(f"    {line['crop_equivalents']:,.0f} crop-equivalents, about {duration(line['seconds'])}")


def _grouped(names: Sequence[str]) -> list[str]:
    """ "dense at 384", "dense at 256" -> "dense at 256, 384"."""
    scales: dict[str, list[int]] = {}
    for name in names:
        what, _, scale = name.rpartition(" at ")
        scales.setdefault(what, []).append(int(scale))
    return [f"{what} at {', '.join(map(str, sorted(found)))}" for what, found in scales.items()]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def megabytes(size: float) -> str:
    """ "96 MB", "2.3 GB"."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def show_missing(missing: Sequence[str]) -> None:
    if not missing:
        return
    from vggbench.plan import published

    public, nobody = (", ".join(names) for names in published(missing))
    if public:
        note(f"No weights for {public}: their rows are not measured. Give them by --weights NETWORK=FILE.")
    if nobody:
        note(
            f"No weights for {nobody}, and nobody published any: their rows are not measured. vggbench train makes "
            "them; give them by --weights NETWORK:S=FILE."
        )


def show_verdicts(rows: Sequence[Mapping[str, Any]]) -> None:
    """Of summary_of()'s rows: what is said of the paper's and of other people's figures, equal ones on one line. Of the
    sample set nothing: its networks can neither confirm nor contradict anybody's figure."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rows if any(row["data"] != "sample" for row in rows) else ():
        for who, judged in ((row["label"], row["verdict"]), *((_published(each), each) for each in row["anchors"])):
            if judged is not None:
                found.setdefault((judged["kind"], judged["reason"], judged["likely"]), []).append(who)
    if found:
        say("")
    for (kind, reason, likely), names in found.items():
        listed = "; ".join(names) if len(names) <= LISTED else f"{len(names)} rows"
        say(f"{kind}: {listed}: {reason}{f'. Likely: {likely}' if likely else ''}")


def show_judged(findings: Sequence[Any]) -> None:
    """Verdict, effect in points of top-1 error with its 95 % interval, and what the paper says."""
    if findings:
        say(f"\n{'verdict':12} {'effect, points':24} finding")
    for found in findings:
        effect = "not measured"
        if found.effect_points is not None:
            effect = f"{found.effect_points:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
        say(f"{found.verdict:12} {effect:24} {found.statement}")


def published_errors(beside: Mapping[str, Any]) -> str:
    """Someone's errors in percent, of a row of summary_of()'s anchors."""
    found = (("top-1", beside["top1_error_percent"]), ("top-5", beside["top5_error_percent"]))
    return ", ".join(f"{name} {error} %" for name, error in found if error is not None)


def _published(beside: Mapping[str, Any]) -> str:
    return f"{beside['who']}, {published_errors(beside)}"


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
    preparing = _counted(round(stages["threads"]), "preparing thread")
    say(f"Where the time went ({stages['total']:.2f} s, {preparing} beside the session):")
    for name, words in _WORDS.items():
        if name in stages:
            say(f"  {name:8} {stages[name]:9.2f} thread-seconds   {words}")
    say(f"What limits: {ADVICE[limit]}.")
