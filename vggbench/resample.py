"""Pillow's bicubic and bilinear rescaling, compiled where the extra "numba" is installed: the same pixels in less time.

Compiling takes seconds in each process, so it is done where it pays (Worth), and what was compiled is used only if it
gives Pillow's pixels for a few small images. Everything else stays with Pillow: other filters, other processors than
x86-64 (whose compilers round the weights' floating point otherwise), a Pillow whose pixels are not these.
"""

from __future__ import annotations

import logging
import math
import platform
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from vggbench.images.decode import Picture, pixels_of, sides

Pixels = npt.NDArray[np.uint8]
#: (height, width)
Size = tuple[int, int]

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
#: Compiling takes about 3 s and pays once the rescaling that is left would take Pillow so long: it saves half or more.
WORTH_SECONDS, SEEN = 12.0, 16

#: Small images that are rescaled by Pillow and by what was compiled, before that is trusted: larger, smaller, one side
#: only, more rows than a block has, each order of the passes and the sizes on both sides of where it changes.
_TRIED: tuple[tuple[Size, Size], ...] = (
    ((40, 60), (25, 37)),
    ((40, 60), (90, 135)),
    ((64, 65), (7, 8)),
    ((130, 70), (100, 50)),
    ((60, 20), (30, 10)),
    ((60, 40), (20, 20)),
    ((61, 40), (20, 20)),
    ((40, 30), (20, 50)),
    ((20, 50), (40, 30)),
    ((50, 30), (49, 31)),
    ((50, 30), (50, 17)),
    ((50, 30), (21, 30)),
    ((2, 3), (5, 9)),
)

_log = logging.getLogger(__name__)
_lock = threading.Lock()
#: What load() found: nothing yet, why there is nothing, or what rescales.
_found: str | _Compiled | None = None


def load() -> bool:
    """Compiles, once in a process; False, with the reason in the log, where Pillow goes on. Any thread may call it."""
    global _found
    with _lock:
        if _found is None:
            _found = _load()
            if isinstance(_found, str):
                _log.info("Images are rescaled by Pillow itself: %s", _found)
            else:
                _log.info("Images are rescaled by compiled code, with Pillow's pixels.")
        return not isinstance(_found, str)


def why() -> str:
    """Why Pillow itself rescales, once load() has found that it must; else ""."""
    return _found if isinstance(_found, str) else ""


def resizer(picture: Picture, name: str) -> Callable[[int, int], Pixels] | None:
    """What makes this picture of another height and width by the filter; None where that is Pillow's to do."""
    if not isinstance(_found, _Compiled) or name not in FILTERS:
        return None
    return _found.resizer(picture, name)


class Worth:
    """Compiles as soon as that is known to save time: by what Pillow took for the images so far and how many are left.

    Any thread may use it; the one whose image settles it compiles, while the others go on with Pillow.
    """

    def __init__(self, images: int, resize_filter: str) -> None:
        self._left = images if resize_filter in FILTERS and _found is None else 0
        self._seen, self._seconds = 0, 0.0
        self._lock = threading.Lock()

    def took(self, seconds: float) -> None:
        """An image was rescaled to all its scales in so many seconds."""
        if self._left <= 0:
            return
        with self._lock:
            self._left -= 1
            self._seen += 1
            self._seconds += seconds
            if self._seen < SEEN or self._seconds / self._seen * self._left < WORTH_SECONDS:
                return
            self._left = 0
        load()


def _load() -> str | _Compiled:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"the compiled code is for x86-64, this is {platform.machine()}."
    try:
        import nanoarrow  # type: ignore[import-not-found, import-untyped, unused-ignore]
        import numba  # type: ignore[import-not-found, import-untyped, unused-ignore]

        if getattr(numba.config, "DISABLE_JIT", 0):
            return "NUMBA_DISABLE_JIT is set."
        from vggbench import resample_kernels

        for vertical_first in _ORDERS:
            compiled = _Compiled(resample_kernels, nanoarrow.c_array, vertical_first)
            if _same(compiled):
                return compiled
    except ImportError as error:
        return f"{error}. To install what is missing: pip install 'vggbench[numba]'"
    except Exception as error:  # whatever a compiler dies of: there is always Pillow
        why = str(error).strip().split("\n", 1)[0]
        return f"compiling failed ({type(error).__name__}: {why})."
    return f"Pillow {PIL.__version__} rescales in a way that the compiled code does not know."


def _same(compiled: _Compiled) -> bool:
    """Whether these are Pillow's pixels."""
    random = np.random.default_rng(0)
    for (height, width), (tall, wide) in _TRIED:
        pixels = random.choice(np.array([0, 1, 127, 254, 255], np.uint8), (height, width, 3))
        picture = Image.fromarray(pixels)
        for name, number in FILTERS.items():
            wanted = np.asarray(picture.resize((wide, tall), number))
            if not all(np.array_equal(compiled.resizer(of, name)(tall, wide), wanted) for of in (picture, pixels)):
                return False
    return True


def _never(source: Size, target: Size) -> bool:
    """Pillow before 13: the horizontal pass is the first."""
    return False


def _if_much_lower(source: Size, target: Size) -> bool:
    """Pillow 13: the vertical pass is the first if it takes away more than twice the pixels of the other."""
    fewer_rows, fewer_columns = source[0] - target[0], source[1] - target[1]
    return fewer_rows > 0 and fewer_rows > 2 * fewer_columns


_ORDERS = (_if_much_lower, _never)


class _Compiled:
    """resample_kernels, called as Pillow calls its passes."""

    def __init__(
        self, kernels: ModuleType, arrow: Callable[[Image.Image], Any], vertical_first: Callable[[Size, Size], bool]
    ) -> None:
        self._kernels, self._arrow, self._vertical_first = kernels, arrow, vertical_first

    def resizer(self, picture: Picture, name: str) -> Callable[[int, int], Pixels]:
        pixels, size, bicubic = self._pixels(picture), sides(picture), name == "bicubic"
        return lambda height, width: self._rescaled(pixels, size, (height, width), bicubic)

    def _pixels(self, picture: Picture) -> Pixels:
        """All pixels' 4 bytes in a row: Pillow's own memory where it lies in one piece, else a copy."""
        if isinstance(picture, Image.Image):
            try:
                return np.frombuffer(self._arrow(picture).child(0).view().buffer(1), np.uint8)
            except (TypeError, ValueError):  # a Pillow before 11.2; an image of more than 16 MB, in several pieces
                picture = pixels_of(picture)
        pixels = np.empty(picture.shape[0] * picture.shape[1], np.uint32)
        self._kernels.widen(np.ascontiguousarray(picture).reshape(-1), pixels)
        return pixels.view(np.uint8)

    def _rescaled(self, pixels: Pixels, source: Size, target: Size, bicubic: bool) -> Pixels:
        """(h, w, 3). A pass is left out where its side keeps its length."""
        (height, width), (tall, wide) = source, target
        if tall != height and self._vertical_first(source, target):
            pixels, height = self._vertical(pixels, height, width, tall, bicubic), tall
        if wide != width:
            pixels, width = self._horizontal(pixels, height, width, wide, bicubic), wide
        if tall != height:
            pixels = self._vertical(pixels, height, width, tall, bicubic)
        found = np.empty((tall, wide, 3), np.uint8)
        self._kernels.narrow(pixels, found.reshape(-1))
        return found

    def _vertical(self, pixels: Pixels, height: int, width: int, tall: int, bicubic: bool) -> Pixels:
        found, sums = np.empty(4 * width * tall, np.uint8), np.empty(4 * width, np.int32)
        self._kernels.mix(pixels, 4 * width, *self._taps(height, tall, bicubic), found, sums)
        return found

    def _horizontal(self, pixels: Pixels, height: int, width: int, wide: int, bicubic: bool) -> Pixels:
        found = np.empty(4 * height * wide, np.uint8)
        self._kernels.horizontal(pixels, width, *self._taps(width, wide, bicubic), found)
        return found

    def _taps(self, source: int, target: int, bicubic: bool) -> tuple[npt.NDArray[Any], ...]:
        """What resample_kernels.taps fills."""
        widest = 2 * math.ceil((2 if bicubic else 1) * max(source / target, 1.0)) + 1
        first, count = np.empty(target, np.int64), np.empty(target, np.int64)
        weights = np.zeros((target, max(widest, 4)), np.int32)
        self._kernels.taps(bicubic, source, first, count, weights)
        return first, count, weights
