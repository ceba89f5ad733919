"""How many scans a JPEG has, which is what decoding it costs."""

import pytest
from PIL import Image
from test_decode import PHOTO, encoded

from vggbench.images.decode import MAX_SCANS, BadImage, decode, split_jpeg


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
