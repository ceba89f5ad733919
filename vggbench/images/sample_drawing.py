"""One image of the built-in labelled set: (split, index) -> pixels and annotation.

An object of one of 60 classes (5 shapes x 4 textures x 3 arrangements of small parts) lies on a cluttered background.
Every class stays itself under a horizontal flip.

The pixels are the same bytes on every machine: random bits come from PCG64, whose raw stream NumPy guarantees
(https://numpy.org/neps/nep-0019-rng-policy.html); arrays meet only IEEE-exact operations (+ - * / sqrt, comparisons,
floor); sines and exponentials are taken of scalars and rounded to a grid far coarser than any libm's error.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Plane: TypeAlias = NDArray[np.float32]
Colour: TypeAlias = tuple[float, float, float]
Range: TypeAlias = tuple[float, float]

SHAPES = ("disc", "square", "triangle", "star", "cross")
TEXTURES = ("horizontal", "vertical", "checker", "rings")
ARRANGEMENTS = ("two-beside", "two-stacked", "three")
CLASSES: tuple[str, ...] = tuple(f"{s}-{t}-{a}" for s in SHAPES for t in TEXTURES for a in ARRANGEMENTS)

SET_NAME = "vggbench-sample-1"


@dataclass(frozen=True)
class Difficulty:
    """Every range the images are drawn from. Lengths are fractions of the canvas's shorter side unless said otherwise."""

    shorter_sides_pixels: tuple[int, ...] = (146, 152, 160)
    aspects: tuple[float, ...] = (1.0, 1.1, 1.2, 4 / 3)
    diameter: Range = (0.16, 0.95)  # log-uniform
    border_radii: float = 0.9  # the centre keeps this many radii from the border
    rotation_degrees: float = 20.0
    log_stretch: float = 0.15
    periods: Range = (3.0, 6.0)  # of the texture, in one diameter
    bright_tone: Range = (140.0, 200.0)
    dark_over_bright: Range = (0.15, 0.85)
    part_radius: Range = (0.11, 0.18)  # of the object's radius, without the rim
    cue_probability: float = 0.4  # of each of the three colour cues
    clutter_count: tuple[int, int] = (1, 6)
    clutter_radius: Range = (0.03, 0.11)
    line_count: tuple[int, int] = (0, 4)
    line_length: Range = (0.15, 0.6)
    line_width_pixels: Range = (0.8, 3.0)
    gain: Range = (0.76, 1.09)
    gradient: float = 0.18  # largest relative change of light from the centre to a border
    tint: float = 0.08
    noise_sigma: Range = (1.0, 20.0)


#: The set's definition. Changing anything here changes every digest in sample_manifest.json.
DIFFICULTY = Difficulty()


@dataclass(frozen=True)
class Annotation:
    """label: index into CLASSES. box: (x0, y0, x1, y1), the tight box of the object's pixels inside the canvas,
    x1 and y1 exclusive. diameter: of the object before stretching, pixels."""

    label: int
    box: tuple[float, float, float, float]
    diameter: float


@dataclass(frozen=True)
class _Pose:
    """Where a shape lies, in pixels. a..d map an offset from the centre to shape coordinates (u right, v down)."""

    x: float
    y: float
    radius: float
    a: float
    b: float
    c: float
    d: float


@dataclass(frozen=True)
class _Window:
    """A pose's rectangle of the canvas, with the shape coordinates of its pixels."""

    rows: slice
    columns: slice
    u: Plane
    v: Plane


def draw(split: str, index: int, difficulty: Difficulty = DIFFICULTY) -> tuple[NDArray[np.uint8], Annotation]:
    """Image number `index` of a split. Returns RGB pixels (h, w, 3) and what they show."""
    dice = _Dice(SET_NAME, split, str(index))
    label = index % len(CLASSES)
    shape, texture, arrangement = label // 12, label // 3 % 4, label % 3
    height, width = _canvas_size(dice, difficulty)
    pose = _object_pose(dice, height, width, difficulty)

    background_hue = _hue(dice, texture, len(TEXTURES), difficulty)
    planes = _background(dice, height, width, background_hue)
    _add_clutter(dice, planes, difficulty)
    window = _window(pose, height, width)
    coverage = _coverage(SHAPES[shape], window, pose)
    _add_object(dice, planes, window, pose, coverage, shape, texture, difficulty)
    _add_parts(dice, planes, window, pose, arrangement, difficulty)
    _add_lines(dice, planes, difficulty)
    _light(dice, planes, difficulty)
    return _to_pixels(planes), Annotation(label, _tight_box(window, coverage), 2 * pose.radius)


def object_coverage(split: str, index: int, difficulty: Difficulty = DIFFICULTY) -> Plane:
    """The share of each pixel (h, w) that lies inside the object, before lines are drawn over it."""
    dice = _Dice(SET_NAME, split, str(index))
    height, width = _canvas_size(dice, difficulty)
    pose = _object_pose(dice, height, width, difficulty)
    window = _window(pose, height, width)
    canvas = np.zeros((height, width), np.float32)
    canvas[window.rows, window.columns] = _coverage(SHAPES[index % len(CLASSES) // 12], window, pose)
    return canvas


class _Dice:
    """Random numbers that depend on the key alone, not on the NumPy version: no Generator, raw bits only."""

    def __init__(self, *key: str) -> None:
        digest = hashlib.sha256("/".join(key).encode()).digest()
        self._bits = np.random.PCG64(int.from_bytes(digest, "little"))

    def raw(self, count: int) -> NDArray[np.uint64]:
        return self._bits.random_raw(count).astype("<u8", copy=False)

    def within(self, bounds: Range) -> float:
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


def _on_grid(value: float) -> float:
    """Rounded to 2^-20, so that libms which differ in the last bit agree."""
    return round(value * 2**20) / 2**20


def _canvas_size(dice: _Dice, difficulty: Difficulty) -> tuple[int, int]:
    shorter = difficulty.shorter_sides_pixels[dice.integer(0, len(difficulty.shorter_sides_pixels) - 1)]
    longer = round(shorter * difficulty.aspects[dice.integer(0, len(difficulty.aspects) - 1)])
    return (shorter, longer) if dice.chance(0.5) else (longer, shorter)


def _object_pose(dice: _Dice, height: int, width: int, difficulty: Difficulty) -> _Pose:
    low, high = difficulty.diameter
    diameter = min(height, width) * _on_grid(low * math.exp(math.log(high / low) * dice.within((0.0, 1.0))))
    radius = diameter / 2
    margin = difficulty.border_radii * radius
    degrees = dice.within((-difficulty.rotation_degrees, difficulty.rotation_degrees))
    stretch = _on_grid(math.exp(dice.within((-difficulty.log_stretch, difficulty.log_stretch)) / 2))
    x, y = dice.within((margin, width - margin)), dice.within((margin, height - margin))
    return _pose(x, y, radius, degrees, stretch)


def _pose(x: float, y: float, radius: float, degrees: float, stretch: float = 1.0) -> _Pose:
    cosine, sine = _on_grid(math.cos(math.radians(degrees))), _on_grid(math.sin(math.radians(degrees)))
    across, down = radius * stretch, radius / stretch
    return _Pose(x, y, radius, cosine / across, sine / across, -sine / down, cosine / down)


def _window(pose: _Pose, height: int, width: int, reach: float = 1.5) -> _Window:
    """The rectangle that holds everything within `reach` radii of the centre."""
    half = reach * pose.radius + 1
    left, right = max(0, math.floor(pose.x - half)), min(width, math.ceil(pose.x + half))
    top, bottom = max(0, math.floor(pose.y - half)), min(height, math.ceil(pose.y + half))
    x = np.arange(left, max(left, right), dtype=np.float32) + 0.5 - pose.x
    y = (np.arange(top, max(top, bottom), dtype=np.float32) + 0.5 - pose.y)[:, None]
    rows, columns = slice(top, max(top, bottom)), slice(left, max(left, right))
    return _Window(rows, columns, x * pose.a + y * pose.b, x * pose.c + y * pose.d)


def _coverage(shape: str, window: _Window, pose: _Pose) -> Plane:
    distance = _DISTANCES[shape](window.u, window.v)
    return np.clip(0.5 - distance * pose.radius, 0.0, 1.0)


def _disc(u: Plane, v: Plane) -> Plane:
    return np.sqrt(u * u + v * v) - 1.0


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


_DISTANCES = {"disc": _disc, "square": _square, "triangle": _triangle, "star": _star, "cross": _cross}


def _tight_box(window: _Window, coverage: Plane) -> tuple[float, float, float, float]:
    inside = coverage >= 0.5
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    left, top = window.columns.start, window.rows.start
    return (
        float(left + columns[0]),
        float(top + rows[0]),
        float(left + columns[-1] + 1),
        float(top + rows[-1] + 1),
    )


def _hue(dice: _Dice, value: int, count: int, difficulty: Difficulty) -> float:
    """A hue in [0, 1) that hints at `value` of `count` with the cue probability, else any."""
    anything = dice.within((0.0, 1.0))
    hint = (value + dice.within((0.3, 0.7))) / count
    return hint if dice.chance(difficulty.cue_probability) else anything


def _colour(hue: float, saturation: float, mean: float) -> Colour:
    """RGB, 0-255, with the given mean unless a channel saturates."""
    channels = [1 - saturation * min(1.0, max(0.0, 2 - abs((hue * 6 + shift) % 6 - 3))) for shift in (0.0, 4.0, 2.0)]
    scale = 3 * mean / (channels[0] + channels[1] + channels[2])
    red, green, blue = (min(255.0, channel * scale) for channel in channels)
    return red, green, blue


def _any_colour(dice: _Dice) -> Colour:
    return _colour(dice.within((0.0, 1.0)), dice.within((0.0, 1.0)), dice.within((20.0, 220.0)))


def _background(dice: _Dice, height: int, width: int, hue: float) -> Plane:
    """Three colours blended by two noise fields. Returns (3, h, w)."""
    mean = dice.within((70.0, 180.0))
    hues = (hue, hue + dice.within((-0.12, 0.12)), dice.within((0.0, 1.0)))
    colours = [_colour(h, dice.within((0.15, 0.75)), mean * dice.within((0.6, 1.35))) for h in hues]
    first, second = _noise_field(dice, height, width), _noise_field(dice, height, width)
    planes = np.empty((3, height, width), np.float32)
    for plane, a, b, c in zip(planes, *colours, strict=True):
        plane[...] = first * (b - a) + a
        plane += second * (c - plane)
    return planes


def _noise_field(dice: _Dice, height: int, width: int) -> Plane:
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


def _blend(planes: Plane, window: _Window, coverage: Plane, colour: Colour) -> None:
    for plane, value in zip(planes, colour, strict=True):
        part = plane[window.rows, window.columns]
        part += coverage * (value - part)


def _add_clutter(dice: _Dice, planes: Plane, difficulty: Difficulty) -> None:
    _, height, width = planes.shape
    for _ in range(dice.integer(*difficulty.clutter_count)):
        shape = SHAPES[dice.integer(0, 2)]
        radius = min(height, width) * dice.within(difficulty.clutter_radius)
        x, y = dice.within((0.0, float(width))), dice.within((0.0, float(height)))
        pose = _pose(x, y, radius, dice.within((0.0, 360.0)), dice.within((0.8, 1.25)))
        window = _window(pose, height, width)
        _blend(planes, window, _coverage(shape, window, pose), _any_colour(dice))


def _add_object(
    dice: _Dice,
    planes: Plane,
    window: _Window,
    pose: _Pose,
    coverage: Plane,
    shape: int,
    texture: int,
    difficulty: Difficulty,
) -> None:
    hue = _hue(dice, shape, len(SHAPES), difficulty)
    bright = _colour(hue, dice.within((0.1, 0.8)), dice.within(difficulty.bright_tone))
    dark_over_bright = dice.within(difficulty.dark_over_bright)
    periods = dice.within(difficulty.periods)
    phases = dice.within((0.0, 1.0)), dice.within((0.0, 1.0))
    tone = _tone(TEXTURES[texture], window, pose, periods, phases) * (1 - dark_over_bright) + dark_over_bright
    for plane, value in zip(planes, bright, strict=True):
        part = plane[window.rows, window.columns]
        part += coverage * (tone * value - part)


def _tone(texture: str, window: _Window, pose: _Pose, periods: float, phases: tuple[float, float]) -> Plane:
    """0 where the texture is dark, 1 where it is bright."""
    if texture == "horizontal":
        return _wave(window.v, pose, periods, phases[0])
    if texture == "vertical":
        return _wave(window.u, pose, periods, phases[0])
    if texture == "rings":
        return _wave(np.sqrt(window.u * window.u + window.v * window.v), pose, periods, phases[0])
    across, down = _wave(window.u, pose, periods, phases[0]), _wave(window.v, pose, periods, phases[1])
    return across + down - across * down * 2.0


def _wave(coordinate: Plane, pose: _Pose, periods: float, phase: float) -> Plane:
    """A square wave 0..1 whose edges are two pixels wide."""
    turns = coordinate * (periods / 2) + phase
    triangle = np.abs(turns - np.floor(turns) - 0.5) - 0.25
    return np.clip(triangle * (pose.radius / periods) + 0.5, 0.0, 1.0)


#: Centres of the parts in shape coordinates; each arrangement is its own mirror image.
_PART_CENTRES = {
    "two-beside": ((-0.32, 0.08), (0.32, 0.08)),
    "two-stacked": ((0.0, -0.32), (0.0, 0.32)),
    "three": ((0.0, -0.3), (-0.28, 0.2), (0.28, 0.2)),
}


def _add_parts(
    dice: _Dice, planes: Plane, window: _Window, pose: _Pose, arrangement: int, difficulty: Difficulty
) -> None:
    hue = _hue(dice, arrangement, len(ARRANGEMENTS), difficulty)
    colour = _colour(hue, dice.within((0.2, 0.9)), dice.within((40.0, 200.0)))
    rim = (12.0, 12.0, 12.0) if dice.chance(0.5) else (240.0, 240.0, 240.0)
    part_radius = dice.within(difficulty.part_radius)
    for x, y in _PART_CENTRES[ARRANGEMENTS[arrangement]]:
        u, v = window.u - x, window.v - y
        distance = np.sqrt(u * u + v * v)
        _blend(planes, window, np.clip(0.5 - (distance - 1.4 * part_radius) * pose.radius, 0.0, 1.0), rim)
        _blend(planes, window, np.clip(0.5 - (distance - part_radius) * pose.radius, 0.0, 1.0), colour)


def _add_lines(dice: _Dice, planes: Plane, difficulty: Difficulty) -> None:
    """Thin straight lines over everything, the object included."""
    _, height, width = planes.shape
    for _ in range(dice.integer(*difficulty.line_count)):
        half_length = min(height, width) * dice.within(difficulty.line_length) / 2
        x, y = dice.within((0.0, float(width))), dice.within((0.0, float(height)))
        pose = _pose(x, y, half_length, dice.within((0.0, 180.0)))
        half_width = dice.within(difficulty.line_width_pixels) / 2
        window = _window(pose, height, width, reach=1.05)
        beyond_end = (np.abs(window.u) - 1.0) * half_length
        beyond_edge = np.abs(window.v) * half_length - half_width
        _blend(planes, window, np.clip(0.5 - np.maximum(beyond_end, beyond_edge), 0.0, 1.0), _any_colour(dice))


def _light(dice: _Dice, planes: Plane, difficulty: Difficulty) -> None:
    """Gain, a gradient, a tint, and one gray noise value for the three channels of a pixel."""
    _, height, width = planes.shape
    gain = dice.within(difficulty.gain)
    slopes = [dice.within((-difficulty.gradient, difficulty.gradient)) for _ in range(2)]
    x = np.arange(width, dtype=np.float32) * (2 / width) - 1.0
    y = (np.arange(height, dtype=np.float32) * (2 / height) - 1.0)[:, None]
    light = (x * slopes[0] + y * slopes[1] + 1.0) * gain
    tints = [1 + dice.within((-difficulty.tint, difficulty.tint)) for _ in planes]
    noise = _noise(dice, height, width, dice.within(difficulty.noise_sigma))
    for plane, tint in zip(planes, tints, strict=True):
        plane *= light * tint
        plane += noise


def _noise(dice: _Dice, height: int, width: int, sigma: float) -> Plane:
    """Close to Gaussian: each value is the sum of four uniform bytes, whose variance is 4 (256^2 - 1) / 12."""
    count = height * width
    words = dice.raw(2 * -(-count // 4))
    low_bytes = np.uint64(0x00FF00FF00FF00FF)
    pairs = (words & low_bytes) + ((words >> np.uint64(8)) & low_bytes)
    sums = (pairs[0::2] + pairs[1::2]).view("<u2")[:count].reshape(height, width)
    return (sums.astype(np.float32) - 510.0) * (sigma / math.sqrt((256**2 - 1) / 3))


def _to_pixels(planes: Plane) -> NDArray[np.uint8]:
    rounded = np.clip(planes + 0.5, 0.0, 255.0).astype(np.uint8)
    return np.ascontiguousarray(rounded.transpose(1, 2, 0))
