"""What a GPU's records are held to: each target met, not met or not run, from the records alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vggbench import shares
from vggbench.measure.stages import ADVICE
from vggbench.results import Record
from vggbench.samples import median

#: Native first: of two engines the faster one counts.
ENGINES = ("tensorrt", "torch-tensorrt")
#: Allocators may keep a page or two.
GROWTH_BYTES = 8 << 20


@dataclass(frozen=True)
class Target:
    """state: "met", "not met" or "not run". wanted, found: in words; why: of what was not run."""

    name: str
    wanted: str
    state: str
    found: str = ""
    why: str = ""


def targets(records: Sequence[Record]) -> list[Target]:
    """All of them, of VGG-16 (network D) and the sample networks, on a GPU."""
    return [make(records) for make in _TARGETS]


def table(found: Sequence[Target]) -> list[str]:
    """A line a target."""
    width = max(len(target.name) for target in found)
    return [
        f"{target.state:8} {target.name.ljust(width)}  {target.wanted}: {target.found or target.why}"
        for target in found
    ]


def _fp16_against_eager(records: Sequence[Record]) -> Target:
    name, wanted = "FP16 engine / eager FP16, best batch", ">= 1.3"
    engine, eager = _best(records, "fp16", ENGINES), _best(records, "fp16", ("pytorch",))
    return _ratio(name, wanted, engine, eager, 1.3, "an FP16 engine and eager FP16")


def _fp16_against_compile(records: Sequence[Record]) -> Target:
    name, wanted = "FP16 engine / torch.compile, best batch", "> 1"
    engine, other = _best(records, "fp16", ENGINES), _best(records, "fp16", ("torch-compile",))
    return _ratio(name, wanted, engine, other, 1.0, "an FP16 engine and torch.compile")


def _int8_against_fp16(records: Sequence[Record]) -> Target:
    name, wanted = "INT8 engine / FP16 engine, best batch", ">= 1.6"
    int8, fp16 = _best(records, "int8", ENGINES), _best(records, "fp16", ENGINES)
    return _ratio(name, wanted, int8, fp16, 1.6, "an INT8 and an FP16 engine")


def _share_of_peak(records: Sequence[Record]) -> Target:
    name, wanted = "FP16 engine's share of the matrix peak", ">= 70 %"
    engine = _best(records, "fp16", ENGINES)
    found = shares.share(engine, _peaks(records)) if engine else None
    if found is None:
        return Target(name, wanted, "not run", why="no FP16 engine, or no FP16 peak, was measured on a GPU")
    return Target(name, wanted, _state(found >= 0.7), f"{100 * found:.0f} %")


def _floor(records: Sequence[Record]) -> Target:
    name, wanted = "FP16 engine, batch 1, CUDA graph: call / bandwidth floor", "<= 3"
    first = [
        each for each in _timings(records, "fp16", ENGINES)
        if each.workload.batch == 1 and str(each.networks[0].session.get("cuda_graph")) in ("captured", "yes")
    ]  # fmt: skip
    floors = [(each, floor) for each in first if (floor := shares.floor_seconds(each, _peaks(records)))]
    if not floors:
        return Target(name, wanted, "not run", why="no FP16 engine at batch 1 with a CUDA graph, or no copy bandwidth")
    found = min(median([float(value) for value in each.samples.values]) / floor for each, floor in floors)
    return Target(name, wanted, _state(found <= 3), f"{found:.2f}")


def _agreement(records: Sequence[Record]) -> Target:
    name, wanted = "FP16 engine: top-1 agreement with FP32, sample networks", ">= 99.5 %, each"
    found = _numerics(records, "fp16", "fp32")
    if not found:
        return Target(name, wanted, "not run", why="no FP16 engine was checked on the sample networks")
    worst = min(1 - each.numerics.flips / each.numerics.images for each in found if each.numerics)
    return Target(name, wanted, _state(worst >= 0.995), f"{100 * worst:.2f} % at worst of {len(found)}")


def _relative(records: Sequence[Record]) -> Target:
    name, wanted = "FP16 engine: relative L2 of logits, sample networks", "< 1 %, each median"
    found = _numerics(records, "fp16", "fp32")
    if not found:
        return Target(name, wanted, "not run", why="no FP16 engine was checked on the sample networks")
    worst = max(median([float(value) for value in each.samples.values]) for each in found)
    return Target(name, wanted, _state(worst < 0.01), f"{100 * worst:.2f} % at worst of {len(found)}")


def _int8_against_cpu(records: Sequence[Record]) -> Target:
    name, wanted = "INT8 engine: relative L2 against the CPU's Q/DQ", "<= 2 %, median"
    found = _numerics(records, "int8", "int8")
    if not found:
        return Target(name, wanted, "not run", why="no INT8 engine was compared with the CPU")
    worst = max(median([float(value) for value in each.samples.values]) for each in found)
    return Target(name, wanted, _state(worst <= 0.02), f"{100 * worst:.2f} %")


def _second_opening(records: Sequence[Record]) -> Target:
    name, wanted = "second opening of an engine", "< 5 s"
    again = [each for each in _timings(records, "fp16", ENGINES) if each.conditions.get("again") == 1]
    if not again:
        return Target(name, wanted, "not run", why="no engine was opened twice")
    seconds = max(float(each.conditions["open_seconds"]) for each in again)
    return Target(name, wanted, _state(seconds < 5), f"{seconds:.2f} s")


def _growth(records: Sequence[Record]) -> Target:
    name, wanted = "GPU memory over 100 openings", "no growth"
    found = [each for each in _timings(records, "fp16", ENGINES) if "bytes_after" in each.conditions]
    if not found:
        return Target(name, wanted, "not run", why="no engine was opened and closed 100 times")
    grown = max(int(each.conditions["bytes_after"]) - int(each.conditions["bytes_settled"]) for each in found)
    return Target(name, wanted, _state(grown <= GROWTH_BYTES), f"{grown / 2**20:+.1f} MiB")


def _loop(records: Sequence[Record]) -> Target:
    """Against the session's own calls with inputs ready; what the engine does without transfers is said beside it."""
    name, wanted = "evaluation loop / engine's own throughput", ">= 90 %"
    loops = _of_network_d(records, "loop", "fp16", ENGINES)
    if not loops:
        others = [_loop_text(each) for each in _of_network_d(records, "loop", "fp16", ("pytorch",))]
        beside = f"; eager PyTorch's loop reaches {others[-1]}" if others else ""
        return Target(name, wanted, "not run", why=f"no FP16 engine evaluated images in memory on a GPU{beside}")
    best = max(loops, key=_loop_share)
    return Target(name, wanted, _state(_loop_share(best) >= 0.9), _loop_text(best))


def _loop_share(record: Record) -> float:
    """Of medians over rounds."""
    alone, loop = record.conditions["session_seconds"], record.samples.values
    return median([float(value) for value in alone]) / median([float(value) for value in loop])


def _loop_text(record: Record) -> str:
    said, images = record.conditions, int(record.workload.data["images"])
    loop = images / median([float(value) for value in record.samples.values])
    own = images / median([float(value) for value in said["session_seconds"]])
    text = f"{100 * _loop_share(record):.0f} %: {loop:,.0f} of {own:,.0f} images/s, transfers included"
    if said.get("engine_call_seconds"):
        engine = said["engine_batch"] / median([float(value) for value in said["engine_call_seconds"]])
        text += f"; the engine by itself does {engine:,.0f}"
    if _loop_share(record) < 0.9 and said.get("limiting"):
        text += f"; limited by {ADVICE[said['limiting']].partition(';')[0]}"
    return text


_TARGETS: tuple[Callable[[Sequence[Record]], Target], ...] = (
    _fp16_against_eager, _fp16_against_compile, _int8_against_fp16, _share_of_peak, _floor, _agreement, _relative,
    _int8_against_cpu, _second_opening, _growth, _loop,
)  # fmt: skip


def _ratio(name: str, wanted: str, one: Record | None, other: Record | None, least: float, what: str) -> Target:
    if one is None or other is None:
        return Target(name, wanted, "not run", why=f"{what} were not both timed on a GPU")
    found = shares.speed(one) / shares.speed(other)
    met = found > least if wanted.startswith("> ") else found >= least
    batches = f"batch {one.workload.batch} against {other.workload.batch}"
    return Target(name, wanted, _state(met), f"{found:.2f} ({one.networks[0].backend}, {batches})")


def _best(records: Sequence[Record], precision: str, backends: tuple[str, ...]) -> Record | None:
    """The timing of VGG-16 with the most images a second."""
    return max(_timings(records, precision, backends), key=shares.speed, default=None)


def _timings(records: Sequence[Record], precision: str, backends: tuple[str, ...]) -> list[Record]:
    return _of_network_d(records, "latency", precision, backends)


def _of_network_d(records: Sequence[Record], kind: str, precision: str, backends: tuple[str, ...]) -> list[Record]:
    """Of VGG-16 on a GPU, at the paper's width."""
    return [
        each
        for each in records
        if each.kind == kind
        and (each.networks[0].network, each.networks[0].precision) == ("D", precision)
        and each.networks[0].backend in backends
        and str(each.networks[0].session.get("device", "")).startswith("cuda")
        and each.networks[0].weights.get("width", 1.0) == 1.0
    ]


def _numerics(records: Sequence[Record], precision: str, reference: str) -> list[Record]:
    return [
        each
        for each in records
        if each.kind == "numerics"
        and each.numerics is not None
        and each.numerics.reference.precision == reference
        and each.networks[0].precision == precision
        and each.networks[0].backend in ENGINES
    ]


def _peaks(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.kind == "peak"]


def _state(met: bool) -> str:
    return "met" if met else "not met"
