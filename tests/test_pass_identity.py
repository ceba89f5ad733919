"""What names a pass on disk: on a CPU what it always was, on a GPU the GPU and what an engine was asked to be too."""

import dataclasses

import onnxruntime
import pytest
import torch
from fake_tensorrt import DEVICE, install
from measuring import CENTER, WEIGHTS

from vggbench import backends
from vggbench.backends import tensorrt
from vggbench.engines.build import Options
from vggbench.engines.opening import Settings
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.measure import shards
from vggbench.protocols import Choices, crops, dense
from vggbench.sizes import INPUTS, parse
from vggbench.variants import Variant, digest_of


def identity(backend, step=CENTER, precision="fp32", device="cpu", **more):
    variant = Variant(WEIGHTS, step.form, backend, precision, **more)
    return shards.identity(variant, step, Choices(), "decoder", device)


def test_a_pass_on_a_cpu_has_the_digest_that_it_had_before_gpus_were_named(monkeypatch):
    """Else all that users have in their caches would be computed again. Taken when identities named no engine."""
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    monkeypatch.setattr(onnxruntime, "__version__", "1.32.0")
    known = {
        "6ae802195418f125a8790c5b2d3c3143009241faf33394b10e60499916218b61": identity("pytorch"),
        "8db2aa29aedbb7829c8463a7b4223751fd5a5b03cbf91881fb1a258ff8c222a0": identity("pytorch", crops(36)),
        "0235e18604e649a4dc3afdf746802c228278a38eb304721b2cec061885efea4d": identity("onnxruntime", dense(48), "bf16"),
        "a56e29abad39c3ff8b9e77e418c13de819b2fd256003119ba2d9af301040e833": identity("fake"),
    }
    assert [digest_of(found) for found in known.values()] == list(known)


@pytest.fixture
def machine(monkeypatch):
    """A machine with TensorRT and the GPU that it sees, whatever torch sees; returns what makes it another."""

    def become(version="11.0.0", device=DEVICE):
        install(monkeypatch, version)
        for module in (backends, tensorrt):
            monkeypatch.setattr(module, "first_device", lambda: device)

    become()
    return become


def test_a_pass_of_torch_on_a_gpu_names_the_drivers_gpu_without_torch_having_one(machine):
    found = identity("pytorch", device="cuda")
    assert (found["device"], found["gpu"], found["sm"]) == ("cuda", DEVICE.name, DEVICE.sm)
    machine(device=None)
    assert "gpu" not in identity("pytorch", device="cuda")


def engine(**more):
    return digest_of(identity("tensorrt", device="cuda", **more))


def test_whatever_decides_an_engines_kernels_is_another_pass(machine, monkeypatch):
    base = engine()
    assert engine() == base
    found = {base, engine(sizes=parse("8", None)), engine(precision="tf32"), engine(precision="fp16")}
    assert engine(sizes=parse(None, "64:80:96")) == base, "a crop's sides are the network's"
    for change in ({"name": "NVIDIA Other"}, {"sm": 89}, {"driver": "1"}):
        machine(device=dataclasses.replace(DEVICE, **change))
        found.add(engine())
    for version in ("8.6.0", "10.16.1"):
        machine(version)
        found.add(engine())
    machine()
    assert engine() == base
    for options in (Options(workspace_bytes=1 << 20), Options(optimization_level=5)):
        monkeypatch.setattr(tensorrt, "Settings", lambda options=options: Settings(options=options))
        found.add(engine())
    assert len(found) == 11


def test_engines_of_pixels_and_of_floats_are_two_passes(machine):
    found = {name: identity("tensorrt", device="cuda", sizes=parse(None, None, name)) for name in (None, *INPUTS)}
    assert {name: each["engine_input"] for name, each in found.items()} == {
        None: "floats", "floats": "floats", "pixels": "pixels",
    }  # fmt: skip
    assert engine(sizes=parse("8", None, "pixels")) not in (engine(sizes=parse("8", None)), digest_of(found["pixels"]))


def test_sizes_of_dense_images_are_another_pass_and_their_default_is_the_engines_own(machine):
    step = dense(48)
    assert engine(step=step, sizes=parse("1", "32:55:256")) == engine(step=step)
    others = {engine(step=step, sizes=parse(batch, sizes)) for batch, sizes in (("2", None), (None, "32:64:96"))}
    assert len(others | {engine(step=step)}) == 3


def test_sizes_that_the_network_cannot_have_are_refused_before_any_image_is_read(machine):
    with pytest.raises(UsageError, match=r"Sizes 16:48:96: accepted are sides from 32 pixels on, the network's crop\."):
        engine(step=dense(48), sizes=parse(None, "16:48:96"))


def test_without_a_driver_an_engines_pass_is_one_line(machine):
    machine(device=None)
    with pytest.raises(BackendUnavailable, match="NVIDIA GPU and its driver") as error:
        engine()
    assert "\n" not in str(error.value)
