"""TensorRT's log through `logging`, under the name "tensorrt"; its errors kept for the one line that a user sees."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vggbench.engines.device import NO_DRIVER, first_device
from vggbench.errors import BackendUnavailable

#: What the engines themselves say: a plan rebuilt, a cache that takes nothing.
LOG = logging.getLogger("vggbench.engines")
_TENSORRT = logging.getLogger("tensorrt")
# A library's words are for those who ask for them; without this, warnings would go to the user's terminal.
_TENSORRT.addHandler(logging.NullHandler())
_LEVELS = {
    "INTERNAL_ERROR": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}
_errors: list[str] = []


@functools.cache
def logger(trt: Any) -> Any:
    """The one trt.ILogger of this process: TensorRT keeps the first that it gets, whatever comes later."""
    levels = {getattr(trt.ILogger.Severity, name): level for name, level in _LEVELS.items()}

    class Logger(trt.ILogger):  # type: ignore[misc]  # a class of the module that was passed
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            try:
                level = levels.get(severity, logging.INFO)
                _TENSORRT.log(level, "%s", msg)
                if level >= logging.ERROR:
                    _errors.append(msg)
            except Exception:  # it would end the process, for it was called from C++
                pass

    return Logger()


def create(trt: Any, kind: Any, *arguments: Any) -> Any:
    """An object of TensorRT's, asked for only where there is a driver: without one, 8.6's Runtime ends the process.

    Raises BackendUnavailable without a driver, and where TensorRT makes none, for which the binding has a TypeError.
    """
    if first_device() is None:
        raise BackendUnavailable(NO_DRIVER)
    with collected() as errors:
        try:
            return kind(*arguments)
        except TypeError as error:
            why = first_error(errors, "CUDA does not start")
            raise BackendUnavailable(
                f"TensorRT {trt.__version__} makes no {kind.__name__} here ({why}). See: vggbench doctor"
            ) from error


@contextmanager
def collected() -> Iterator[list[str]]:
    """The errors that TensorRT logs meanwhile."""
    _errors.clear()
    yield _errors


def first_error(errors: list[str], otherwise: str = "it gave no reason") -> str:
    """The first of TensorRT's errors, on one line, cut to what a line holds; later ones mostly follow from it."""
    text = " ".join(errors[0].split()) if errors else otherwise
    return text if len(text) <= 240 else f"{text[:237]}..."
