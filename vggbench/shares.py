"""Which part of a machine's own peak a network reaches: derived from latency and peak records alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vgg_reference.architectures import architecture, count_macs, count_parameters, dense_macs
from vggbench.results import NetworkRun, Record
from vggbench.samples import images_per_second, median

#: What makes two records of one machine; on a GPU the GPU, else the CPU and the cores that may be used.
_GPU, _CPU = ("gpu",), ("cpu", "cores", "logical_cpus")
#: Precision of a peak record that is no product: a copy in memory, its "operations" bytes read and written.
COPY = "copy"
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
_SIZE = ("width", "hidden_width", "num_classes", "crop_size")


def speed(latency: Record) -> float:
    """Images a second of one process: of the median call; in scenario "throughput" over all of the wall clock."""
    batch, seconds = latency.workload.batch or 1, [float(value) for value in latency.samples.values]
    return images_per_second(seconds, batch) if latency.workload.scenario == "throughput" else batch / median(seconds)


def macs_per_image(latency: Record) -> int:
    """Multiply-accumulates of one image of a latency record, by Table 1."""
    (run,) = latency.networks
    network = architecture(run.network, bool(run.weights.get("batch_norm")))
    size = {name: run.weights[name] for name in _SIZE if run.weights.get(name) is not None}
    if run.session.get("form") == "dense" and latency.workload.size:
        height, width = latency.workload.size
        ceil = run.session.get("pool_rounding", "ceil") == "ceil"
        return dense_macs(network, height, width, ceil, **size)
    return count_macs(network, **size)


def operations_per_second(peak: Record) -> float:
    """Of a peak record, by its median product."""
    assert peak.peak is not None
    return peak.peak.operations * peak.peak.instances / median([float(value) for value in peak.samples.values])


def matching(latency: Record, peaks: Sequence[Record]) -> list[Record]:
    """The peaks of the same arithmetic, machine, device and threads; of the same round alone where there is one."""
    (run,) = latency.networks
    found = [
        each
        for each in peaks
        if each.peak is not None
        and each.peak.precision == arithmetic(run)
        and each.peak.threads == run.session.get("threads")
        and each.conditions.get("device") == run.session.get("device")
        and _machine(each, run) == _machine(latency, run)
    ]
    return [each for each in found if each.process == latency.process] or found


def share(latency: Record, peaks: Sequence[Record]) -> float | None:
    """Operations a second of a latency record over the peak's (the best one, if several match); None without a match.

    A multiply-accumulate counts as two operations; what is not in a weight layer counts nothing.
    """
    fits = matching(latency, peaks)
    if not fits:
        return None
    return speed(latency) * 2 * macs_per_image(latency) / max(map(operations_per_second, fits))


def weight_bytes(latency: Record) -> int:
    """Bytes of the weights of a latency record's network as they are kept; biases count as the weights do."""
    (run,) = latency.networks
    size = {name: run.weights[name] for name in _SIZE if run.weights.get(name) is not None}
    count = count_parameters(architecture(run.network, bool(run.weights.get("batch_norm"))), **size)
    kept = re.match("|".join(_BYTES), str(run.session.get("weights_stored", run.precision)))
    return count * _BYTES[kept[0] if kept else "fp32"]


def floor_seconds(latency: Record, peaks: Sequence[Record]) -> float | None:
    """The least that a call can take whose weights all come from memory: their bytes over the copy bandwidth.

    Of the fastest copy on the same device; None where none was measured.
    """
    device = latency.networks[0].session.get("device")
    copies = [
        operations_per_second(each)
        for each in peaks
        if each.peak is not None and each.peak.precision == COPY and each.conditions.get("device") == device
    ]
    return weight_bytes(latency) / max(copies) if copies else None


def arithmetic(run: NetworkRun) -> str:
    """The type that really multiplied, the precision where the session does not say."""
    return arithmetic_of(str(run.session.get("arithmetic", ""))) or run.precision


def arithmetic_of(said: str) -> str:
    """The type that an arithmetic in words begins with, as "fp32 on weights stored as fp16" does; else ""."""
    found = re.match(r"fp32|tf32|bf16|fp16|int8|fp8", said)
    return found[0] if found else ""


def _machine(record: Record, run: NetworkRun) -> list[object]:
    keys = _GPU if str(run.session.get("device", "cpu")).startswith("cuda") else _CPU
    return [record.environment.get(key) for key in keys]
