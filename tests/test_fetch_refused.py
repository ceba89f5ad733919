"""Downloads from a server that lies, sends something else or nothing: one line, and nothing of it kept."""

import dataclasses
import fcntl
import threading

import pytest
from weights_server import CONTENT, breaking, left, model, refused, send, whole

from vggbench import paper_models, weights_fetch
from vggbench.errors import StorageError, UsageError, WeightsError
from vggbench.weights_fetch import fetch

OTHER = b"<!doctype html><title>Sign in</title>" + bytes(5000)


def test_a_server_that_always_breaks_off_is_given_up_and_what_came_is_kept(server):
    server.answer = breaking(0.5, 10**9, ranges=False)
    assert "the same command goes on there" in refused(server)
    assert left(server) == ["vgg.caffemodel.part"]
    server.answer = whole
    assert fetch(model(server)).read_bytes() == CONTENT
    assert server.requests[-1] == f"bytes={len(CONTENT) // 2}-"


def test_a_server_that_brings_a_little_each_time_is_given_up_in_the_end(server, monkeypatch):
    monkeypatch.setattr(weights_fetch, "ATTEMPTS", 7)
    server.answer = breaking(0.01, 10**9)
    assert "kept" in refused(server)
    assert len(server.requests) == 7


def test_a_silent_server_is_given_up(server, monkeypatch):
    monkeypatch.setattr(weights_fetch, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(weights_fetch, "TRIES", 2)
    refused_it = threading.Event()
    server.answer = lambda handler, _: refused_it.wait(60)
    try:
        assert "Timeout" in refused(server)
    finally:
        refused_it.set()


def test_a_length_that_is_too_short_gives_a_wrong_file(server):
    server.answer = lambda handler, _: send(handler, CONTENT, len(CONTENT) - 1000)
    assert "another file" in refused(server)
    assert left(server) == []


def test_an_absurd_length_is_refused_before_anything_is_kept(server):
    server.answer = lambda handler, _: send(handler, b"x", 10**13)
    assert "announces 10,000,000,000,000 bytes" in refused(server)
    assert left(server) == []


@pytest.mark.parametrize(("length", "words"), [("9" * 5000, "announces 99,999"), ("12, 13", "Content-Length")])
def test_a_length_that_is_no_number_of_bytes_is_refused(server, length, words):
    server.answer = lambda handler, _: send(handler, CONTENT, length)
    assert words in refused(server)


@pytest.mark.parametrize("length", ["\N{SUPERSCRIPT TWO}", "-1", ""])
def test_a_length_that_says_nothing_is_left_aside(server, length):
    server.answer = lambda handler, _: send(handler, CONTENT, length)
    assert fetch(model(server)).read_bytes() == CONTENT


def test_a_length_beyond_the_disk_is_refused(server, monkeypatch):
    monkeypatch.setattr(
        weights_fetch.shutil, "disk_usage", lambda _: weights_fetch.shutil._ntuple_diskusage(10, 9, 1000)
    )
    assert "1,000 are free" in refused(server, StorageError)


def test_an_answer_without_length_and_without_end_is_cut_off(server, monkeypatch):
    monkeypatch.setattr(weights_fetch, "MAX_BYTES", 2**20)
    server.answer = lambda handler, _: send(handler, CONTENT, length=False)
    assert "more than 1,048,576 bytes" in refused(server)


@pytest.mark.parametrize(("kind", "digits"), [("sha1", None), ("sha256", 8)])
def test_a_wrong_file_is_refused_and_nothing_of_it_kept(server, kind, digits):
    server.answer = lambda handler, _: send(handler, OTHER)
    text = refused(server, kind=kind, digits=digits)
    assert "sent another file" in text
    assert "web page" in text
    assert left(server) == []


def test_redirects_are_followed_and_loops_refused(server):
    def redirect(handler, number):
        if handler.path == "/vgg.caffemodel":
            send(handler, b"", status=302, Location="/moved")
        elif handler.path == "/loop":
            send(handler, b"", status=302, Location="/loop")
        elif handler.path == "/file":
            send(handler, b"", status=302, Location="file:///etc/hostname")
        else:
            whole(handler, number)

    server.answer = redirect
    assert "redirects without end" in refused(server, path="/loop")
    assert "not fetched" in refused(server, path="/file")
    assert fetch(model(server)).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_error_of_the_server_is_told_at_once(server, status):
    server.answer = lambda handler, _: send(handler, b"no", status=status)
    assert f"answers {status}" in refused(server)
    assert len(server.requests) == 1


def test_no_server_at_all_is_one_line(server):
    dead = dataclasses.replace(model(server), url="http://127.0.0.1:9/vgg.caffemodel")
    with pytest.raises(WeightsError, match="ConnectionError") as error:
        fetch(dead)
    assert "\n" not in str(error.value)
    assert "object at 0x" not in str(error.value)
    assert str(error.value).endswith("Nothing came; try again. Or bring the file from elsewhere: --weights D=FILE.")


def test_a_file_of_that_name_that_is_another_is_not_written_over(server, tmp_path):
    mine = tmp_path / "vgg.caffemodel"
    mine.write_bytes(b"mine")
    with pytest.raises(UsageError, match="is there already and is not"):
        fetch(model(server), mine)
    assert mine.read_bytes() == b"mine"
    kept = weights_fetch.place(model(server))
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"damaged in the cache")
    assert fetch(model(server)).read_bytes() == CONTENT


def test_two_downloads_of_one_file_do_not_mix(server):
    part = weights_fetch.place(model(server)).with_name("vgg.caffemodel.part")
    part.parent.mkdir(parents=True)
    with open(part, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another download of it is running"):
            fetch(model(server))


def test_a_download_that_was_finished_meanwhile_is_not_written_to(server, monkeypatch):
    path = weights_fetch.place(model(server))

    def finished(file, _):
        path.with_name("vgg.caffemodel.part").write_bytes(CONTENT)
        path.with_name("vgg.caffemodel.part").rename(path)

    monkeypatch.setattr(weights_fetch.fcntl, "flock", finished)
    with pytest.raises(UsageError, match="another download of it is running"):
        fetch(model(server))
    assert path.read_bytes() == CONTENT
    assert server.requests == []


def test_a_model_without_address_is_no_download():
    with pytest.raises(UsageError, match="no address is known"):
        fetch(paper_models.by_name("matconvnet/beta16/19"))
