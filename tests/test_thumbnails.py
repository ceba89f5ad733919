"""Every image that the page shows has its picture, whatever else the records name."""

import dataclasses
import re

import page_fixtures
from measuring import make_dataset
from numerics_records import image, numerics_record

from vggbench import runs_thumbnails
from vggbench.protocols import Choices
from vggbench.report import context_from, hardest, numerics, render

FLIP = (image(0, lost=True),)


def case(image: str, posterior: float) -> dict:
    return {"id": image, "label": 0, "answer": 1, "posterior": posterior, "true_posterior": 0.01}


def test_what_most_records_name_has_a_picture_however_sure_others_were(tmp_path):
    """The page takes the images that most records name; these records are surer of sixty others."""
    dataset = make_dataset(tmp_path / "images", 72)
    names = [image.id for image in dataset.images]
    often, once = names[:12], names[12:]
    records = [
        record.model_copy(
            update={"hardest": [*(case(n, 0.2) for n in often), *(case(n, 0.9) for n in once[6 * i : 6 * i + 6])]}
        )
        for i, record in enumerate(page_fixtures.sample_records((0,), 72)[:10])
    ]
    assert sorted(hardest.ids(records)) == often
    found = runs_thumbnails.thumbnails(dataset, records, Choices())
    assert sorted(found) == often
    html = render(records, [], dataclasses.replace(context_from(records), thumbnails=found))
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', html)) == 12
    assert "no thumbnail" not in html


def test_every_flipped_answer_of_the_page_has_a_picture(tmp_path):
    dataset = make_dataset(tmp_path / "images", 36)
    names, records = [image.id for image in dataset.images], []
    for place, network in enumerate("ABD"):
        record = numerics_record("int8", "onnxruntime", "cpu", network)
        own = [drift.model_copy(update={"id": name}) for name in names[12 * place : 12 * place + 12] for drift in FLIP]
        records.append(record.model_copy(update={"numerics": record.numerics.model_copy(update={"changed": own})}))
    assert sorted(runs_thumbnails.thumbnails(dataset, records, Choices())) == names
    assert sorted(numerics.flipped_ids(records)) == names
