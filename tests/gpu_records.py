"""Records as a GPU machine gives them: copies, timings, peaks and drifts."""

from vggbench.measure.bandwidth import copy_record
from vggbench.results import NetworkRun, Numerics, Peak, Record, Samples, Workload

SMALL = 1 << 20


def copied(seconds=0.001, size=SMALL, device="cpu"):
    return copy_record(Samples(unit="seconds", values=[seconds] * 5), "torch copy_", size, 1, device, environment={})


def timed(precision, backend, batch=1, seconds=0.01, device="cuda:0", conditions=None, **session):
    said = {"device": device, "threads": 1, "form": "crop", "arithmetic": precision, "weights_stored": precision}
    weights = {"name": "random:0", "digest": "d", "width": 1.0, "num_classes": 1000, "crop_size": 224}
    run = NetworkRun(
        network="D", weights=weights, passes=[], backend=backend, precision=precision, session=said | session
    )
    return Record(
        kind="latency",
        networks=[run],
        workload=Workload(batch=batch, size=[224, 224], scenario="latency"),
        samples=Samples(unit="seconds", values=[seconds] * 20),
        environment={"gpu": "A GPU"},
        process=1,
        conditions={"clock": "events", "open_seconds": 1.0, "first_call_seconds": 1.0, "rss_peak_bytes": 1}
        | (conditions or {}),
    )


def peak(operations_per_second):
    return Record(
        kind="peak", networks=[], workload=Workload(), samples=Samples(unit="seconds", values=[1.0] * 5),
        environment={"gpu": "A GPU"}, process=1, conditions={"device": "cuda:0"},
        peak=Peak(precision="fp16", library="l", threads=1, m=1, n=1, k=1, operations=int(operations_per_second)),
    )  # fmt: skip


def drifted(precision, reference, ratio, flips, images=1000):
    run = NetworkRun(network="A", weights={"name": "w"}, passes=[], backend="tensorrt", precision=precision)
    base = run.model_copy(update={"precision": reference})
    numerics = Numerics(reference=base, images=images, reference_errors=0, variant_errors=0, flips=flips, lost=0,
                        gained=0, p_value=1.0, layers=[], changed=[])  # fmt: skip
    return Record(kind="numerics", networks=[run], workload=Workload(), environment={}, numerics=numerics,
                  samples=Samples(unit="ratio", values=[ratio] * 3))  # fmt: skip


def fast_machine(scale=1.0):
    """Records that meet every target that records can meet; scale above 1 makes engines slower and coarser."""
    engine = 0.001 * scale
    return [
        timed("fp16", "pytorch", 8, 0.0014),
        timed("fp16", "torch-compile", 8, 0.0011),
        timed("fp16", "tensorrt", 8, engine),
        timed("fp16", "tensorrt", 1, 0.0004 * scale, cuda_graph="captured"),
        timed("int8", "tensorrt", 8, 0.0006),
        peak(8 * 2 * 15_470_264_320 / 0.001 / 0.8),
        copied(0.001, 10**9, "cuda:0"),
        drifted("fp16", "fp32", 0.002 * scale**3, int(4 * scale**3)),
        drifted("int8", "int8", 0.015 * scale, 0),
        timed("fp16", "tensorrt", 1, 0.01, conditions={"again": 1, "open_seconds": 2.0 * scale**3}),
        timed("fp16", "tensorrt", 1, 0.01, conditions={"bytes_settled": 10**9, "bytes_after": int(10**9 * scale)}),
    ]
