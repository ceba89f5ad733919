"""What the gate finds and what it invents, by simulation; prints Markdown. python tests/bench/gate_power.py --help

Noise has three parts. process_cv: how far the medians of fresh processes lie apart (where memory came to lie, which
core, what the machine did meanwhile). within_cv and autocorrelation: how calls of one process scatter, and how much a
call resembles the one before it; they matter little, since only a process' median is used. round_cv: a drift of the
machine that base and head share where they are run in turn. Real figures come from records: --from RECORDS.jsonl; of
gates between equal sides, as gate_real.py writes them, whole rounds are drawn.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gate_intervals import other_intervals, other_intervals_in_rounds
from scipy import signal

from vggbench.gate import Limits, compare
from vggbench.gate_pairs import name_of
from vggbench.gate_statistics import ratio_in_rounds, ratio_of_medians
from vggbench.results import NetworkRun, Record, Samples, Workload, read_records

TOLERANCE, SLOWDOWN = 0.05, 0.10


@dataclass(frozen=True)
class Noise:
    """Of log times, so about fractions of a time. calls: a process."""

    process_cv: float = 0.015
    within_cv: float = 0.03
    autocorrelation: float = 0.6
    round_cv: float = 0.0
    calls: int = 100

    def seconds(self, random: np.random.Generator, processes: int) -> tuple[np.ndarray, np.ndarray]:
        """Of BASE and of HEAD, (processes, calls) each: AR(1) calls about each process' own level; both sides alike."""
        shared = random.normal(0, self.round_cv, (1, processes, 1))
        level = shared + random.normal(0, self.process_cv, (2, processes, 1))
        scale = self.within_cv * math.sqrt(1 - self.autocorrelation**2)
        steps = random.normal(0, scale, (2, processes, self.calls))
        steps[..., 0] = random.normal(0, self.within_cv, (2, processes))
        calls = signal.lfilter([1.0], [1.0, -self.autocorrelation], steps, axis=-1)
        base, head = 0.1 * np.exp(level + calls)
        return base, head


def record(seconds: np.ndarray, round_: int | None = None) -> Record:
    """A latency record of one process."""
    run = NetworkRun(network="D", weights={}, passes=[], backend="simulated", precision="fp32")
    return Record(
        kind="latency",
        networks=[run],
        workload=Workload(batch=1, size=[224, 224], scenario="latency"),
        samples=Samples(unit="seconds", values=seconds.tolist()),
        conditions={} if round_ is None else {"ab_round": round_},
    )


def gates(noise: Noise, count: int, processes: int, slowdown: float = 0.0, seed: int = 0) -> dict[str, int]:
    """The verdicts of so many whole gates on simulated records, run in turn."""
    random = np.random.default_rng(seed)
    found: dict[str, int] = {}
    for _ in range(count):
        base, head = noise.seconds(random, processes)
        sides = [[record(row, number) for number, row in enumerate(side)] for side in (base, head * (1 + slowdown))]
        verdict = compare(*sides, limits=Limits(tolerance=TOLERANCE)).verdict
        found[verdict] = found.get(verdict, 0) + 1
    return found


def lower_bounds(noise: Noise, count: int, processes: int, interleaved: bool = True, seed: int = 0) -> np.ndarray:
    """Logs of the interval's lower bound where nothing changed; a slowdown s moves each by log(1 + s), no more."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        base, head = (np.median(side, axis=1) for side in noise.seconds(random, processes))
        found.append(math.log((ratio_in_rounds if interleaved else ratio_of_medians)(base, head, 0.95).low))
    return np.array(found)


def power(bounds: np.ndarray, slowdown: float) -> float:
    """Share of gates that find it."""
    return float(np.mean(bounds + math.log1p(slowdown) > math.log1p(TOLERANCE)))


def smallest_found(bounds: np.ndarray, share: float = 0.9) -> float:
    """The slowdown that this share of gates finds."""
    return math.expm1(math.log1p(TOLERANCE) - float(np.quantile(bounds, 1 - share)))


def methods(
    noise: Noise, count: int, processes: int, outliers: float = 0.0, interleaved: bool = False
) -> dict[str, tuple[float, float]]:
    """Method -> (share of intervals above the truth, power at SLOWDOWN). outliers: share of disturbed processes."""
    random = np.random.default_rng(0)
    bounds: dict[str, list[float]] = {}
    for _ in range(count):
        base, head = (np.median(side, axis=1) for side in noise.seconds(random, processes))
        base, head = (
            side * np.exp((random.random(processes) < outliers) * random.exponential(0.2, processes))
            for side in (base, head)
        )
        if interleaved:
            taken, name = ratio_in_rounds(base, head, 0.95), "interpolated order statistics (taken)"
        else:
            taken, name = ratio_of_medians(base, head, 0.95), "percentile bootstrap of medians (taken)"
        bounds.setdefault(name, []).append(math.log(taken.low))
        others = (other_intervals_in_rounds if interleaved else other_intervals)(base, head)
        for name, low in others.items():
            bounds.setdefault(name, []).append(low)
    return {
        name: (float(np.mean(np.array(lows) > 0)), power(np.array(lows), SLOWDOWN))
        for name, lows in bounds.items()
        if not np.isnan(lows).all()
    }


def rounds_of(records: list[Record]) -> list[tuple[Record, Record]]:
    """The rounds of `ab` among records, BASE and HEAD of each; none where they were not taken in turn."""
    sides = [[each for each in records if each.conditions.get("ab_side") == side] for side in ("base", "head")]
    places = [[each.conditions["ab_round"] for each in side] for side in sides]
    if places[0] != places[1]:
        raise SystemExit("BASE and HEAD do not stand in the same rounds: give whole gates of gate_real.py --same.")
    return list(zip(*sides, strict=True))


def recorded_rounds(
    rounds: list[tuple[Record, Record]], count: int, number: int, slowdown: float = 0.0
) -> dict[str, int]:
    """Gates of so many rounds drawn from recorded ones in which nothing was changed, HEAD then made slower."""
    random = np.random.default_rng(0)
    found: dict[str, int] = {}
    for _ in range(count):
        drawn = random.choice(len(rounds), number, replace=len(rounds) < number)
        sides = [
            [
                record(np.asarray(rounds[place][side].samples.values) * (1 + slowdown * side), turn)
                for turn, place in enumerate(drawn)
            ]
            for side in (0, 1)
        ]
        verdict = compare(*sides, limits=Limits(tolerance=TOLERANCE)).verdict
        found[verdict] = found.get(verdict, 0) + 1
    return found


def estimate(records: list[Record]) -> Noise:
    """The noise of one row's processes; of those that `ab` ran in turn also what the rounds shared."""
    logs = [np.log(np.asarray(each.samples.values, float)) for each in records]
    correlation = float(np.mean([np.corrcoef(log[:-1], log[1:])[0, 1] for log in logs if len(log) > 3]))
    within = float(np.sqrt(np.mean([log.var(ddof=1) for log in logs])))
    calls = int(np.median([len(log) for log in logs]))
    correlation = min(max(correlation, 0.0), 0.99)
    # The median of calls that resemble each other scatters by itself: pi/2 over the effective number of calls.
    of_median = within**2 * math.pi / 2 * (1 + correlation) / (1 - correlation) / calls
    rounds = rounds_of(records)
    if not rounds:
        between = float(np.var([np.median(log) for log in logs], ddof=1))
        return Noise(math.sqrt(max(between - of_median, 0.0)), within, correlation, 0.0, calls)
    medians = np.log([[np.median(each.samples.values) for each in both] for both in rounds])
    apart = float(np.mean((medians[:, 1] - medians[:, 0]) ** 2) / 2)
    shared = float(medians.mean(axis=1).var(ddof=1)) - apart / 2
    return Noise(math.sqrt(apart), within, correlation, math.sqrt(max(shared, 0.0)), calls)


def recorded_gates(records: list[Record], count: int, processes: int, slowdown: float = 0.0) -> dict[str, int]:
    """Gates between processes drawn from recorded ones, each with its calls drawn in blocks, as they resemble each
    other. With two sides' worth of processes no process is drawn twice."""
    random = np.random.default_rng(0)
    seconds = [np.asarray(each.samples.values, float) for each in records]
    found: dict[str, int] = {}
    for _ in range(count):
        drawn = random.choice(len(seconds), 2 * processes, replace=len(seconds) < 2 * processes)
        rows = [
            record(_in_blocks(seconds[place], random) * (1 + slowdown * (i >= processes)))
            for i, place in enumerate(drawn)
        ]
        verdict = compare(rows[:processes], rows[processes:], limits=Limits(tolerance=TOLERANCE)).verdict
        found[verdict] = found.get(verdict, 0) + 1
    return found


def _in_blocks(seconds: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """As many calls again, in runs of about the cube root squared of their number."""
    length = max(1, round(len(seconds) ** (2 / 3)))
    starts = random.integers(0, len(seconds) - length + 1, -(-len(seconds) // length))
    return np.concatenate([seconds[start : start + length] for start in starts])[: len(seconds)]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="records", type=Path, help="records.jsonl to take the noise from")
    parser.add_argument("--gates", type=int, default=200)
    parser.add_argument("--methods", action="store_true", help="also other intervals than the gate's")
    asked = parser.parse_args(arguments)
    if asked.records:
        rows: dict[str, list[Record]] = {}
        for each in read_records(asked.records):
            if each.kind == "latency" and len(each.samples.values) > 3:
                rows.setdefault(name_of(each), []).append(each)
        for name, records in rows.items():
            if len(records) > 1:
                noise = estimate(records)
                print(f"## {name}: {len(records)} processes\n\n{describe(noise)}\n")
                rounds = rounds_of(records)
                for slowdown in (0.0, SLOWDOWN):
                    if rounds:
                        verdicts = recorded_rounds(rounds, asked.gates, 7, slowdown)
                    else:
                        verdicts = recorded_gates(records, asked.gates, 7, slowdown)
                    what = "rounds" if rounds else "calls"
                    print(f"{asked.gates} gates on the recorded {what}, {100 * slowdown:g} % slower: {verdicts}\n")
                print(report([noise], asked.gates))
        return
    print(report([Noise(process_cv=cv) for cv in (0.005, 0.01, 0.015, 0.02, 0.03, 0.05)], asked.gates))
    shared = Noise(process_cv=0.01, round_cv=0.05)
    apart, turned = (lower_bounds(shared, asked.gates, 7, interleaved) for interleaved in (False, True))
    print(
        "\nA drift of 5 % between rounds, 1 % between processes: 7 a side find 10 % in "
        f"{power(apart, SLOWDOWN):.0%} of gates taken apart, in {power(turned, SLOWDOWN):.0%} with paired rounds."
    )
    if asked.methods:
        for interleaved in (False, True):
            taken_how = "in rounds" if interleaved else "apart"
            for what, outliers in (("normal", 0.0), ("a tenth of the processes disturbed by 20 %", 0.1)):
                print(
                    f"\n| interval, 7 processes {taken_how}, 2 % apart, {what} | above the truth | power at 10 % |"
                    "\n|---|---:|---:|"
                )
                found = methods(Noise(process_cv=0.02), asked.gates, 7, outliers, interleaved)
                for name, (wrong, share) in found.items():
                    print(f"| {name} | {wrong:.1%} | {share:.0%} |")


def describe(noise: Noise) -> str:
    return (
        f"process CV {noise.process_cv:.2%}, within a process {noise.within_cv:.2%}, autocorrelation "
        f"{noise.autocorrelation:.2f}, {noise.calls} calls"
        + (f"; rounds {noise.round_cv:.1%} apart, which base and head share" if noise.round_cv else "")
    )


def report(noises: list[Noise], count: int) -> str:
    """A table: verdicts of whole gates where nothing changed, power, and the smallest slowdown found."""
    lines = [
        f"{count} simulated gates a cell, tolerance {TOLERANCE:.0%}.\n",
        "| process CV | A/A regressed | A/A inconclusive | 10 % found by 7 | by 15 | 90 % power: 7 find | 15 find |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for noise in noises:
        same = gates(noise, count, 7)
        few, many = (lower_bounds(noise, count, processes) for processes in (7, 15))
        cells = [
            f"{noise.process_cv:.1%}",
            f"{same.get('regressed', 0) / count:.1%}",
            f"{same.get('inconclusive', 0) / count:.1%}",
            *(f"{power(bounds, SLOWDOWN):.1%}" for bounds in (few, many)),
            *(f"{smallest_found(bounds):.1%}" for bounds in (few, many)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
