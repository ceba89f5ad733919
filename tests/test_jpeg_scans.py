"""How many scans a JPEG has, which is what decoding it costs; and that decoding it in one piece changes nothing."""

import hashlib
import io
import random

import numpy as np
import pytest
from PIL import Image, ImageFile, JpegImagePlugin
from test_decode import PHOTO, encoded

from vggbench.images import decode as decoding
from vggbench.images.decode import MAX_SCANS, BadImage, decode
from vggbench.images.jpeg import split_jpeg, usual_sides


def start_of_scan(data: bytes) -> int:
    return data.index(b"\xff\xda")


@pytest.mark.parametrize("colours", ["RGB", "L", "CMYK"])
def test_a_jpeg_is_taken_for_one_of_one_scan_where_libjpeg_reads_one(colours):
    image = Image.fromarray(PHOTO).convert(colours)
    sequential, progressive = encoded(image, "JPEG"), encoded(image, "JPEG", progressive=True)
    assert split_jpeg(sequential)[2]
    assert not split_jpeg(progressive)[2]
    scan = start_of_scan(sequential)
    frame = sequential.index(b"\xff\xc0")
    length = 2 + int.from_bytes(sequential[frame + 2 : frame + 4], "big")
    twice = sequential[:frame] + sequential[frame : frame + length] * 2 + sequential[frame + length :]
    fewer = sequential[: scan + 4] + bytes([sequential[scan + 4] - 1]) + sequential[scan + 5 :]
    for other in (twice, fewer, sequential[: scan + 4], sequential[:frame] + sequential[frame + length :]):
        assert not split_jpeg(other)[2]


def test_scans_behind_the_only_one_of_a_sequential_jpeg_are_left_to_the_decoder_which_reads_none():
    data = encoded(PHOTO, "JPEG")
    with pytest.raises(BadImage, match="cannot be decoded"):
        decode(data[:-2] + data[start_of_scan(data) : -2] * (MAX_SCANS + 1) + data[-2:])


def test_a_sequential_jpeg_of_very_many_scans_is_refused():
    data = bytearray(encoded(PHOTO, "JPEG"))
    scan = start_of_scan(bytes(data))
    data[scan + 4] = 1
    with pytest.raises(BadImage, match="scans"):
        decode(bytes(data[:-2] + data[scan:-2] * (MAX_SCANS + 1) + data[-2:]))


def test_a_progressive_jpeg_of_very_many_scans_is_refused():
    data = encoded(PHOTO, "JPEG", progressive=True)
    scan = data.rfind(b"\xff\xda")
    with pytest.raises(BadImage, match="scans"):
        decode(data[:-2] + data[scan:-2] * (MAX_SCANS + 1) + data[-2:])


def large_jpegs() -> list[bytes]:
    """Of more than 64 KB, Pillow's piece: sequential, progressive, gray and with restart markers."""
    noise = np.random.default_rng(5).integers(0, 256, (260, 330, 3), dtype=np.uint8)
    files = []
    for mode, options in [("RGB", {}), ("RGB", {"progressive": True}), ("L", {}), ("RGB", {"restart_marker_rows": 1})]:
        buffer = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(buffer, "JPEG", quality=97, **options)
        files.append(buffer.getvalue())
    assert min(map(len, files)) > ImageFile.MAXBLOCK
    return files


def test_a_large_jpeg_in_one_piece_is_what_pillow_makes_of_it():
    for data in large_jpegs():
        assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_a_large_broken_jpeg_ends_as_in_pieces(monkeypatch):
    """Same pixels or same words, whatever is broken."""
    dice, files = random.Random(11), large_jpegs()
    broken = []
    for _ in range(400):
        data = bytearray(dice.choice(files))
        for _ in range(dice.choice((1, 3, 20))):
            data[dice.randrange(2, 700 if dice.random() < 0.2 else len(data))] = dice.randrange(256)
        broken.append(bytes(data[: dice.randrange(len(data)) if dice.random() < 0.2 else len(data)]))

    def found() -> list[str]:
        results = []
        for data in broken:
            try:
                results.append(hashlib.sha256(decode(data).tobytes()).hexdigest())
            except BadImage as bad:
                results.append(bad.why)
        return results

    at_once = found()
    monkeypatch.setattr(decoding, "_in_one_piece", lambda image, data: image)
    monkeypatch.setattr(decoding, "_usual_jpeg", lambda data, exif: None)
    assert at_once == found()
    assert 20 < sum(" " in each for each in at_once) < 380


def test_what_fails_in_one_piece_is_tried_in_pieces(monkeypatch):
    tried = []

    def load(image):
        tried.append(image.decodermaxblock)
        if image.decodermaxblock > ImageFile.MAXBLOCK:
            raise OSError("broken data stream when reading image file")
        return whole(image)

    monkeypatch.setattr(decoding, "_usual_jpeg", lambda data, exif: None)
    whole = JpegImagePlugin.JpegImageFile.load
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", load)
    data = large_jpegs()[0]
    assert decode(data).shape == (260, 330, 3)
    assert tried[0] == len(data)
    assert set(tried[1:]) == {ImageFile.MAXBLOCK}


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


SMALL = Image.fromarray(np.random.default_rng(6).integers(0, 256, (70, 90, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("data", "usual"),
    [
        (saved(SMALL), True),
        (saved(SMALL, optimize=True, dpi=(72, 72), comment=b"words"), True),
        (saved(SMALL, restart_marker_rows=1, subsampling=0, icc_profile=b"x" * 3000), True),
        (saved(SMALL, exif=turned()), True),
        (saved(SMALL, progressive=True), False),
        (saved(SMALL.convert("L")), False),
        (saved(SMALL.convert("CMYK")), False),
        (saved(SMALL)[:200], False),
        (b"\xff\xd8\xff", False),
    ],
)
def test_the_usual_jpeg_needs_no_reader_of_headers(monkeypatch, data, usual):
    assert usual_sides(data, False) == ((90, 70) if usual else None)
    if usual:
        wanted = np.asarray(Image.open(io.BytesIO(data)))
        monkeypatch.setattr(JpegImagePlugin, "JpegImageFile", lambda stream: pytest.fail("Pillow's reader was asked"))
        assert np.array_equal(decode(data), wanted)


def test_a_picture_that_is_to_be_turned_is_not_the_usual_one():
    data = saved(SMALL, exif=turned())
    assert usual_sides(data, True) is None
    assert decode(data, "apply").shape == (90, 70, 3)
    assert decode(data, "ignore").shape == (70, 90, 3)


@pytest.mark.parametrize(
    ("what", "at", "value"),
    [
        ("12 bits", 4, 12),
        ("no height", 5, b"\0\0"),
        ("no width", 7, b"\0\0"),
        ("four components", 9, 4),
        ("a length that is not its own", 2, b"\0\x14"),
        ("another frame", 1, 0xC3),
    ],
)
def test_an_unusual_header_is_for_pillows_reader(what, at, value):
    data = bytearray(saved(SMALL))
    frame = data.index(b"\xff\xc0")
    data[frame + at : frame + at + (len(value) if isinstance(value, bytes) else 1)] = (
        value if isinstance(value, bytes) else bytes([value])
    )
    assert usual_sides(bytes(data), False) is None


def test_small_broken_jpegs_end_as_by_pillows_reader(monkeypatch):
    """Same pixels or same words, whatever is broken: mostly headers."""
    dice = random.Random(12)
    files = [saved(SMALL), saved(SMALL, exif=turned(), icc_profile=b"x" * 99), saved(SMALL, restart_marker_rows=1)]
    broken = []
    for _ in range(3000):
        data = bytearray(dice.choice(files))
        for _ in range(dice.choice((1, 1, 3))):
            at = dice.randrange(2, 700 if dice.random() < 0.8 else len(data))
            data[at] = dice.randrange(256) if dice.random() < 0.5 else data[at] ^ 1 << dice.randrange(8)
        broken.append((bytes(data), dice.choice(("ignore", "apply"))))

    def found() -> list[str]:
        results = []
        for data, exif in broken:
            try:
                results.append(hashlib.sha256(decode(data, exif).tobytes()).hexdigest())
            except BadImage as bad:
                results.append(bad.why)
        return results

    at_once = found()
    usual = sum(usual_sides(data, exif == "apply") is not None for data, exif in broken)
    assert 300 < usual < 2700
    monkeypatch.setattr(decoding, "_usual_jpeg", lambda data, exif: None)
    assert at_once == found()
