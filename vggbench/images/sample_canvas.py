"""What the sample set's images are drawn with: random bits, shapes, textures, colours and noise.

The pixels are the same bytes on every machine: random bits come from PCG64, whose raw stream NumPy guarantees
(https://numpy.org/neps/nep-0019-rng-policy.html); arrays meet only IEEE-exact operations (+ - * / sqrt, comparisons,
floor); sines and exponentials are taken of scalars and rounded to a grid far coarser than any libm's error.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: float32 values of one (h, w) or three (3, h, w) channels, 0-255 or 0-1: twice as fast to draw as (h, w, 3).
#: Not typed NDArray[np.float32], because NumPy's stubs take its sum with a Python float for float64.
Plane: TypeAlias = NDArray[Any]
Colour: TypeAlias = tuple[float, float, float]
Range: TypeAlias = tuple[float, float]


class Dice:
    """Random numbers that depend on the key alone, not on the NumPy version: no Generator, raw bits only."""

    def __init__(self, *key: str) -> None:
        digest = hashlib.sha256("/".join(key).encode()).digest()
        self._bits = np.random.PCG64(int.from_bytes(digest, "little"))

    def raw(self, count: int) -> NDArray[np.uint64]:
        """`count` words of 64 random bits, little-endian."""
        return self._bits.random_raw(count).astype("<u8", copy=False)

    def within(self, bounds: Range) -> float:
        """Uniform between the bounds."""
        return bounds[0] + (bounds[1] - bounds[0]) * ((int(self._bits.random_raw()) >> 11) * 2.0**-53)

    def integer(self, low: int, high: int) -> int:
        """Uniform on low..high, both included."""
        return low + ((int(self._bits.random_raw()) >> 32) * (high - low + 1) >> 32)

    def chance(self, probability: float) -> bool:
        return self.within((0.0, 1.0)) < probability

    def bytes_plane(self, height: int, width: int) -> Plane:
        """Independent uniform values 0..255."""
        count = height * width
        return self.raw(-(-count // 8)).view(np.uint8)[:count].reshape(height, width).astype(np.float32)


def on_grid(value: float) -> float:
    """Rounded to 2^-20, so that libms which differ in the last bit agree."""
    return round(value * 2**20) / 2**20


@dataclass(frozen=True)
class Pose:
    """Where a shape lies, in pixels. a..d map an offset from the centre to shape coordinates (u right, v down)."""

    x: float
    y: float
    radius: float
    a: float
    b: float
    c: float
    d: float


def place(x: float, y: float, radius: float, degrees: float, stretch: float = 1.0) -> Pose:
    """The pose of a shape at (x, y), stretched along its own axes, then turned."""
    cosine, sine = on_grid(math.cos(math.radians(degrees))), on_grid(math.sin(math.radians(degrees)))
    across, down = radius * stretch, radius / stretch
    return Pose(x, y, radius, cosine / across, sine / across, -sine / down, cosine / down)


@dataclass(frozen=True)
class Window:
    """A pose's rectangle of the canvas, with the shape coordinates of its pixels."""

    rows: slice
    columns: slice
    u: Plane
    v: Plane


def window_of(pose: Pose, height: int, width: int, reach: float = 1.5) -> Window:
    """The rectangle that holds everything within `reach` radii of the centre."""
    half = reach * pose.radius + 1
    left, right = max(0, math.floor(pose.x - half)), min(width, math.ceil(pose.x + half))
    top, bottom = max(0, math.floor(pose.y - half)), min(height, math.ceil(pose.y + half))
    x = np.arange(left, max(left, right), dtype=np.float32) + 0.5 - pose.x
    y = (np.arange(top, max(top, bottom), dtype=np.float32) + 0.5 - pose.y)[:, None]
    rows, columns = slice(top, max(top, bottom)), slice(left, max(left, right))
    return Window(rows, columns, x * pose.a + y * pose.b, x * pose.c + y * pose.d)


def shape_coverage(shape: str, window: Window, pose: Pose) -> Plane:
    """The share of each of the window's pixels that lies inside the shape."""
    distance = _DISTANCES[shape](window.u, window.v)
    return np.clip(0.5 - distance * pose.radius, 0.0, 1.0)


def _disc(u: Plane, v: Plane) -> Plane:
    distance: Plane = np.sqrt(u * u + v * v) - 1.0
    return distance


def _square(u: Plane, v: Plane) -> Plane:
    return np.maximum(np.abs(u), np.abs(v)) - 0.82


def _triangle(u: Plane, v: Plane) -> Plane:
    return np.maximum(v, np.abs(u) * 0.8660254 - v * 0.5) - 0.56


def _star(u: Plane, v: Plane) -> Plane:
    """Folded into one tenth by three mirrors, where the outline is one line from the tip to the inner corner."""
    tip, inner, cosine, sine = 1.1, 0.55, 0.809017, 0.587785
    x, y = np.abs(u), -v
    over = np.maximum(x * cosine - y * sine, 0.0) * 2.0
    x, y = x - over * cosine, y + over * sine
    over = np.maximum(-x * cosine - y * sine, 0.0) * 2.0
    x, y = np.abs(x + over * cosine), y + over * sine
    normal_x, normal_y = tip - inner * cosine, inner * sine
    length = math.sqrt(normal_x * normal_x + normal_y * normal_y)
    return x * (normal_x / length) + (y - tip) * (normal_y / length)


def _cross(u: Plane, v: Plane) -> Plane:
    x, y = np.abs(u), np.abs(v)
    return np.maximum(np.minimum(x, y) - 0.42, np.maximum(x, y) - 1.0)


#: Signed distances to the outlines in shape coordinates, negative inside.
_DISTANCES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
}


def tight_box(window: Window, coverage: Plane) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) of the pixels at least half covered, on the canvas; x1 and y1 exclusive."""
    inside = coverage >= 0.5
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    left, top = window.columns.start, window.rows.start
    return (
        float(left + columns[0]),
        float(top + rows[0]),
        float(left + columns[-1] + 1),
        float(top + rows[-1] + 1),
    )


def texture_tone(texture: str, window: Window, pose: Pose, periods: float, phases: tuple[float, float]) -> Plane:
    """0 where the texture is dark, 1 where it is bright."""
    if texture == "horizontal":
        return wave(window.v, pose, periods, phases[0])
    if texture == "vertical":
        return wave(window.u, pose, periods, phases[0])
    if texture == "rings":
        return wave(np.sqrt(window.u * window.u + window.v * window.v), pose, periods, phases[0])
    across, down = wave(window.u, pose, periods, phases[0]), wave(window.v, pose, periods, phases[1])
    return across + down - across * down * 2.0


def wave(coordinate: Plane, pose: Pose, periods: float, phase: float) -> Plane:
    """A square wave 0..1 whose edges are two pixels wide."""
    turns = coordinate * (periods / 2) + phase
    triangle = np.abs(turns - np.floor(turns) - 0.5) - 0.25
    return np.clip(triangle * (pose.radius / periods) + 0.5, 0.0, 1.0)


def colour_of(hue: float, saturation: float, mean: float) -> Colour:
    """RGB, 0-255, with the given mean unless a channel saturates."""
    channels = [1 - saturation * min(1.0, max(0.0, 2 - abs((hue * 6 + shift) % 6 - 3))) for shift in (0.0, 4.0, 2.0)]
    scale = 3 * mean / (channels[0] + channels[1] + channels[2])
    red, green, blue = (min(255.0, channel * scale) for channel in channels)
    return red, green, blue


def any_colour(dice: Dice) -> Colour:
    """Any hue and saturation, from nearly black to nearly white."""
    return colour_of(dice.within((0.0, 1.0)), dice.within((0.0, 1.0)), dice.within((20.0, 220.0)))


def noise_field(dice: Dice, height: int, width: int) -> Plane:
    """Five octaves of smooth noise, the coarsest 64 pixels wide, the finest 4. Returns values 0..1 (h, w)."""
    rows, columns = -(-height // 64) + 2, -(-width // 64) + 2
    field = dice.bytes_plane(rows, columns)
    amplitude = 1.0
    for _ in range(4):
        field = _double(field)
        amplitude /= 2
        field += dice.bytes_plane(*field.shape) * amplitude
    field = _double(_double(field))[:height, :width]
    contrast = 2.0
    return np.clip(field * (contrast / (255 * 1.9375)) + (0.5 - contrast / 2), 0.0, 1.0)


def _double(field: Plane) -> Plane:
    """Twice the resolution by linear interpolation; n values become 2n - 2."""
    for _ in range(2):
        near, far = field[:-1], field[1:]
        step = (far - near) * 0.25
        doubled = np.empty((2 * len(near), field.shape[1]), np.float32)
        np.add(near, step, out=doubled[0::2])
        np.subtract(far, step, out=doubled[1::2])
        field = doubled.T
    return field


def gray_noise(dice: Dice, height: int, width: int, sigma: float) -> Plane:
    """Close to Gaussian: each value is the sum of four uniform bytes, whose variance is 4 (256^2 - 1) / 12."""
    count = height * width
    words = dice.raw(2 * -(-count // 4))
    low_bytes = np.uint64(0x00FF00FF00FF00FF)
    pairs = (words & low_bytes) + ((words >> np.uint64(8)) & low_bytes)
    sums = (pairs[0::2] + pairs[1::2]).astype("<u8", copy=False).view("<u2")[:count].reshape(height, width)
    return (sums.astype(np.float32) - 510.0) * (sigma / math.sqrt((256**2 - 1) / 3))


def blend(planes: Plane, window: Window, coverage: Plane, colour: Colour) -> None:
    """Paints the planes with one colour, by coverage."""
    for plane, value in zip(planes, colour, strict=True):
        part = plane[window.rows, window.columns]
        part += coverage * (value - part)
