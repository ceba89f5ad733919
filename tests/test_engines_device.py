"""The GPU as its driver tells of it, and TensorRT's layers as its inspector does, in the words of each version."""

from __future__ import annotations

import types

import pytest

from vggbench.engines import device
from vggbench.engines.layers import Layer, _layer, fallbacks, unseen

NAMES = ["block1.conv1", "block1.conv10", "fc6"]


class Driver:
    """libcuda of an H100 with CUDA 13.0."""

    def __init__(self, count=1):
        self.count = count

    def cuInit(self, flags):
        return 0 if self.count else 100

    def cuDeviceGet(self, handle, number):
        return 0

    def cuDeviceGetName(self, name, size, handle):
        name.value = b"NVIDIA H100"

    def cuDeviceGetAttribute(self, value, attribute, handle):
        value._obj.value = {75: 9, 76: 0}[attribute]

    def cuDriverGetVersion(self, value):
        value._obj.value = 13000


@pytest.fixture
def driver(monkeypatch):
    def become(library):
        monkeypatch.setattr(device, "ctypes", types.SimpleNamespace(**{**vars(device.ctypes), "CDLL": library}))
        device.first_device.cache_clear()

    yield become
    device.first_device.cache_clear()


def test_name_capability_and_driver_come_from_the_driver(driver):
    driver(lambda name: Driver())
    found = device.first_device()
    assert (found.name, found.sm) == ("NVIDIA H100", 90)
    assert "CUDA 13.0" in found.driver


def test_without_a_driver_or_a_device_there_is_none(driver):
    def absent(name):
        raise OSError(name)

    driver(absent)
    assert device.first_device() is None
    driver(lambda name: Driver(0))
    assert device.first_device() is None


@pytest.mark.parametrize(
    ("tensor", "precision"),
    [
        ({"Format/Datatype": "Row major linear FP32"}, "fp32"),
        ({"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}, "fp16"),
        ({"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}, "int8"),
        ({"Format/Datatype": "N/A due to dynamic shapes"}, ""),
        ({"Format": "Row major linear", "DataType": "Half"}, "fp16"),
        ({"Format": "Row major linear", "DataType": "BFloat16"}, "bf16"),
        ({"Format": "Row major linear", "DataType": "FP8"}, "fp8"),
        ({"Format": "Row major linear", "Datatype": "Float"}, "fp32"),
    ],
)
def test_types_are_read_as_each_version_writes_them(tensor, precision):
    entry = {"Name": "block1.conv1 + block1.relu1", "LayerType": "CaskConvolution", "Inputs": [tensor]}
    found = _layer(entry, NAMES)
    assert (found.precision, found.names) == (precision, ("block1.conv1",))


def test_a_layer_is_known_by_its_whole_name_in_names_and_metadata():
    for entry, names in (
        ({"Name": "block1.conv10"}, ("block1.conv10",)),
        ({"Name": "block1.conv1.weight + block1.conv1.weight.quantize + block1.conv1"}, ("block1.conv1",)),
        ({"Name": "block1.conv1.input.quantize"}, ()),
        ({"Name": "__myl_Fc", "Metadata": "[ONNX Layer: fc6]\x1e[ONNX Layer: fc6.relu]"}, ("fc6",)),
        ({"Name": "Reformatting CopyNode for Input 0 to fc6", "LayerType": "Reformat"}, ()),
    ):
        assert _layer(entry, NAMES).names == names
    assert _layer("fc6 + fc6.relu", NAMES) == Layer("fc6 + fc6.relu", "", ("fc6",), "", "", "")


def test_tf32_is_told_by_the_tactic_and_a_wider_type_is_a_fallback():
    entry = {"Name": "fc6", "Inputs": [{"Format/Datatype": "Row major linear FP32"}], "TacticName": "sm80_tf32f32_x"}
    tf32 = _layer(entry, NAMES)
    assert tf32.precision == "tf32"
    assert fallbacks([tf32], NAMES, "tf32") == []
    assert fallbacks([tf32], NAMES, "fp16") == ["fc6 in tf32"]
    assert unseen([tf32], NAMES) == NAMES[:2]
