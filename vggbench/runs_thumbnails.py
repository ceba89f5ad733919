"""Small pictures for the page: the images that were hardest, and those whose answer a precision changed."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from vggbench.images import Dataset
from vggbench.images.decode import BadImage, decode
from vggbench.protocols import Choices
from vggbench.report import hardest, numerics
from vggbench.results import Record

#: The longer side.
THUMBNAIL_PIXELS = 160


def thumbnails(dataset: Dataset, records: Sequence[Record], choices: Choices) -> dict[str, bytes]:
    """Image id -> a small JPEG, of every image that a page of these records shows."""
    wanted = dict.fromkeys([*hardest.ids(records), *numerics.flipped_ids(records)])
    paths = {image.id: image.path for image in dataset.images}
    found = {}
    for name in wanted:
        try:
            picture = Image.fromarray(decode(paths[name].read_bytes(), choices.exif))
        except (KeyError, OSError, BadImage):
            continue  # it was readable when it was measured; the page does without its picture
        picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        found[name] = buffer.getvalue()
    return found
