"""What reads images reads members of archives as well: calibration, training, thumbnails, shapes, inference."""

from __future__ import annotations

import imagenet_layouts
import numpy as np
import page_fixtures
import pytest

from vgg_reference.weights import random_weights
from vggbench import runs_estimate, runs_thumbnails
from vggbench.errors import DataError
from vggbench.images.folder import open_folder
from vggbench.measure.batches import Views
from vggbench.progress import silent
from vggbench.protocols import Choices, Pass
from vggbench.quantize_images import Used, input_batches
from vggbench.train.crops import Pictures
from vggbench.train.recipe import Recipe

WEIGHTS = random_weights("A", num_classes=1000, width=1 / 64, hidden_width=1 / 256, crop_size=32)
CENTER = Pass("crop", 32, "center", False)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The same images as files and in an archive."""
    made, root = imagenet_layouts.make(24), tmp_path_factory.mktemp("pair")
    plain = open_folder(imagenet_layouts.class_folders(root / "plain", made))
    packed = open_folder(imagenet_layouts.tar_of_class_folders(root / "packed", made))
    assert packed.fingerprint == plain.fingerprint
    return plain, packed


def test_calibration_sees_the_same_inputs(pair):
    found = []
    for dataset in pair:
        used = Used()
        found.append(list(input_batches(dataset, WEIGHTS, CENTER, Choices(), 8, "stop", used, silent)))
        assert len(used.images) == 24
    assert all((a == b).all() for a, b in zip(*found, strict=True))


def test_numerics_see_the_same_inputs(pair):
    one, two = (np.concatenate(list(Views(d, WEIGHTS, CENTER, Choices()).batches(8 * 32 * 32))) for d in pair)
    assert one.shape == (24, 3, 32, 32)
    assert (one == two).all()


def test_training_reads_the_same_pictures(pair):
    plain, packed = (Pictures([image.path for image in dataset.images], Recipe("A", "256"), 0) for dataset in pair)
    assert all((plain.original(index) == packed.original(index)).all() for index in range(24))


def test_pictures_of_the_page_and_shapes_of_the_plan_are_the_same(pair):
    cases = [{"id": image.id, "posterior": 0.5} for image in pair[0].images[:3]]
    record = page_fixtures.sample_records((0,), 24)[0].model_copy(update={"hardest": cases})
    one, two = (runs_thumbnails.thumbnails(dataset, [record], Choices()) for dataset in pair)
    assert len(one) == 3
    assert one == two
    shapes = [runs_estimate.typical_aspect(dataset) for dataset in pair]
    assert shapes[0] == shapes[1] != 4 / 3


def test_a_member_that_is_no_image_is_named_in_training(tmp_path):
    dataset = open_folder(imagenet_layouts.pack(tmp_path / "x.tar", {"a/1.jpg": b"none", "b/2.jpg": b"none"}))
    pictures = Pictures([image.path for image in dataset.images], Recipe("A", "256"), 0)
    with pytest.raises(DataError, match=r"x.tar: ./..jpg: cannot be used for training"):
        pictures.original(0)
