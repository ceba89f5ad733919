"""What a record says about the machine: enough to know it, nothing about whose it is."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest

from vggbench import environment


def test_the_description_is_flat_and_json():
    found = environment.environment()
    assert all(isinstance(value, str | int | float | None) for value in found.values())
    assert json.loads(json.dumps(found)) == found


def test_it_names_cpu_memory_python_and_libraries():
    found = environment.environment()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_bytes"] > 1 << 28
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert {"torch", "onnxruntime", "numpy", "pillow"} <= set(found)


def test_no_host_and_no_user_is_named(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody-private")
    command = ["/home/somebody-private/bin/vggbench", "evaluate", "--data", "/home/other-person/photos"]
    text = json.dumps(environment.environment(command))
    assert socket.gethostname() not in text.split('"')
    assert "somebody-private" not in text
    assert "other-person" not in text
    user = getpass.getuser()
    assert user == "root" or user not in text


def test_the_command_can_be_typed_again(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    command = ["/home/ann/.venv/bin/vggbench", "reproduce", "--weights", "D:[256;512]=/home/ann/a b.safetensors"]
    assert environment.command_line(command) == "vggbench reproduce --weights 'D:[256;512]=~/a b.safetensors'"


def test_python_dash_m_is_named_as_the_command():
    assert environment.command_line(["/somewhere/vggbench/__main__.py", "doctor"]) == "vggbench doctor"


def test_importing_it_needs_no_third_party_library():
    code = (
        "import sys; before = set(sys.modules); import vggbench.environment; "
        "print([m for m in ('torch', 'numpy', 'onnxruntime', 'PIL', 'psutil') if m in set(sys.modules) - before])"
    )
    tree = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_an_absent_library_has_no_version():
    assert environment.installed("a-distribution-that-does-not-exist") is None


def test_without_the_driver_there_is_no_cuda(monkeypatch):
    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(environment.ctypes, "CDLL", absent)
    environment._cuda_devices.cache_clear()
    try:
        assert environment.has_cuda() is False
        assert environment.environment()["gpu"] is None
    finally:
        environment._cuda_devices.cache_clear()


def test_nvml_is_asked_for_the_gpu_that_cuda_shows_by_its_uuid(monkeypatch):
    class Driver:
        def cuInit(self, flags: int) -> int:
            return 0

        def cuDeviceGet(self, device: object, index: int) -> int:
            device._obj.value = 40 + index
            return 0 if index < 2 else 101  # CUDA_ERROR_INVALID_DEVICE

        def cuDeviceGetUuid_v2(self, uuid: object, device: object) -> int:
            uuid[:] = bytes(range(device.value, device.value + 16))
            return 0

    class Nvml:
        def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> bytes:
            return uuid

    monkeypatch.setattr(environment.ctypes, "CDLL", lambda name: Driver())
    assert environment.nvml_handle(Nvml(), 1) == b"GPU-292a2b2c-2d2e-2f30-3132-333435363738"
    with pytest.raises(OSError, match="UUID of device 2"):
        environment.nvml_handle(Nvml(), 2)

    class Sliced:
        def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> bytes:
            if not uuid.startswith(b"MIG-"):
                raise LookupError("NVMLError_NotFound")
            return uuid

    assert environment.nvml_handle(Sliced(), 0) == b"MIG-28292a2b-2c2d-2e2f-3031-323334353637"


def test_what_nvml_refuses_is_left_out_and_the_rest_is_recorded():
    class Nvml:
        NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

        def nvmlSystemGetDriverVersion(self) -> str:
            return "580.159.04"

        def nvmlDeviceGetMemoryInfo(self, handle: object) -> types.SimpleNamespace:
            return types.SimpleNamespace(total=80 << 30)

        def nvmlDeviceGetClockInfo(self, handle: object, which: int) -> int:
            raise RuntimeError("NVMLError_NotSupported")

        def nvmlDeviceGetMaxClockInfo(self, handle: object, which: int) -> int:
            return 1980

    found = {"gpu_driver": "580.159.04", "gpu_memory_bytes": 80 << 30, "gpu_max_sm_clock_mhz": 1980}
    assert environment._nvml_facts(Nvml(), 0) == found


def test_a_driver_without_a_device_is_no_cuda(monkeypatch):
    class Driver:
        def cuInit(self, flags: int) -> int:
            return 100  # CUDA_ERROR_NO_DEVICE

    monkeypatch.setattr(environment.ctypes, "CDLL", lambda name: Driver())
    environment._cuda_devices.cache_clear()
    try:
        assert environment.has_cuda() is False
    finally:
        environment._cuda_devices.cache_clear()


@pytest.fixture
def glibc(monkeypatch, tmp_path):
    """A system with huge pages on request; returns the file that says so."""
    pages = tmp_path / "enabled"
    pages.write_text("always [madvise] never\n")
    monkeypatch.setattr(environment, "_TRANSPARENT", pages)
    monkeypatch.setattr(environment.platform, "libc_ver", lambda: ("glibc", "2.36"))
    return pages


def test_huge_pages_are_asked_of_the_c_library_beside_what_the_user_asks_of_it(glibc):
    assert environment.huge_pages({}) == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert environment.huge_pages({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}) == {
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1"
    }


def test_huge_pages_are_not_asked_for_where_there_are_none_or_the_user_chose(glibc, monkeypatch):
    assert environment.huge_pages({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}) == {}
    for library in (("glibc", "2.31"), ("musl", "1.2.4"), ("", "")):
        with monkeypatch.context() as other:
            other.setattr(environment.platform, "libc_ver", lambda library=library: library)
            assert environment.huge_pages({}) == {}
    glibc.write_text("always madvise [never]\n")
    assert environment.huge_pages({}) == {}
    glibc.unlink()
    assert environment.huge_pages({}) == {}


def test_a_record_names_what_was_asked_of_the_c_library(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    assert environment.environment()["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"


def test_added_variables_are_taken_back_and_the_users_own_put_back(monkeypatch):
    monkeypatch.setenv("MADE_UP", "mine")
    monkeypatch.delenv("MADE_UP_TOO", raising=False)
    with environment.variables({"MADE_UP": "a", "MADE_UP_TOO": "b"}):
        assert (os.environ["MADE_UP"], os.environ["MADE_UP_TOO"]) == ("a", "b")
    assert os.environ["MADE_UP"] == "mine"
    assert "MADE_UP_TOO" not in os.environ
