"""Download of published weights: resumed where it broke off, held to its published digest before it gets its name.

What has come so far stands in a file of its own (.part); only a whole one whose digest is right is moved to its place.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import vggbench
from vggbench import cache, weights_convert
from vggbench.errors import StorageError, UsageError, WeightsError
from vggbench.paper_models import Published
from vggbench.progress import Report, silent

#: No VGG file has more; a server that sends without end is stopped here.
MAX_BYTES = 2**31
#: Attempts in a row that brought nothing new, and attempts in all, before it is given up; seconds before the next.
TRIES, ATTEMPTS, WAIT_SECONDS = 5, 100, 1.0
CONNECT_SECONDS, SILENT_SECONDS = 15.0, 60.0
_CHUNK = 2**18


class _Broken(Exception):
    """An attempt that ended early; what came is kept."""


def place(model: Published) -> Path:
    """Where a published file lies in the cache once it was fetched."""
    return cache.root() / "weights" / model.file


def fetch(model: Published, out: Path | None = None, progress: Report = silent) -> Path:
    """The published file at ``out`` (a folder or a file name; default: the cache), downloaded if it is not there.

    Proxies are taken from the environment, as requests does. Raises WeightsError where the server does not deliver this
    file, StorageError where the disk does not take it, UsageError.
    """
    if model.url is None:
        raise UsageError(
            f"{model.name}: no address is known. The same weights: vggbench weights fetch {model.network}."
        )
    path = place(model) if out is None else out / model.file if out.is_dir() else out
    if path.exists():
        if model.holds(weights_convert.file_digests(path, progress)):
            return path
        if out is not None:
            raise UsageError(f"{path}: is there already and is not {model.name}. Move it away, or name another --out.")
        cache.remove(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _retrieve(model, model.url, path, progress)
    except OSError as error:  # a full disk; requests' own errors were turned before
        why = cache.reason(path, error)
        raise StorageError(
            f"{path}: cannot be written ({why}). Free space or name another --out. What came is kept."
        ) from error


def _retrieve(model: Published, url: str, path: Path, progress: Report) -> Path:
    pooch = importlib.import_module("pooch")  # without types
    pooch.get_logger().setLevel("ERROR")

    def download(address: str, target: Any, _: Any) -> None:
        part = path.with_name(f"{path.name}.part")
        with _locked(part) as file:
            _whole(model, address, file, progress)
            os.replace(part, target)

    # pooch compares whole digests again; of a published prefix _whole() has compared what there is.
    whole = {"sha1": 40, "sha256": 64, "md5": 32}[model.digest_kind] == len(model.digest)
    known = f"{model.digest_kind}:{model.digest}" if whole else None
    return Path(pooch.retrieve(url, known, fname=path.name, path=path.parent, downloader=download))


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """The file for what has come so far; two downloads of one file would write into each other."""
    with open(part, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # One that was just finished has moved what was opened here to its place: it must not be touched.
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(part)):
                raise FileExistsError(part)
        except OSError as error:
            raise UsageError(f"{part}: another download of it is running. Wait for that one.") from error
        try:
            yield file
        finally:
            if _size(file) == 0:
                cache.remove(part)


def _whole(model: Published, url: str, file: IO[bytes], progress: Report) -> None:
    """Until ``file`` holds the published file, resumed as often as that goes on; else it is emptied and refused."""
    before = _size(file)
    reason = _attempts(url, file, lambda done, total: progress(f"Downloading {model.name}", done, total, ""))
    if _right(model, file):
        return
    if before:  # what was there of an earlier run may be of another file
        _empty(file)
        reason = _attempts(url, file, lambda done, total: progress(f"Downloading {model.name}", done, total, ""))
        if _right(model, file):
            return
    came = _size(file)
    if reason:
        kept = f"{came:,} bytes are kept; the same command goes on there." if came else "Nothing came; try again."
        raise WeightsError(f"{url}: {reason}. {kept} Or bring the file from elsewhere: --weights {model.network}=FILE.")
    file.seek(0)
    page = " It is a web page." if file.read(64).lstrip().startswith(b"<") else ""
    _empty(file)
    raise WeightsError(
        f"{url}: the server sent another file: {came:,} bytes whose {model.digest_kind} does not begin with "
        f"{model.digest}.{page} Nothing of it was kept."
    )


def _attempts(url: str, file: IO[bytes], progress: Callable[[int, int], None]) -> str:
    """Download and resume; "" once the server says that all has come, else why it was given up."""
    import requests

    failures, reason = 0, ""
    with requests.Session() as session:
        for _ in range(ATTEMPTS):
            before = _size(file)
            try:
                _attempt(session, url, file, progress)
                return ""
            except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL) as error:
                raise WeightsError(f"{url}: leads to an address that is not fetched ({_words(error)}).") from error
            except requests.exceptions.TooManyRedirects as error:
                raise WeightsError(f"{url}: redirects without end.") from error
            except (_Broken, requests.exceptions.RequestException) as error:
                failures, reason = 0 if _size(file) > before else failures + 1, _words(error)
                if failures >= TRIES:
                    break
            time.sleep(WAIT_SECONDS * 2 ** max(failures - 1, 0))
    return reason


def _attempt(session: Any, url: str, file: IO[bytes], progress: Callable[[int, int], None]) -> None:
    """One request from where the file ends. Raises _Broken, requests' errors, WeightsError where more is no use."""
    have = _size(file)
    headers = {"Accept-Encoding": "identity", "User-Agent": f"vggbench/{vggbench.__version__}"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with session.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, SILENT_SECONDS)) as answer:
        if urlsplit(url).scheme == "https" and urlsplit(answer.url).scheme != "https":
            raise WeightsError(f"{url}: redirects to an address without encryption ({answer.url[:80]}).")
        if answer.status_code == 416:  # nothing after what we have
            if answer.headers.get("Content-Range") == f"bytes */{have}":
                return
            _empty(file)
            raise _Broken("the server has less than what came before")
        if answer.status_code >= 500 or answer.status_code in (408, 429):
            raise _Broken(f"the server answers {answer.status_code}")
        if answer.status_code not in (200, 206):
            raise WeightsError(
                f"{url}: the server answers {answer.status_code} {answer.reason}. Nothing was downloaded."
            )
        if answer.status_code == 200 or not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            if answer.status_code == 206:
                _empty(file)
                raise _Broken("the server sends another part than asked for")
            _empty(file)
            have = 0
        announced = answer.headers.get("Content-Length", "")
        # Twenty digits are too many already; int() refuses thousands.
        total = have + int(announced[:20]) if announced.isdecimal() else 0
        _check_room(url, file, total, have)
        _receive(answer, file, have, total, progress)


def _receive(answer: Any, file: IO[bytes], have: int, total: int, progress: Callable[[int, int], None]) -> None:
    answer.raw.enforce_content_length = False  # urllib3 would drop what came of the last chunk; compared below
    for chunk in answer.iter_content(_CHUNK):
        have += len(chunk)
        if have > (total or MAX_BYTES):
            raise WeightsError(f"{answer.url}: the server sends more than {total or MAX_BYTES:,} bytes.")
        file.write(chunk)
        file.flush()
        progress(have, total or have)
    os.fsync(file.fileno())
    if have < total:
        raise _Broken(f"the connection broke off after {have:,} of {total:,} bytes")


def _check_room(url: str, file: IO[bytes], total: int, have: int) -> None:
    if total > MAX_BYTES:
        raise WeightsError(f"{url}: the server announces {total:,} bytes, more than any VGG file has.")
    free = shutil.disk_usage(Path(file.name).parent).free
    if total - have > free:
        raise StorageError(f"{file.name}: {total - have:,} bytes are to come, {free:,} are free. Name another --out.")


def _right(model: Published, file: IO[bytes]) -> bool:
    file.flush()
    return _size(file) > 0 and model.holds(weights_convert.file_digests(Path(file.name)))


def _size(file: IO[bytes]) -> int:
    return file.seek(0, os.SEEK_END)


def _empty(file: IO[bytes]) -> None:
    file.truncate(0)
    file.seek(0)


def _words(error: Exception) -> str:
    """requests' errors nest others and name objects in memory; their kind and what the innermost says are enough."""
    if isinstance(error, _Broken):
        return str(error).rstrip(".")
    inner: BaseException = error
    while (deeper := inner.__cause__ or inner.__context__) is not None:
        inner = deeper
    said = inner.strerror if isinstance(inner, OSError) and inner.strerror else str(inner)
    return f"{type(error).__name__}: {' '.join(said.split())[:120]}".rstrip(".")
