"""A server of one weights file on this machine, whose answers a test sets: slow, broken off, or lies."""

import contextlib
import dataclasses
import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vggbench import paper_models, weights_fetch
from vggbench.errors import WeightsError
from vggbench.weights_fetch import fetch

CONTENT = bytes(range(256)) * 12_000  # 3 MB: twelve chunks


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
