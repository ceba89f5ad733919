"""One exception root; the CLI maps each kind to its exit status at one place.

A message is one line: what came, what is accepted, what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


class VggbenchError(Exception):
    """Bad input or a missing means: shown as one line, never as a traceback."""

    exit_code = 2


class UsageError(VggbenchError):
    """An option that cannot be: unknown network, protocol, scale, precision."""

    exit_code = 2


class DataError(VggbenchError):
    """Images or labels that cannot be used: empty folder, corrupt file, label out of range."""

    exit_code = 4


class WeightsError(VggbenchError):
    """A weights file that is not what was asked for: other network, other class count, other format."""

    exit_code = 5


class BackendUnavailable(VggbenchError):
    """A backend, precision or device that does not work here; says how to get it."""

    exit_code = 6


class OutOfMemory(BackendUnavailable):
    """What was asked for needs more memory than there is, of the machine or of its GPU."""


class StorageError(VggbenchError):
    """The cache or the output folder cannot be read or written (full, read-only)."""

    exit_code = 7


class RecordError(VggbenchError):
    """Records that cannot be read or cannot share a table."""

    exit_code = 8


class CalibrationError(VggbenchError):
    """Calibration ranges or a graph that cannot be used: of other weights, cut short, empty, not one of ours."""

    exit_code = 9


#: What libraries say, each in its own class: PyTorch's allocators, ONNX Runtime, OpenVINO, C++, CUDA, the system.
_MEMORY_WORDS = re.compile(
    r"(can't|cannot|failed to|unable to|could not) allocate|out[ _]of[ _]memory|not enough memory|bad[ _]alloc", re.I
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library's error is for want of memory; these have no class in common."""
    if isinstance(error, MemoryError | OutOfMemory):
        return True
    return not isinstance(error, VggbenchError) and _MEMORY_WORDS.search(str(error)) is not None


def out_of_memory(what: str, error: BaseException) -> OutOfMemory:
    """The error to raise for one that is_out_of_memory. what: was being done, with its sizes."""
    words = " ".join(str(error).split())
    found = _MEMORY_WORDS.search(words)
    said = words[found.start() if found else 0 :][:120].rstrip(". ") or type(error).__name__
    return OutOfMemory(
        f"Out of memory: {what} ({said}). Take a smaller --batch, smaller images or fewer --threads, or free memory."
    )


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Raises OutOfMemory, with what was being done, for a library's error of its own class."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
            raise
        raise out_of_memory(what, error) from error


def first_problem(error: Exception) -> str:
    """An error of a file's content in one line: of pydantic's the first field that is wrong, of others the first line.

    Asks for pydantic's method and not for its class, so that this module imports nothing.
    """
    if callable(problems := getattr(error, "errors", None)):
        first = problems()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    return (str(error).splitlines() or [type(error).__name__])[0]
