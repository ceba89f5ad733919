"""Small pictures for the page: the images that were hardest, and those whose answer a precision changed."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from vggbench.images import Dataset
from vggbench.images.decode import BadImage, decode
from vggbench.protocols import Choices
from vggbench.results import Record

#: Cards on the page, and the longer side of their pictures in pixels.
THUMBNAILS, FLIPPED, THUMBNAIL_PIXELS = 40, 24, 160


def thumbnails(dataset: Dataset, records: Sequence[Record], choices: Choices) -> dict[str, bytes]:
    """Image id -> a small JPEG, for the images that the records name as hardest or whose answer flipped."""
    cases = sorted(
        (case for record in records for case in record.hardest), key=lambda case: -float(case.get("posterior", 0.0))
    )
    hardest = list(dict.fromkeys(str(case["id"]) for case in cases))[:THUMBNAILS]
    changed = [each for record in records if record.numerics for each in record.numerics.changed]
    flipped = [each.id for each in changed if each.reference_class != each.variant_class]
    wanted = list(dict.fromkeys([*hardest, *flipped[:FLIPPED]]))
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
