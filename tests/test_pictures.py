"""A decoded image as its decoder leaves it: whatever form it has, the same pixels come of it, and it holds no file."""

from __future__ import annotations

import gc
import io
import threading

import numpy as np
import pytest
from PIL import Image

from vggbench.images.decode import decode, decode_picture, picture_bytes, pixels_of, sides
from vggbench.measure.pipeline import DecodedImages
from vggbench.protocols import CHOICES, Choices, Pass
from vggbench.views import make_views, rescale, rescale_all

RNG = np.random.default_rng(3)
PHOTO = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((96, 72), Image.Resampling.BICUBIC)
)
GRAY = Image.fromarray(PHOTO[..., 0])


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return encoded(Image.fromarray(PHOTO), "JPEG", exif=tags)


FILES = {
    "JPEG": encoded(Image.fromarray(PHOTO), "JPEG"),
    "progressive JPEG": encoded(Image.fromarray(PHOTO), "JPEG", progressive=True),
    "gray JPEG": encoded(GRAY, "JPEG"),
    "CMYK JPEG": encoded(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"),
    "turned JPEG": turned(6),
    "PNG": encoded(Image.fromarray(PHOTO), "PNG"),
    "PNG with alpha": encoded(Image.fromarray(PHOTO).convert("RGBA"), "PNG"),
    "palette": encoded(Image.fromarray(PHOTO).quantize(16), "GIF"),
    "WebP": encoded(Image.fromarray(PHOTO), "WebP", lossless=True),
    "BMP": encoded(Image.fromarray(PHOTO), "BMP"),
}


@pytest.mark.parametrize("filter_", CHOICES["resize_filter"])
@pytest.mark.parametrize("kind", FILES)
def test_views_of_a_picture_are_those_of_its_pixels(kind, filter_):
    image, choices = decode_picture(FILES[kind], "apply"), Choices(resize_filter=filter_)
    pixels = decode(FILES[kind], "apply")
    assert sides(image) == pixels.shape[:2] == ((96, 72) if kind == "turned JPEG" else (72, 96))
    np.testing.assert_array_equal(pixels_of(image), pixels)
    for scale, found in rescale_all(image, [64, 72, 90], choices).items():
        np.testing.assert_array_equal(found, rescale(pixels, scale, choices))
    step = Pass("crop", 80, "corners", True)
    np.testing.assert_array_equal(make_views(image, step, 64, choices), make_views(pixels, step, 64, choices))


@pytest.mark.parametrize("kind", FILES)
def test_a_picture_holds_nothing_of_its_file(kind):
    data = FILES[kind] + bytes(1 << 20)  # which no decoder minds
    image = decode_picture(data, "apply")
    gc.collect()
    assert not any(data in gc.get_referents(each) for each in [image, getattr(image, "__dict__", {})])
    assert getattr(image, "fp", None) is None
    held = [value for value in vars(image).values() if isinstance(value, io.IOBase | bytes | memoryview)]
    assert not held


def test_pictures_are_counted_by_what_they_take():
    image = decode_picture(FILES["JPEG"])
    assert isinstance(image, Image.Image)
    assert picture_bytes(image) == 4 * 72 * 96
    assert picture_bytes(pixels_of(image)) == 3 * 72 * 96
    kept = DecodedImages(limit=2 * picture_bytes(image))
    for name in "abc":
        kept.put(name, "ignore", image)
    assert kept.bytes == kept.limit
    assert [kept.get(name, "ignore") is image for name in "abc"] == [False, True, True]


def test_a_kept_picture_may_be_rescaled_by_several_threads_at_once():
    image, found = decode_picture(FILES["JPEG"]), []
    expected = rescale(pixels_of(image), 64, Choices())

    def work() -> None:
        for _ in range(50):
            found.append(np.array_equal(rescale(image, 64, Choices()), expected))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 200
    assert all(found)
