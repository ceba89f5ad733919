"""What a JPEG file says beside its pixels, read without a decoder."""

from __future__ import annotations

#: Markers of metadata that libjpeg passes over: APP1 to APP13, APP15 and comments.
_SKIPPED = frozenset([*range(0xE1, 0xEE), 0xEF, 0xFE])


def usual_sides(data: bytes, exif: bool) -> tuple[int, int] | None:
    """(width, height) of the usual JPEG: 8 bits, three components, all in one sequential scan, nothing odd before it.

    None for any other, and for one with an APP1 segment (EXIF) if that is wanted: those are for Pillow's own reader,
    of whose checks none could fail here.
    """
    sides, position, size = None, 2, len(data)
    while position + 4 <= size and data[position] == 0xFF:
        marker, length = data[position + 1], data[position + 2] << 8 | data[position + 3]
        start, position = position + 4, position + 2 + length
        if length < 2 or position > size:
            return None
        if marker == 0xDB:  # whole tables of 8 bits
            if (length - 2) % 65 or any(number > 3 for number in data[start:position:65]):
                return None
        elif marker in (0xC0, 0xC1):
            if sides is not None or length != 17 or data[start] != 8 or data[start + 5] != 3:
                return None
            sides = data[start + 3] << 8 | data[start + 4], data[start + 1] << 8 | data[start + 2]
        elif marker == 0xDA:
            return sides if sides and 0 not in sides and length == 12 and data[start] == 3 else None
        elif marker in (0xE0, 0xEE):
            if length < 16 if marker == 0xE0 else length < 14:
                return None
        elif marker in _SKIPPED:
            if marker == 0xE1 and exif:
                return None
        elif marker not in (0xC4, 0xDD):  # Huffman tables, restart interval
            return None
    return None


def split_jpeg(data: bytes) -> tuple[bytes, bytes, bool]:
    """The JPEG without its metadata segments, its EXIF block (b"" if none), and whether it surely has only one scan.

    Only APP0 (JFIF) and APP14 (Adobe) tell how to decode. Pillow reads the others too, and warns of broken ones. One
    scan: of a sequential frame whose components are all in its first scan, libjpeg reads no second one. To count the
    scans of all others takes several percent of decoding, in which no other thread can run.
    """
    kept: list[bytes] = []
    tags, position, start = b"", 2, 0
    frames: list[tuple[bool, int]] = []  # sequential, components
    one_scan = False
    while True:
        position = data.find(b"\xff", position)  # as Pillow and libjpeg, past junk
        if position < 0 or position + 4 > len(data):
            break
        marker = data[position + 1]
        if marker in (0x00, 0xFF):
            position += 1
        elif 0xD0 <= marker <= 0xD9 or marker in (0x01, 0xC8) or 0xF0 <= marker <= 0xFD:  # without a length
            position += 2
        elif marker == 0xDA:
            one_scan = frames == [(True, data[position + 4] if position + 4 < len(data) else 0)]
            break
        else:
            end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
            if 0xE1 <= marker <= 0xEF and marker != 0xEE:
                kept.append(data[start:position])
                start = end
                if marker == 0xE1 and not tags and data[position + 4 : position + 10] == b"Exif\0\0":
                    tags = data[position + 10 : end]
            elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xCC):  # a start of frame; the others are tables
                frames.append((marker in (0xC0, 0xC1), data[position + 9] if position + 9 < len(data) else 0))
            position = end
    return b"".join([*kept, memoryview(data)[start:]]) if kept else data, tags, one_scan


def orientation(tags: bytes) -> int:
    """The orientation (1 to 8) in an EXIF block, 1 if it says none or cannot be read."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(tags[:4])
    if order is None:
        return 1

    def number(position: int, size: int) -> int:
        return int.from_bytes(tags[position : position + size], order)  # type: ignore[arg-type]

    table = number(4, 4)
    for entry in range(table + 2, table + 2 + 12 * number(table, 2), 12):
        if number(entry, 2) == 0x0112:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1
