"""Downloads from a server that is slow, breaks off, lies or sends something else: the right file, or one line."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from vggbench import paper_models, weights, weights_fetch
from vggbench.cli import app
from vggbench.errors import StorageError, UsageError, WeightsError
from vggbench.weights_fetch import fetch

CONTENT = bytes(range(256)) * 12_000  # 3 MB: twelve chunks
OTHER = b"<!doctype html><title>Sign in</title>" + bytes(5000)


class Server:
    """A server whose answers a test sets. answer(handler, number of this request) writes one answer."""

    def __init__(self):
        self.requests = []
        self.answer = whole
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append(self.headers.get("Range"))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    server.answer(self, len(server.requests))
                self.close_connection = True

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def send(handler, data, length=None, status=200, **headers):
    handler.send_response(status)
    if length is not False:
        handler.send_header("Content-Length", str(len(data) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def start_of(handler):
    wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    return int(wanted[1]) if wanted else None


def whole(handler, _):
    """With ranges, as a proper server."""
    start = start_of(handler)
    if start is None:
        send(handler, CONTENT)
    elif start >= len(CONTENT):
        send(handler, b"", status=416, Content_Range=f"bytes */{len(CONTENT)}")
    else:
        span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        send(handler, CONTENT[start:], status=206, Content_Range=span)


def breaking(share, times, ranges=True):
    """Announces all and sends a share, so many times; then all of it."""

    def answer(handler, number):
        if number > times:
            whole(handler, number) if ranges else send(handler, CONTENT)
            return
        start = (start_of(handler) or 0) if ranges else 0
        rest = CONTENT[start:]
        span = {"Content_Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"} if start else {}
        send(handler, rest[: int(len(rest) * share)], len(rest), 206 if start else 200, **span)

    return answer


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights_fetch, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(weights_fetch, "SILENT_SECONDS", 1.0)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    yield made
    made.stop()


def model(server, kind="sha1", digits=None, path="/vgg.caffemodel"):
    digest = hashlib.new(kind, CONTENT).hexdigest()[:digits]
    known = paper_models.by_name("VGG_ILSVRC_16_layers")
    return dataclasses.replace(known, url=server.address + path, file="vgg.caffemodel", digest_kind=kind, digest=digest)


def refused(server, error=WeightsError, **how):
    """The refusal's line; nothing stands at the file's name after it."""
    with pytest.raises(error) as raised:
        fetch(model(server, **how))
    assert not weights_fetch.place(model(server)).exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def left(server):
    """What lies in the folder of the file."""
    return sorted(path.name for path in weights_fetch.place(model(server)).parent.iterdir())


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


def test_a_silent_server_is_given_up(server, monkeypatch):
    monkeypatch.setattr(weights_fetch, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(weights_fetch, "TRIES", 2)
    server.answer = lambda handler, _: time.sleep(0.4)
    assert "Timeout" in refused(server)


def test_a_length_that_is_too_long_does_not_matter_where_all_came(server):
    server.answer = lambda handler, _: send(handler, CONTENT, len(CONTENT) + 1000)
    assert fetch(model(server)).read_bytes() == CONTENT


def test_a_length_that_is_too_short_gives_a_wrong_file(server):
    server.answer = lambda handler, _: send(handler, CONTENT, len(CONTENT) - 1000)
    assert "another file" in refused(server)
    assert left(server) == []


def test_an_absurd_length_is_refused_before_anything_is_kept(server):
    server.answer = lambda handler, _: send(handler, b"x", 10**13)
    assert "announces 10,000,000,000,000 bytes" in refused(server)
    assert left(server) == []


def test_a_length_beyond_the_disk_is_refused(server, monkeypatch):
    monkeypatch.setattr(
        weights_fetch.shutil, "disk_usage", lambda _: weights_fetch.shutil._ntuple_diskusage(10, 9, 1000)
    )
    assert "1,000 are free" in refused(server, StorageError)


def test_an_answer_without_length_and_without_end_is_cut_off(server, monkeypatch):
    monkeypatch.setattr(weights_fetch, "MAX_BYTES", 2**20)
    server.answer = lambda handler, _: send(handler, CONTENT, length=False)
    assert "more than 1,048,576 bytes" in refused(server)


def test_an_answer_without_length_is_judged_by_its_digest(server):
    server.answer = lambda handler, _: send(handler, CONTENT, length=False)
    assert fetch(model(server)).read_bytes() == CONTENT


@pytest.mark.parametrize(("kind", "digits"), [("sha1", None), ("sha256", 8)])
def test_a_wrong_file_is_refused_and_nothing_of_it_kept(server, kind, digits):
    server.answer = lambda handler, _: send(handler, OTHER)
    text = refused(server, kind=kind, digits=digits)
    assert "sent another file" in text
    assert "web page" in text
    assert left(server) == []


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


def test_a_busy_server_is_asked_again(server):
    server.answer = lambda handler, n: whole(handler, n) if n > 2 else send(handler, b"", status=503)
    assert fetch(model(server)).read_bytes() == CONTENT


def test_no_server_at_all_is_one_line(server):
    dead = dataclasses.replace(model(server), url="http://127.0.0.1:9/vgg.caffemodel")
    with pytest.raises(WeightsError, match="ConnectionError") as error:
        fetch(dead)
    assert "\n" not in str(error.value)


def test_proxies_of_the_environment_are_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    far = dataclasses.replace(model(server), url="http://weights.invalid/vgg.caffemodel")
    assert fetch(far).read_bytes() == CONTENT


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


def test_a_model_without_address_is_no_download():
    with pytest.raises(UsageError, match="no address is known"):
        fetch(paper_models.by_name("matconvnet/beta16/19"))


def command(*arguments):
    """The command's result, its standard error apart from its standard output."""
    return CliRunner().invoke(app, ["weights", *map(str, arguments)])


def test_the_command_names_licence_and_citation_before_it_downloads(server, monkeypatch):
    monkeypatch.setattr(weights, "published_model", lambda _: model(server))
    server.answer = lambda handler, _: send(handler, b"", status=404)
    result = command("fetch", "D", "--quiet")
    assert result.exit_code == 5
    told = result.stderr.splitlines()
    assert told[0].startswith("vggbench: VGG_ILSVRC_16_layers by Visual Geometry Group")
    assert told[1].startswith("vggbench: Licence: gist revisions differ: 'CC BY-NC 4.0'")
    assert "arXiv 1409.1556" in told[2]
    assert "answers 404" in told[3]
    assert len(told) == 4
    server.answer = whole
    result = command("fetch", "D", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["file"] == str(weights_fetch.place(model(server)))
    assert document["bytes"] == len(CONTENT)
    assert "--weights D=VGG_ILSVRC_16_layers" in command("fetch", "D").stdout


def test_the_command_offers_a_training_for_what_nobody_published(server):
    result = command("fetch", "C:384")
    assert result.exit_code == 5
    assert "vggbench train --network C --train-scale '384'" in result.stderr
    assert command("fetch", "nothing").exit_code == 2
    assert server.requests == []
