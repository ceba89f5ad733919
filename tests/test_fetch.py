"""Downloads from a server that is slow or breaks off: the right file in the end, and nothing half-written is used."""

import dataclasses
import time

import pytest
from weights_server import CONTENT, breaking, left, model, send, start_of, whole

from vggbench import weights_fetch
from vggbench.weights_fetch import fetch


@pytest.mark.parametrize(("kind", "digits"), [("sha1", None), ("md5", None), ("sha256", 8)])
def test_a_whole_file_gets_its_name_and_is_not_fetched_twice(server, kind, digits):
    seen = []
    path = fetch(model(server, kind, digits), progress=lambda stage, done, total, _: seen.append((stage, done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[0][0] == "Downloading VGG_ILSVRC_16_layers"
    assert seen[-1][1:] == (len(CONTENT), len(CONTENT))
    assert left(server) == ["vgg.caffemodel"]
    assert fetch(model(server, kind, digits)) == path
    assert server.requests == [None]


def test_it_can_be_put_into_a_folder_or_under_another_name(server, tmp_path):
    assert fetch(model(server), tmp_path) == tmp_path / "vgg.caffemodel"
    assert fetch(model(server), tmp_path / "other").read_bytes() == CONTENT


def test_what_came_before_the_connection_broke_is_not_sent_again(server):
    server.answer = breaking(0.5, 3)
    assert fetch(model(server)).read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.requests == [None, f"bytes={half}-", f"bytes={half + half // 2}-", f"bytes={half * 7 // 4}-"]


def test_a_server_without_ranges_starts_over(server):
    server.answer = breaking(0.5, 3, ranges=False)
    assert fetch(model(server)).read_bytes() == CONTENT
    assert len(server.requests) == 4


def test_a_slow_server_is_waited_for(server):
    def slow(handler, number):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        for at in range(0, len(CONTENT), len(CONTENT) // 8):
            handler.wfile.write(CONTENT[at : at + len(CONTENT) // 8])
            handler.wfile.flush()
            time.sleep(0.05)

    server.answer = slow
    assert fetch(model(server)).read_bytes() == CONTENT


def test_a_length_that_is_too_long_does_not_matter_where_all_came(server):
    server.answer = lambda handler, _: send(handler, CONTENT, len(CONTENT) + 1000)
    assert fetch(model(server)).read_bytes() == CONTENT


def test_an_answer_without_length_is_judged_by_its_digest(server):
    server.answer = lambda handler, _: send(handler, CONTENT, length=False)
    assert fetch(model(server)).read_bytes() == CONTENT


def test_the_start_of_another_file_from_an_earlier_run_does_not_spoil_it(server):
    part = weights_fetch.place(model(server)).with_name("vgg.caffemodel.part")
    part.parent.mkdir(parents=True)
    for start in (b"other bytes" * 1000, CONTENT + b"more", CONTENT):
        part.write_bytes(start)
        assert fetch(model(server)).read_bytes() == CONTENT
        weights_fetch.place(model(server)).unlink()


def test_a_range_that_was_not_asked_for_is_not_taken(server):
    def elsewhere(handler, number):
        if start_of(handler) is None:
            breaking(0.5, 1)(handler, number)
        else:
            send(handler, CONTENT[5:], status=206, Content_Range=f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}")

    server.answer = elsewhere
    assert fetch(model(server)).read_bytes() == CONTENT
    assert server.requests == [None, f"bytes={len(CONTENT) // 2}-", None]


def test_a_busy_server_is_asked_again(server):
    server.answer = lambda handler, n: whole(handler, n) if n > 2 else send(handler, b"", status=503)
    assert fetch(model(server)).read_bytes() == CONTENT


def test_proxies_of_the_environment_are_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    far = dataclasses.replace(model(server), url="http://weights.invalid/vgg.caffemodel")
    assert fetch(far).read_bytes() == CONTENT


def test_nothing_stands_under_the_files_name_while_it_comes(server):
    seen = []
    path = weights_fetch.place(model(server))
    fetch(model(server), progress=lambda *_: seen.append(path.exists()))
    assert len(seen) >= 3
    assert not any(seen)
    assert path.exists()


def test_an_interrupted_download_goes_on(server):
    def interrupt(_, done, total, detail):
        if done > len(CONTENT) // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(model(server), progress=interrupt)
    assert left(server) == ["vgg.caffemodel.part"]
    fetch(model(server))
    assert server.requests[1].startswith("bytes=")
