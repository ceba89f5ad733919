"""Real gates on this machine: 20 where nothing changed, 10 where HEAD's session is really slowed. Prints Markdown.

python tests/bench/gate_real.py --network fake|A|D [--same 20] [--slowed 10] [--slower 10] [--out DIR]
Every gate is a whole `vggbench ab`: fresh processes in turn, 7 a side. Interrupted, the same command goes on.
Those of equal sides are put into DIR/records.jsonl, for: python tests/bench/gate_power.py --from DIR/records.jsonl
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from pathlib import Path

from vggbench.gate import Limits
from vggbench.results import Record, read_records, write_records
from vggbench.runs_ab import ab

SCRIPT = Path(__file__).with_name("slowed_latency.py")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="fake")
    parser.add_argument("--same", type=int, default=20)
    parser.add_argument("--slowed", type=int, default=10)
    parser.add_argument("--slower", type=float, default=10.0, help="percent")
    parser.add_argument("--processes", type=int, default=7)
    parser.add_argument("--min-seconds", type=float, default=0.5)
    parser.add_argument("--tolerance", type=float, default=5.0, help="percent")
    parser.add_argument("--whole-runs", action="store_true", help="as `vggbench ab --whole-runs --no-huge-pages`")
    parser.add_argument("--out", type=Path, default=Path("out/gate-real"))
    asked = parser.parse_args(arguments)
    base = [sys.executable, str(SCRIPT), "--network", asked.network, "--min-seconds", str(asked.min_seconds)]
    verdicts: dict[str, Counter[str]] = {"same": Counter(), "slowed": Counter()}
    records: list[Record] = []
    print("| gate | change | interval | verdict |\n|---|---:|---:|---|")
    for kind, count in (("same", asked.same), ("slowed", asked.slowed)):
        head = [*base, "--slower", str(asked.slower)] if kind == "slowed" else base
        for number in range(1, count + 1):
            out = asked.out / f"{kind}-{number:02d}"
            limits = Limits(tolerance=asked.tolerance / 100, processes=min(7, max(2, asked.processes)))
            done = ab(
                shlex.join(base), shlex.join(head), out, asked.processes,
                turns=not asked.whole_runs, pages=not asked.whole_runs, limits=limits,
            )  # fmt: skip
            (row,) = done.comparison.rows
            verdicts[kind][row.verdict] += 1
            records += [*read_records(done.base), *read_records(done.head)] if kind == "same" else []
            interval = f"{row.low:+.1%} to {row.high:+.1%}"
            print(f"| {kind} {number} | {row.change:+.1%} | {interval} | {row.verdict} |", flush=True)
    write_records(asked.out / "records.jsonl", records)
    print(f"\nNothing changed: {dict(verdicts['same'])}. {asked.slower:g} % slower: {dict(verdicts['slowed'])}.")
    missed = asked.slowed - verdicts["slowed"]["regressed"]
    return int(verdicts["same"]["regressed"] > 0 or missed > asked.slowed / 10)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
