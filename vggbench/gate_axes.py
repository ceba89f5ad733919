"""What must be equal before two measurements are compared: the axes, by name, as data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vggbench.environment import VARIABLES
from vggbench.results import NetworkRun, Record
from vggbench.results_names import float_layers_in

#: Backend -> the libraries whose versions decide whether two of its timings or errors can be compared. What else is
#: installed does not matter. A backend that is not listed is held to the libraries that its session names.
BACKEND_LIBRARIES: dict[str, tuple[str, ...]] = {
    "pytorch": ("torch",),
    "torch-compile": ("torch",),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt",),
    "torch-tensorrt": ("torch", "torch-tensorrt", "tensorrt"),
}
LIBRARIES = ("torch", "onnxruntime", "openvino", "tensorrt", "torch-tensorrt")
#: Other distributions of the same library.
_ALSO = {"onnxruntime": ("onnxruntime-gpu",), "tensorrt": ("tensorrt-cu13", "tensorrt-cu12")}
ALL = frozenset({"latency", "accuracy", "numerics"})
TIMED, JUDGED = frozenset({"latency"}), frozenset({"accuracy", "numerics"})


@dataclass(frozen=True)
class Axis:
    """kinds: of records that it decides. value: what a record has there, "" for nothing. environment: of the machine
    and what is installed on it; else of the workload, and so part of a row's name. crossable: --across may name
    it. nothing: what "" is called."""

    name: str
    kinds: frozenset[str]
    value: Callable[[Record], str]
    environment: bool = False
    crossable: bool = True
    nothing: str = "not recorded"


def _joined(of: Callable[[NetworkRun], object]) -> Callable[[Record], str]:
    """The value of each network of a record, named once where they agree."""

    def value(record: Record) -> str:
        found = [of(run) for run in record.networks]
        return " + ".join(dict.fromkeys(str(each) for each in found if each not in (None, "")))

    return value


def _networks(record: Record) -> str:
    return " + ".join(run.network for run in record.networks)


def _weights(record: Record) -> str:
    """Errors: which weights. Timings: only of what size, for the numbers in them do not decide the speed."""
    if record.kind == "latency":
        keys = ("width", "hidden_width", "num_classes", "crop_size", "batch_norm")
        return _joined(lambda run: " ".join(f"{key}={run.weights[key]}" for key in keys if run.weights.get(key)))(
            record
        )
    named = (f"{run.weights.get('name', '')} ({str(run.weights.get('digest', ''))[:12]})" for run in record.networks)
    return " + ".join(named)


def _precision(run: NetworkRun) -> str:
    """With the arithmetic where it is another: FP16 weights in FP32 arithmetic are not FP16."""
    arithmetic = run.session.get("arithmetic")
    return f"{run.precision} ({arithmetic})" if arithmetic not in (None, run.precision) else run.precision


def _calibration(record: Record) -> str:
    """The ranges decide errors; where Q and DQ stand decides times too."""
    keys = ("layout",) if record.kind == "latency" else ("digest", "layout")
    return _joined(lambda run: " ".join(f"{key}={run.calibration[key]}" for key in keys if run.calibration.get(key)))(
        record
    )


def _reference(record: Record) -> str:
    run = record.numerics.reference if record.numerics else None
    return f"{run.backend} {_precision(run)}" if run else ""


def _protocol(record: Record) -> str:
    """The name and every pass: "dense (dense 256 whole flip)"."""
    passes = _joined(
        lambda run: ", ".join(
            f"{step.get('form')} {step.get('scale')} {step.get('grid')}{' flip' if step.get('flip') else ''}"
            for step in run.passes
        )
    )(record)
    return f"{record.workload.protocol or ''} ({passes})".strip()


def _data(record: Record) -> str:
    data = record.workload.data
    return f"{data.get('name', '')} {str(data.get('fingerprint_full') or data.get('fingerprint') or '')[:12]}".strip()


def _on_gpu(record: Record) -> bool:
    return any(str(run.session.get("device", "")).startswith("cuda") for run in record.networks)


def _wait(run: NetworkRun) -> str:
    wait = run.session.get("wait")
    return f"{wait}, {run.session.get('in_flight')} in flight" if wait else ""


def _machine(record: Record) -> str:
    """A GPU counts where it computes; the host's CPU always, since it launches the kernels and makes the transfers."""
    here = record.environment
    parts = [here.get("cpu"), f"{here['cores']} cores" if here.get("cores") else None, here.get("machine")]
    parts.append(here.get("gpu") if _on_gpu(record) else None)
    parts.append(f"[{here['cpu_flags']}]" if here.get("cpu_flags") else None)
    return ", ".join(str(part) for part in parts if part)


def _python(record: Record) -> str:
    return ".".join(str(record.environment.get("python", "")).split(".")[:2])


def _library(name: str) -> Callable[[Record], str]:
    """As the session says, else as installed; "" where the backend does not use it."""
    names = (name, name.replace("-", "_"), *_ALSO.get(name, ()))

    def of(run: NetworkRun, record: Record) -> str:
        used = BACKEND_LIBRARIES.get(run.backend.replace("_", "-"))
        if (name not in used) if used is not None else not any(each in run.session for each in names):
            return ""
        found = (source.get(each) for source in (run.session, record.environment) for each in names)
        return str(next((each for each in found if each), ""))

    return lambda record: " + ".join(dict.fromkeys(filter(None, (of(run, record) for run in record.networks))))


def _variables(record: Record) -> str:
    return " ".join(f"{name}={record.environment[name]}" for name in VARIABLES if name in record.environment)


def _of_gpu(key: str, from_session: bool = True) -> Callable[[Record], str]:
    def value(record: Record) -> str:
        if not _on_gpu(record):
            return ""
        found = {str(run.session[key]) for run in record.networks if from_session and run.session.get(key)}
        return " + ".join(sorted(found)) or str(record.environment.get(f"gpu_{key}") or "")

    return value


#: In the order in which differences are told.
AXES: tuple[Axis, ...] = (
    Axis("network", ALL, _networks),
    Axis("weights", ALL, _weights),
    Axis("precision", ALL, _joined(_precision)),
    Axis("calibration", ALL, _calibration),
    Axis("float-layers", ALL, float_layers_in, nothing="none"),
    Axis("backend", ALL, _joined(lambda run: run.backend)),
    Axis("reference", frozenset({"numerics"}), _reference),
    Axis("form", TIMED, _joined(lambda run: run.session.get("form"))),
    Axis("batch", TIMED, lambda record: str(record.workload.batch or "")),
    Axis("size", TIMED, lambda record: "x".join(map(str, record.workload.size or []))),
    Axis("scenario", TIMED, lambda record: record.workload.scenario or "latency"),
    Axis("transfers", TIMED, _joined(lambda run: run.session.get("transfers"))),
    Axis("cuda-graph", TIMED, _joined(lambda run: run.session.get("cuda_graph"))),
    Axis("wait", TIMED, _joined(_wait)),
    Axis("runner", TIMED, _joined(lambda run: run.session.get("runner"))),
    Axis("device", TIMED, _joined(lambda run: run.session.get("device"))),
    Axis(
        "threads", TIMED, lambda record: "" if _on_gpu(record) else _joined(lambda r: r.session.get("threads"))(record)
    ),
    Axis("data", JUDGED, _data, crossable=False),
    Axis("protocol", JUDGED, _protocol),
    Axis("choices", JUDGED, lambda record: " ".join(f"{k}={v}" for k, v in sorted(record.workload.choices.items()))),
    Axis("decoder", JUDGED, lambda record: str(record.workload.data.get("decoder", ""))),
    Axis("machine", ALL, _machine, environment=True),
    Axis("driver", ALL, _of_gpu("driver", from_session=False), environment=True),
    Axis("cuda", ALL, _of_gpu("cuda"), environment=True),
    Axis("cudnn", ALL, _of_gpu("cudnn"), environment=True),
    *(Axis(name, ALL, _library(name), environment=True) for name in LIBRARIES),
    Axis("vggbench", ALL, lambda record: str(record.environment.get("vggbench", "")), environment=True),
    Axis("python", TIMED, _python, environment=True),
    Axis("variables", TIMED, _variables, environment=True),
)
NAMES = tuple(axis.name for axis in AXES if axis.crossable)


def workload(record: Record, without: Iterable[str] = ()) -> tuple[str, ...]:
    """A record's kind and its values on the workload's axes; equal tuples are the same row."""
    return (record.kind, *(a.value(record) for a in _of(record.kind, environment=False) if a.name not in set(without)))


def workload_axes(kind: str) -> list[Axis]:
    """The axes behind ``workload``, in its order."""
    return _of(kind, environment=False)


def environment_axes(kind: str) -> list[Axis]:
    """The axes of the machine and what is installed on it, for records of a kind."""
    return _of(kind, environment=True)


def _of(kind: str, environment: bool) -> list[Axis]:
    return [axis for axis in AXES if kind in axis.kinds and axis.environment == environment]
