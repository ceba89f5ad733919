"""Pillow's rescaling of 8-bit RGB, compiled by numba as the module is imported: the signatures are given.

Pillow's C code takes a pixel at a time; here a weight meets many pixels in one instruction, of 64 rows in the
horizontal pass and of one row in the vertical. Whole numbers are added in another order, so the sums, and the pixels,
are the same. All arrays are C-contiguous; a pixel of 4 bytes is R, G, B and a byte that counts for nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

#: Pillow's weights are whole numbers of 22 bits after the point, and each pass rounds to 8 bits.
BITS = 22
ONE = float(1 << BITS)
HALF = np.int32(1 << (BITS - 1))
SHIFT, BLACK, WHITE = np.int32(BITS), np.int32(0), np.int32(255)
#: Rows of the horizontal pass that lie beside each other, and pixels of each that are moved at a time.
ROWS, TILE = 64, 16

_GIVEN = types.Array(types.uint8, 1, "C", readonly=True)
_BYTES = types.Array(types.uint8, 1, "C")
_PIXELS = types.Array(types.uint32, 1, "C")
_PLACES = types.Array(types.int64, 1, "C")
_WEIGHTS = types.Array(types.int32, 2, "C")
_SUMS = types.Array(types.int32, 1, "C")


@njit(types.void(types.boolean, types.int64, _PLACES, _PLACES, _WEIGHTS), nogil=True)
def taps(bicubic: bool, source: int, first: Any, count: Any, weights: Any) -> None:
    """Of each target pixel along a side: its first source pixel, how many there are, their weights; 0 in the rest.

    bicubic: else bilinear. Floating point in Pillow's order, for each weight is rounded.
    """
    scale = source / len(first)
    widened = max(scale, 1.0)
    support = (2.0 if bicubic else 1.0) * widened
    inverse = 1.0 / widened
    row = np.empty(weights.shape[1])
    for at in range(len(first)):
        center = (at + 0.5) * scale
        low = max(int(center - support + 0.5), 0)
        number = min(int(center + support + 0.5), source) - low
        total = 0.0
        for tap in range(number):
            x = abs((tap + low - center + 0.5) * inverse)
            value = 0.0
            if not bicubic:
                if x < 1.0:
                    value = 1.0 - x
            elif x < 1.0:
                value = ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1
            elif x < 2.0:
                value = (((x - 5) * x + 8) * x - 4) * -0.5
            row[tap] = value
            total += value
        for tap in range(number):
            value = row[tap] / total if total != 0.0 else row[tap]
            weights[at, tap] = int((-0.5 if value < 0 else 0.5) + value * ONE)
        first[at], count[at] = low, number


@njit(types.void(_GIVEN, types.int64, _PLACES, _PLACES, _WEIGHTS, _BYTES, _SUMS), nogil=True)
def mix(source: Any, wide: int, first: Any, count: Any, weights: Any, target: Any, sums: Any) -> None:
    """Rows of ``wide`` bytes to rows of as many: each the sum of ``count`` rows from ``first`` on, by their weights.

    Rounded and clipped. sums: room for a row.
    """
    last = len(source) - wide
    for at in range(len(first)):
        number, start = count[at], first[at] * wide
        line = target[at * wide : (at + 1) * wide]
        w0, w1, w2, w3 = weights[at, 0], weights[at, 1], weights[at, 2], weights[at, 3]
        # Where there are fewer than four, the others' weights are 0.
        p1, p2, p3 = min(start + wide, last), min(start + 2 * wide, last), min(start + 3 * wide, last)
        s0, s1 = source[start : start + wide], source[p1 : p1 + wide]
        s2, s3 = source[p2 : p2 + wide], source[p3 : p3 + wide]
        if number <= 4:
            for i in range(wide):
                value = (np.int32(s0[i]) * w0 + np.int32(s1[i]) * w1) + (np.int32(s2[i]) * w2 + np.int32(s3[i]) * w3)
                line[i] = np.uint8(min(max((value + HALF) >> SHIFT, BLACK), WHITE))
            continue
        for i in range(wide):
            value = (np.int32(s0[i]) * w0 + np.int32(s1[i]) * w1) + (np.int32(s2[i]) * w2 + np.int32(s3[i]) * w3)
            sums[i] = value + HALF
        tap = 4
        while tap + 4 <= number:  # four at once, for the sums are read and written each time
            w0, w1, w2, w3 = weights[at, tap], weights[at, tap + 1], weights[at, tap + 2], weights[at, tap + 3]
            p0 = start + tap * wide
            p1, p2, p3 = p0 + wide, p0 + 2 * wide, p0 + 3 * wide
            s0, s1 = source[p0 : p0 + wide], source[p1 : p1 + wide]
            s2, s3 = source[p2 : p2 + wide], source[p3 : p3 + wide]
            for i in range(wide):
                value = (np.int32(s0[i]) * w0 + np.int32(s1[i]) * w1) + (np.int32(s2[i]) * w2 + np.int32(s3[i]) * w3)
                sums[i] += value
            tap += 4
        while tap < number:
            w0 = weights[at, tap]
            p0 = start + tap * wide
            s0 = source[p0 : p0 + wide]
            for i in range(wide):
                sums[i] += np.int32(s0[i]) * w0
            tap += 1
        for i in range(wide):
            line[i] = np.uint8(min(max(sums[i] >> SHIFT, BLACK), WHITE))


@njit(types.void(_GIVEN, types.int64, _PLACES, _PLACES, _WEIGHTS, _BYTES), nogil=True)
def horizontal(source: Any, wide: int, first: Any, count: Any, weights: Any, target: Any) -> None:
    """Rows of ``wide`` pixels of 4 bytes to rows of len(first): 64 rows are turned into columns, mixed, turned back."""
    given, made, narrow = source.view(np.uint32), target.view(np.uint32), len(first)
    before, after = np.zeros(wide * ROWS, np.uint32), np.empty(narrow * ROWS, np.uint32)
    sums = np.empty(4 * ROWS, np.int32)
    height = len(given) // wide
    for top in range(0, height, ROWS):
        rows = min(ROWS, height - top)
        for left in range(0, wide, TILE):  # a few columns at a time, so that both sides stay in the cache
            right = min(left + TILE, wide)
            for y in range(rows):
                line = given[(top + y) * wide : (top + y + 1) * wide]
                for x in range(left, right):
                    before[x * ROWS + y] = line[x]
        mix(before.view(np.uint8), 4 * ROWS, first, count, weights, after.view(np.uint8), sums)
        for left in range(0, narrow, TILE):
            right = min(left + TILE, narrow)
            for y in range(rows):
                line = made[(top + y) * narrow : (top + y + 1) * narrow]
                for x in range(left, right):
                    line[x] = after[x * ROWS + y]


@njit(types.void(_GIVEN, _BYTES), nogil=True)
def narrow(source: Any, target: Any) -> None:
    """Pixels of 4 bytes to RGB."""
    for at in range(len(source) // 4):
        target[3 * at] = source[4 * at]
        target[3 * at + 1] = source[4 * at + 1]
        target[3 * at + 2] = source[4 * at + 2]


@njit(types.void(_GIVEN, _PIXELS), nogil=True)
def widen(source: Any, target: Any) -> None:
    """RGB to pixels of 4 bytes."""
    for at in range(len(target)):
        red, green, blue = source[3 * at], source[3 * at + 1], source[3 * at + 2]
        target[at] = np.uint32(red) | np.uint32(green) << 8 | np.uint32(blue) << 16
