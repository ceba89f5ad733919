"""VGG-16's shares of the machine's peaks where the machine itself is restless: everything in one process, in turn.

    python tests/bench/shares_in_turn.py [--batch 8] [--rounds 12] [--calibration FILE.json]

`vggbench latency` times each variant and each peak in a process of its own, seconds to minutes apart. On a machine
whose speed wanders within seconds (a shared host) a network is then compared with the peak of another moment. Here each
round calls every network once, between two slices of its product; a share is the median over rounds of the ratio of
neighbours, and its middle half stands beside it. On huge pages where the system has them. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import median, quantiles

from vgg_reference.weights import random_weights
from vggbench import backends, environment, plan
from vggbench.errors import BackendUnavailable
from vggbench.measure.latency import random_input
from vggbench.measure.peak import _makers, _operations, best_product
from vggbench.ranges import Quantization, read_ranges
from vggbench.runs_calibrate import ranges_for
from vggbench.variants import Variant

#: The product's calls before and after a network's take about this long.
PRODUCT_SECONDS = 0.25
RESTED_SECONDS = 0.05  # until waiting threads of another library have gone to sleep


def seconds_of(call, least=0.0):
    """Median seconds of calls that take so long together."""
    taken = []
    while sum(taken) < least or not taken:
        before = time.perf_counter()
        call()
        taken.append(time.perf_counter() - before)
    return median(taken)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--calibration", type=Path)
    arguments = parser.parse_args()
    pages = environment.huge_pages(os.environ)
    if pages:  # read when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | pages)
    weights = random_weights("D", 0)
    ranges = read_ranges(arguments.calibration) if arguments.calibration else ranges_for(weights, images=16)
    threads = backends.default_threads()
    images = random_input(arguments.batch, (224, 224))
    operations = 2 * plan.crop_macs(weights) * arguments.batch
    runs = {}
    for precision in ("fp32", "bf16", "int8"):
        try:
            found = best_product(precision, threads)
        except BackendUnavailable as error:
            print(error)
            continue
        product = _makers(precision, "cpu")[found.library](found.shape, threads)
        for backend in ("onnxruntime", "openvino", "pytorch"):
            module = backends.module(backend)
            if module.available() is None and module.precisions("cpu").get(precision, "absent") is None:
                variant = Variant(weights, "crop", backend, precision, quantization=Quantization(ranges))
                session = backends.open_session(variant, "cpu", None)
                session(images)
                runs[precision, backend] = (product, found, session)
    taken = {key: {"network": [], "before": [], "after": []} for key in runs}
    for _ in range(arguments.rounds):
        for key, (product, _, session) in runs.items():
            time.sleep(RESTED_SECONDS)
            taken[key]["before"].append(seconds_of(product, PRODUCT_SECONDS))
            time.sleep(RESTED_SECONDS)
            taken[key]["network"].append(seconds_of(lambda session=session: session(images)))
            time.sleep(RESTED_SECONDS)
            taken[key]["after"].append(seconds_of(product, PRODUCT_SECONDS))
    rows = []
    base = taken["fp32", "onnxruntime"]["network"]
    for (precision, backend), seen in taken.items():
        _, found, _ = runs[precision, backend]
        peaks = [_operations(found.shape) / ((a + b) / 2) for a, b in zip(seen["before"], seen["after"], strict=True)]
        shares = [operations / s / p for s, p in zip(seen["network"], peaks, strict=True)]
        rows.append(
            {
                "precision": precision,
                "backend": backend,
                "images_per_second": arguments.batch / median(seen["network"]),
                "ratio_to_onnxruntime_fp32": median(b / s for b, s in zip(base, seen["network"], strict=True)),
                "share_of_peak": median(shares),
                "middle_half_of_shares": quantiles(shares, n=4)[::2],
                "peak_images_per_second": median(peaks) / (operations / arguments.batch),
                "peak_product": f"{found.library}, {' x '.join(map(str, found.shape))}",
            }
        )
    told = {"batch": arguments.batch, "rounds": arguments.rounds, "threads": threads}
    told |= {"huge_pages": os.environ.get("GLIBC_TUNABLES", ""), "environment": environment.environment()}
    print(json.dumps({**told, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
