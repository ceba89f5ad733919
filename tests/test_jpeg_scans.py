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
from vggbench.images.jpeg import split_jpeg


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
    assert at_once == found()
    assert 20 < sum(" " in each for each in at_once) < 380


def test_what_fails_in_one_piece_is_tried_in_pieces(monkeypatch):
    tried = []

    def load(image):
        tried.append(image.decodermaxblock)
        if image.decodermaxblock > ImageFile.MAXBLOCK:
            raise OSError("broken data stream when reading image file")
        return whole(image)

    whole = JpegImagePlugin.JpegImageFile.load
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", load)
    data = large_jpegs()[0]
    assert decode(data).shape == (260, 330, 3)
    assert tried[0] == len(data)
    assert set(tried[1:]) == {ImageFile.MAXBLOCK}
