"""The bytes of a file as the pipeline reads them."""

import os

import pytest

from vggbench.images import source


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001])
@pytest.mark.parametrize("most", [1, 1000, 10**6])
def test_all_bytes_come_however_few_an_answer_has(tmp_path, monkeypatch, size, most):
    file = tmp_path / "image"
    file.write_bytes(os.urandom(size))
    genuine = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, count: genuine(descriptor, min(count, most)))
    assert source._read(file) == (file.read_bytes(), file.stat().st_mtime_ns)


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(tmp_path, monkeypatch):
    file = tmp_path / "image"
    file.write_bytes(bytes(1000))
    genuine, grown = os.read, []

    def read(descriptor, count):
        if not grown:
            grown.append(True)
            with open(file, "ab") as stream:
                stream.write(b"more" * 1000)
        return genuine(descriptor, count)

    monkeypatch.setattr(os, "read", read)
    assert source._read(file) == (bytes(1000) + b"more" * 1000, file.stat().st_mtime_ns)


def test_a_folder_in_a_files_place_is_an_error_of_the_system(tmp_path):
    before = os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else []
    for _ in range(3):
        with pytest.raises(OSError, match="directory"):
            source._read(tmp_path)
    assert len(os.listdir("/proc/self/fd") if before else []) == len(before)
