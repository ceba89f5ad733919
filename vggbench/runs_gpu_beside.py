"""A GPU's INT8 engine beside the CPU's arithmetic on the same Q/DQ graph: two devices, which no other run mixes."""

from __future__ import annotations

from datetime import datetime, timezone

from vggbench import environment, runs_inputs, runs_numerics
from vggbench.measure.batches import Views
from vggbench.measure.compare import Bench, record_of_logits
from vggbench.ranges import Quantization
from vggbench.results import Record
from vggbench.runs_gpu import Request
from vggbench.variants import Variant

NETWORK = "D"


def int8_beside_the_cpu(request: Request, backend: str, cpu: str = "onnxruntime") -> list[Record]:
    """One numerics record: the engine on ``request.device`` against ``cpu`` in the TensorRT layout."""
    from vggbench.runs_calibrate import ranges_for

    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    setting = runs_inputs.setting(backend=cpu, precision="int8", device="cpu", threads=request.threads)
    asked = runs_numerics.Asked(setting, reference=f"int8@{cpu}/tensorrt", variants=(f"int8@{backend}",))
    dataset, weights = runs_numerics.open_inputs(asked, network=NETWORK, images=request.images)
    how = Quantization(ranges_for(weights, threads=request.threads), layout="tensorrt")
    views = Views(dataset, weights, runs_numerics.step_of(weights, asked), setting.choices, setting.on_bad)
    base = Bench(views, "cpu", request.threads).logits(Variant(weights, "crop", cpu, "int8", quantization=how))
    engine = Variant(weights, "crop", backend, "int8", quantization=how)
    logits = Bench(views, request.device, request.threads).logits(engine)
    note = "The two ran on different devices; their layers were not looked at."
    return [record_of_logits(views, base, logits, note, environment.environment(), started)]
