"""INT8 of an engine beside the CPU's arithmetic on the same graph, which a GPU alone has two kinds of."""

from qdq_networks import ranges

from vggbench import runs_calibrate, runs_gpu_beside
from vggbench.runs_gpu import Request


def test_the_cpu_beside_itself_gives_a_record_in_which_nothing_moved(own_cache, monkeypatch):
    monkeypatch.setattr(runs_calibrate, "ranges_for", lambda weights, threads: ranges(weights))  # of fewer images
    request = Request(weights="sample", images=3, device="cpu", threads=1)
    (record,) = runs_gpu_beside.int8_beside_the_cpu(request, "onnxruntime")
    (run,) = record.networks
    assert (run.network, run.precision, run.calibration["layout"]) == ("D", "int8", "tensorrt")
    assert record.workload.data == {"name": "sample", "split": "test", "images": 3}
    assert record.samples.values == [0.0] * 3
    assert (record.numerics.images, record.numerics.flips) == (3, 0)
    assert record.numerics.reference.calibration == run.calibration
    assert record.numerics.layers == []
    assert "different devices" in record.numerics.layers_note
