"""One image of the built-in labelled set: (split, index) -> pixels and annotation.

An object of one of 60 classes (5 shapes x 4 textures x 3 arrangements of small parts) lies on a cluttered background.
Every class stays itself under a horizontal flip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vggbench.images.sample_canvas import (
    Dice,
    Plane,
    Pose,
    Range,
    Window,
    any_colour,
    blend,
    colour_of,
    gray_noise,
    noise_field,
    on_grid,
    place,
    shape_coverage,
    texture_tone,
    tight_box,
    window_of,
)

SHAPES = ("disc", "square", "triangle", "star", "cross")
TEXTURES = ("horizontal", "vertical", "checker", "rings")
ARRANGEMENTS = ("two-beside", "two-stacked", "three")
CLASSES: tuple[str, ...] = tuple(f"{s}-{t}-{a}" for s in SHAPES for t in TEXTURES for a in ARRANGEMENTS)

SET_NAME = "vggbench-sample-1"


@dataclass(frozen=True)
class Difficulty:
    """Every range the images are drawn from. Lengths are fractions of the canvas's shorter side unless named pixels."""

    shorter_sides_pixels: tuple[int, ...] = (146, 152, 160)
    aspects: tuple[float, ...] = (1.0, 1.1, 1.2, 4 / 3)
    diameter: Range = (0.22, 0.95)  # log-uniform
    border_radii: float = 0.9  # the centre keeps this many radii from the border
    rotation_degrees: float = 20.0
    log_stretch: float = 0.15
    periods: Range = (3.0, 6.0)  # of the texture, in one diameter
    bright_tone: Range = (140.0, 200.0)
    dark_over_bright: Range = (0.15, 0.75)
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
    noise_sigma: Range = (1.0, 14.0)
    # A hard tail: some images have a small, low-contrast object in strong noise. Harder everywhere would only slow
    # training down; a tail keeps a converged network from being right on everything.
    hard_probability: float = 0.15
    hard_diameter: Range = (0.16, 0.3)
    hard_dark_over_bright: Range = (0.5, 0.85)
    hard_noise_sigma: Range = (8.0, 20.0)

    def hard(self) -> Difficulty:
        """The ranges of an image in the tail."""
        return replace(
            self,
            diameter=self.hard_diameter,
            dark_over_bright=self.hard_dark_over_bright,
            noise_sigma=self.hard_noise_sigma,
        )


#: The set's definition. Changing anything here changes every digest in sample_manifest.json.
DIFFICULTY = Difficulty()


@dataclass(frozen=True)
class Annotation:
    """label: index into CLASSES. box: (x0, y0, x1, y1), the tight box of the object's pixels inside the canvas,
    x1 and y1 exclusive. diameter: of the object before stretching, pixels."""

    label: int
    box: tuple[float, float, float, float]
    diameter: float


def draw(split: str, index: int, difficulty: Difficulty = DIFFICULTY) -> tuple[NDArray[np.uint8], Annotation]:
    """Image number `index` of a split. Returns RGB pixels (h, w, 3) and what they show."""
    dice, difficulty = _start(split, index, difficulty)
    label = index % len(CLASSES)
    shape, texture, arrangement = label // 12, label // 3 % 4, label % 3
    height, width = _canvas_size(dice, difficulty)
    pose = _object_pose(dice, height, width, difficulty)

    background_hue = _hue(dice, texture, len(TEXTURES), difficulty)
    planes = _background(dice, height, width, background_hue)
    _add_clutter(dice, planes, difficulty)
    window = window_of(pose, height, width)
    coverage = shape_coverage(SHAPES[shape], window, pose)
    _add_object(dice, planes, window, pose, coverage, shape, texture, difficulty)
    _add_parts(dice, planes, window, pose, arrangement, difficulty)
    _add_lines(dice, planes, difficulty)
    _light(dice, planes, difficulty)
    return _to_pixels(planes), Annotation(label, tight_box(window, coverage), 2 * pose.radius)


def _start(split: str, index: int, difficulty: Difficulty) -> tuple[Dice, Difficulty]:
    """The image's random numbers, and its ranges: those of the tail for some images."""
    dice = Dice(SET_NAME, split, str(index))
    return dice, difficulty.hard() if dice.chance(difficulty.hard_probability) else difficulty


def object_coverage(split: str, index: int, difficulty: Difficulty = DIFFICULTY) -> Plane:
    """The share of each pixel (h, w) that lies inside the object, before lines are drawn over it."""
    dice, difficulty = _start(split, index, difficulty)
    height, width = _canvas_size(dice, difficulty)
    pose = _object_pose(dice, height, width, difficulty)
    window = window_of(pose, height, width)
    canvas = np.zeros((height, width), np.float32)
    canvas[window.rows, window.columns] = shape_coverage(SHAPES[index % len(CLASSES) // 12], window, pose)
    return canvas


def _canvas_size(dice: Dice, difficulty: Difficulty) -> tuple[int, int]:
    shorter = difficulty.shorter_sides_pixels[dice.integer(0, len(difficulty.shorter_sides_pixels) - 1)]
    longer = round(shorter * difficulty.aspects[dice.integer(0, len(difficulty.aspects) - 1)])
    return (shorter, longer) if dice.chance(0.5) else (longer, shorter)


def _object_pose(dice: Dice, height: int, width: int, difficulty: Difficulty) -> Pose:
    low, high = difficulty.diameter
    diameter = min(height, width) * on_grid(low * math.exp(math.log(high / low) * dice.within((0.0, 1.0))))
    radius = diameter / 2
    margin = difficulty.border_radii * radius
    degrees = dice.within((-difficulty.rotation_degrees, difficulty.rotation_degrees))
    stretch = on_grid(math.exp(dice.within((-difficulty.log_stretch, difficulty.log_stretch)) / 2))
    x, y = dice.within((margin, width - margin)), dice.within((margin, height - margin))
    return place(x, y, radius, degrees, stretch)


def _hue(dice: Dice, value: int, count: int, difficulty: Difficulty) -> float:
    """A hue in [0, 1) that hints at `value` of `count` with the cue probability, else any."""
    anything = dice.within((0.0, 1.0))
    hint = (value + dice.within((0.3, 0.7))) / count
    return hint if dice.chance(difficulty.cue_probability) else anything


def _background(dice: Dice, height: int, width: int, hue: float) -> Plane:
    """Three colours blended by two noise fields. Returns (3, h, w)."""
    mean = dice.within((70.0, 180.0))
    hues = (hue, hue + dice.within((-0.12, 0.12)), dice.within((0.0, 1.0)))
    colours = [colour_of(h, dice.within((0.15, 0.75)), mean * dice.within((0.6, 1.35))) for h in hues]
    first, second = noise_field(dice, height, width), noise_field(dice, height, width)
    planes = np.empty((3, height, width), np.float32)
    for plane, a, b, c in zip(planes, *colours, strict=True):
        plane[...] = first * (b - a) + a
        plane += second * (c - plane)
    return planes


def _add_clutter(dice: Dice, planes: Plane, difficulty: Difficulty) -> None:
    _, height, width = planes.shape
    for _ in range(dice.integer(*difficulty.clutter_count)):
        shape = SHAPES[dice.integer(0, 2)]
        radius = min(height, width) * dice.within(difficulty.clutter_radius)
        x, y = dice.within((0.0, float(width))), dice.within((0.0, float(height)))
        pose = place(x, y, radius, dice.within((0.0, 360.0)), dice.within((0.8, 1.25)))
        window = window_of(pose, height, width)
        blend(planes, window, shape_coverage(shape, window, pose), any_colour(dice))


def _add_object(
    dice: Dice,
    planes: Plane,
    window: Window,
    pose: Pose,
    coverage: Plane,
    shape: int,
    texture: int,
    difficulty: Difficulty,
) -> None:
    hue = _hue(dice, shape, len(SHAPES), difficulty)
    bright = colour_of(hue, dice.within((0.1, 0.8)), dice.within(difficulty.bright_tone))
    dark_over_bright = dice.within(difficulty.dark_over_bright)
    periods = dice.within(difficulty.periods)
    phases = dice.within((0.0, 1.0)), dice.within((0.0, 1.0))
    tone = texture_tone(TEXTURES[texture], window, pose, periods, phases) * (1 - dark_over_bright) + dark_over_bright
    for plane, value in zip(planes, bright, strict=True):
        part = plane[window.rows, window.columns]
        part += coverage * (tone * value - part)


#: Centres of the parts in shape coordinates; each arrangement is its own mirror image.
_PART_CENTRES = {
    "two-beside": ((-0.32, 0.08), (0.32, 0.08)),
    "two-stacked": ((0.0, -0.32), (0.0, 0.32)),
    "three": ((0.0, -0.3), (-0.28, 0.2), (0.28, 0.2)),
}


def _add_parts(dice: Dice, planes: Plane, window: Window, pose: Pose, arrangement: int, difficulty: Difficulty) -> None:
    hue = _hue(dice, arrangement, len(ARRANGEMENTS), difficulty)
    colour = colour_of(hue, dice.within((0.2, 0.9)), dice.within((40.0, 200.0)))
    rim = (12.0, 12.0, 12.0) if dice.chance(0.5) else (240.0, 240.0, 240.0)
    part_radius = dice.within(difficulty.part_radius)
    for x, y in _PART_CENTRES[ARRANGEMENTS[arrangement]]:
        u, v = window.u - x, window.v - y
        distance = np.sqrt(u * u + v * v)
        blend(planes, window, np.clip(0.5 - (distance - 1.4 * part_radius) * pose.radius, 0.0, 1.0), rim)
        blend(planes, window, np.clip(0.5 - (distance - part_radius) * pose.radius, 0.0, 1.0), colour)


def _add_lines(dice: Dice, planes: Plane, difficulty: Difficulty) -> None:
    """Thin straight lines over everything, the object included."""
    _, height, width = planes.shape
    for _ in range(dice.integer(*difficulty.line_count)):
        half_length = min(height, width) * dice.within(difficulty.line_length) / 2
        x, y = dice.within((0.0, float(width))), dice.within((0.0, float(height)))
        pose = place(x, y, half_length, dice.within((0.0, 180.0)))
        half_width = dice.within(difficulty.line_width_pixels) / 2
        window = window_of(pose, height, width, reach=1.05)
        beyond_end = (np.abs(window.u) - 1.0) * half_length
        beyond_edge = np.abs(window.v) * half_length - half_width
        blend(planes, window, np.clip(0.5 - np.maximum(beyond_end, beyond_edge), 0.0, 1.0), any_colour(dice))


def _light(dice: Dice, planes: Plane, difficulty: Difficulty) -> None:
    """Gain, a gradient, a tint, and one gray noise value for the three channels of a pixel."""
    _, height, width = planes.shape
    gain = dice.within(difficulty.gain)
    slopes = [dice.within((-difficulty.gradient, difficulty.gradient)) for _ in range(2)]
    x = np.arange(width, dtype=np.float32) * (2 / width) - 1.0
    y = (np.arange(height, dtype=np.float32) * (2 / height) - 1.0)[:, None]
    light = (x * slopes[0] + y * slopes[1] + 1.0) * gain
    tints = [1 + dice.within((-difficulty.tint, difficulty.tint)) for _ in planes]
    noise = gray_noise(dice, height, width, dice.within(difficulty.noise_sigma))
    for plane, tint in zip(planes, tints, strict=True):
        plane *= light * tint
        plane += noise


def _to_pixels(planes: Plane) -> NDArray[np.uint8]:
    rounded = np.clip(planes + 0.5, 0.0, 255.0).astype(np.uint8)
    return np.ascontiguousarray(rounded.transpose(1, 2, 0))
