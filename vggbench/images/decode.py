"""Bytes of an image file -> RGB pixels, or BadImage; whatever the bytes are.

Accepted by content, whatever the name: JPEG, PNG, WebP, BMP, GIF (first frame). TIFF is not: Pillow turns it by its
orientation tag whether asked or not, and its float and multi-page forms have no one 8-bit reading.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import PIL
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
    features,
)

from vggbench.errors import BackendUnavailable, UsageError
from vggbench.images.jpeg import orientation, split_jpeg, usual_sides

Pixels = npt.NDArray[np.uint8]
#: A decoded RGB image as its decoder leaves it: Pillow's own, which rescales it without another copy, or (h, w, 3).
Picture: TypeAlias = Image.Image | Pixels

#: Name and version of what decodes: it decides pixels, and so errors, which is why records name it.
DECODER = f"Pillow {PIL.__version__}, " + (
    f"libjpeg-turbo {features.version('libjpeg_turbo')}"
    if features.version("libjpeg_turbo")
    else f"libjpeg {features.version('jpg')}"
)

#: What may decode the usual JPEGs (YCbCr or gray, 8 bits); all else, and what it refuses, is Pillow's. Neither decodes
#: at a fraction of the size (Pillow's draft mode): that never leaves the pixels as they are.
DECODERS = ("pillow", "simplejpeg")

#: Checked against the header, before memory is taken: at 2^26 pixels one decoding holds about 0.5 GB (4 bytes a pixel
#: in Pillow, 3 in the array), so that eight threads stay under 4 GB. Cameras of 64 megapixels pass.
MAX_PIXELS = 2**26

#: Longer side over shorter side. A thin strip grows when its shorter side is rescaled: 1 x 10,000 pixels at scale 512
#: would be 2.6 billion pixels.
MAX_ASPECT = 100

#: Huffman coding spends at least a bit on each block of 64 pixels. A JPEG that claims more is cut or forged, and would
#: keep the decoder busy with filling in gray.
MAX_JPEG_PIXELS_PER_BYTE = 1024

#: Each scan of a progressive JPEG goes over all pixels, however few bytes it has; encoders write about ten.
MAX_SCANS = 200

_FORMATS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}

_ACCEPTED = "JPEG, PNG, WebP, BMP and GIF"

#: catch_warnings changes the whole process: one thread at a time, for the header only.
_quiet = threading.Lock()

#: What each EXIF orientation asks for.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(Exception):
    """An image that cannot be used: why, in one line."""

    @property
    def why(self) -> str:
        return str(self)


def decoder_name(decoder: str = "pillow") -> str:
    """Name and version of what decodes, for records and digests. Raises UsageError, BackendUnavailable."""
    if decoder not in DECODERS:
        raise UsageError(f"No decoder {decoder!r}. Known: {', '.join(DECODERS)}.")
    if decoder == "pillow":
        return DECODER
    try:
        import simplejpeg  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise BackendUnavailable(
            "The decoder simplejpeg is not installed. Install it with: pip install 'vggbench[simplejpeg]'"
        ) from error
    return f"simplejpeg {simplejpeg.__version__} (libjpeg-turbo), else {DECODER}"


def decode(data: bytes, exif: str = "ignore", decoder: str = "pillow") -> Pixels:
    """RGB pixels (h, w, 3), read-only, of what decode_picture() makes; raises as that."""
    return pixels_of(decode_picture(data, exif, decoder))


def pixels_of(picture: Picture) -> Pixels:
    """(h, w, 3), read-only if of Pillow's image; pixels themselves are given back as they are."""
    return np.asarray(picture)


def sides(picture: Picture) -> tuple[int, int]:
    """(height, width)."""
    return (picture.height, picture.width) if isinstance(picture, Image.Image) else (picture.shape[0], picture.shape[1])


def picture_bytes(picture: Picture) -> int:
    """That it takes; Pillow's has four a pixel."""
    return 4 * picture.height * picture.width if isinstance(picture, Image.Image) else picture.nbytes


def decode_picture(data: bytes, exif: str = "ignore", decoder: str = "pillow") -> Picture:
    """The RGB image. exif: "ignore" or "apply" the orientation tag. Raises BadImage, nothing else.

    decoder: of DECODERS; decoder_name() says beforehand whether it is there.

    Gray is repeated; CMYK and palettes are converted as Pillow does (a CMYK JPEG is taken as Adobe's inverted one);
    alpha is dropped and the stored colours kept, as ``convert("RGB")`` does; of 16 bits the upper 8 are taken, gray
    as colour (Pillow alone would clip 16-bit gray to 255). Embedded colour profiles are ignored.
    """
    kind = _kind(data)
    try:
        if kind == "JPEG":
            usual = _usual_jpeg(data, exif) if decoder == "pillow" else None
            if usual is not None:
                return usual
            essential, tags, one_scan = split_jpeg(data)
            if not one_scan and essential.count(b"\xff\xda") > MAX_SCANS:
                raise BadImage(f"a JPEG of more than {MAX_SCANS} scans; save it anew")
            turn = orientation(tags) if exif == "apply" else 1
            if decoder == "simplejpeg" and turn == 1:
                pixels = _plain_jpeg(essential, len(data))
                if pixels is not None:
                    return pixels
            image: ImageFile.ImageFile = JpegImagePlugin.JpegImageFile(io.BytesIO(essential))
            _check_claim(*image.size, len(data))
            if len(essential) > image.decodermaxblock:
                image = _in_one_piece(image, essential)
        else:
            if kind == "WebP":  # its decoder takes memory on opening
                _check_size(*_webp_size(data))
            with _quiet, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = _FORMATS[kind](io.BytesIO(data))
                turn = image.getexif().get(0x0112, 1) if exif == "apply" else 1
        _check_size(*image.size)
        return _rgb(image, _TURNS.get(turn))
    except BadImage:
        raise
    except Exception as error:  # Pillow raises nearly anything on hostile bytes
        reason = str(error).split("\n", 1)[0].strip() or type(error).__name__
        raise BadImage(f"a {kind} that cannot be decoded: {reason}") from error


def _usual_jpeg(data: bytes, exif: str) -> Image.Image | None:
    """By Pillow's decoder without its reader of headers; None for what is not usual or refused so: that is for both.

    The reader is Python, which is slower while other threads run, and they while it holds the interpreter. Raises
    BadImage for what the header claims, before memory is taken.
    """
    found = usual_sides(data, exif == "apply")
    if found is None:
        return None
    _check_claim(*found, len(data))
    try:
        image = Image.new("RGB", found, None)
        image.frombytes(data, "jpeg", ("RGB", ""))
    except Exception:
        return None
    return image


def _in_one_piece(image: ImageFile.ImageFile, data: bytes) -> ImageFile.ImageFile:
    """A JPEG decoded without copies in pieces of 64 KB; as it was, if that fails: in pieces a few broken ones pass."""
    image.decodermaxblock = len(data)
    try:
        image.load()
    except Exception:
        return JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    return image


def _plain_jpeg(data: bytes, size: int) -> Pixels | None:
    """By simplejpeg; None for what it refuses, so that Pillow has the last word.

    size: of the whole file in bytes. Raises BadImage for what the header claims, before memory is taken.
    """
    import simplejpeg  # type: ignore[import-not-found, import-untyped, unused-ignore]

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=True)
        if colours not in ("YCbCr", "Gray"):
            return None  # Pillow has its own way with CMYK
        _check_claim(width, height, size)
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, strict=True)
    except ValueError:
        return None
    pixels.setflags(write=False)
    return pixels


def _kind(data: bytes) -> str:
    """The format by its first bytes. Raises BadImage."""
    if not data:
        raise BadImage("an empty file (0 bytes)")
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data.startswith(b"BM"):
        return "BMP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:4] in (b"II*\0", b"MM\0*"):
        raise BadImage("a TIFF file; save it as PNG")
    raise BadImage(f"none of {_ACCEPTED}: it starts with {data[:8]!r}")


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise BadImage(f"claims {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise BadImage(f"claims {width} x {height} pixels; accepted are {MAX_PIXELS:,} in all")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"{width} x {height} pixels; accepted are sides up to 1 : {MAX_ASPECT}")


def _check_claim(width: int, height: int, size: int) -> None:
    """Whether a JPEG of ``size`` bytes can hold what its header claims. Raises BadImage."""
    _check_size(width, height)
    if width * height > MAX_JPEG_PIXELS_PER_BYTE * size:
        raise BadImage(f"claims {width} x {height} pixels, which {size:,} bytes cannot hold")


def _rgb(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    image.load()
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise BadImage(f"gray of 32 bits (mode {image.mode}), whose range is unknown; save it with 8 or 16")
    if image.mode != "RGB":
        image.info.pop("transparency", None)  # else Pillow warns that it is dropped
        image = image.convert("RGB")
    if turn is not None:
        return image.transpose(turn)
    # Of the files' own classes only JPEG's lets go of the file when it is loaded.
    return image if isinstance(image, JpegImagePlugin.JpegImageFile) or type(image) is Image.Image else image.copy()


def _webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) of the canvas as the header claims it. Raises BadImage."""
    chunk, body = data[12:16], data[20:30]
    if chunk == b"VP8X" and len(body) == 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 " and len(body) == 10:
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    raise BadImage("a WebP without a readable header")
