"""The same validation images in every layout give the same dataset and the same records.

VGGBENCH_TEST_LAYOUT_IMAGES=2000 makes as many images as the promise names; 220 show the same in seconds.
"""

from __future__ import annotations

import os

import imagenet_layouts
import pytest
from imagenet_layouts import LAYOUTS

from vggbench import runs
from vggbench.images import open_dataset
from vggbench.images.imagenet import CLASSES
from vggbench.runs_inputs import Setting

COUNT = int(os.environ.get("VGGBENCH_TEST_LAYOUT_IMAGES", "220"))
#: A network as small as they come, on 1000 classes.
NETWORK = {"width": 1 / 64, "hidden_width": 1 / 256, "crop_size": 32}


@pytest.fixture(scope="module")
def made():
    return imagenet_layouts.make(COUNT)


@pytest.fixture(scope="module")
def reference(made, tmp_path_factory):
    root = tmp_path_factory.mktemp("reference")
    return open_dataset(str(imagenet_layouts.class_folders(root, made)), cache_root=root / "cache")


def plain(dataset):
    """All of a dataset but where it lies and what its layout is called."""
    images = [(image.id, image.labels) for image in dataset.images]
    return images, dataset.digests, dataset.fingerprint, dataset.classes, dataset.name, dataset.split, dataset.total


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_gives_the_same_images_labels_order_and_fingerprint(tmp_path, made, reference, layout):
    dataset = open_dataset(str(layout(tmp_path / "data", made)), cache_root=tmp_path)
    assert plain(dataset) == plain(reference)
    assert {image.id: image.label for image in dataset.images} == {
        imagenet_layouts.val_name(number): label for number, label in made.labels.items()
    }
    assert (dataset.name, dataset.split, dataset.classes) == ("ILSVRC-2012", "val", CLASSES)
    assert f"{COUNT:,} of the 50,000 validation images" in dataset.layout
    some = dataset.first(50)
    assert some.images == dataset.images[:50]
    assert len({image.label for image in some.images}) == 50


def test_the_layouts_are_told_apart_in_words(tmp_path, made):
    words = [
        open_dataset(str(layout(tmp_path / layout.__name__, made)), cache_root=tmp_path).layout for layout in LAYOUTS
    ]
    assert len(set(words)) >= len(LAYOUTS) - 3
    assert any("3 shards" in each for each in words)


@pytest.mark.parametrize(
    "layouts",
    [
        (
            imagenet_layouts.class_folders,
            imagenet_layouts.tar_with_devkit,
            imagenet_layouts.shards,
            imagenet_layouts.flat_with_caffes_list,
        )
    ]
    if COUNT <= 500
    else [LAYOUTS],
)
def test_records_are_identical_but_for_the_layouts_name(tmp_path, made, monkeypatch, layouts):
    records = []
    for layout in layouts:
        monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path / f"cache-{layout.__name__}"))  # nothing is shared
        record, _ = runs.evaluate(
            setting=Setting("pytorch", device="cpu", threads=1),
            data=str(layout(tmp_path / layout.__name__, made)),
            weights="random:0",
            protocol_name="center",
            scales=(32,),
            size=NETWORK,
        )
        fields = record.model_dump(exclude={"started", "elapsed_seconds"})
        assert fields["workload"]["data"].pop("layout")
        records.append(fields)
    assert len(records[0]["samples"]["values"]) == COUNT
    assert all(fields == records[0] for fields in records[1:])


def test_a_smaller_number_of_images_is_a_prefix_of_a_larger_in_every_layout(tmp_path, made, reference):
    path = imagenet_layouts.tar_with_list(tmp_path / "data", made)
    for count in (1, 37, COUNT - 1):
        some = open_dataset(str(path), cache_root=tmp_path, count=count)
        assert plain(some)[:6] == plain(reference.first(count))[:6]
        assert some.total == COUNT
