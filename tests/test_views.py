"""One image -> its views -> the network's input, against plain loops and by exact relations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vgg_reference.weights import PREPROCESSING, Preprocess, random_weights
from vggbench.errors import UsageError
from vggbench.measure import shards
from vggbench.protocols import CHOICES, Choices, Pass, crops, dense
from vggbench.variants import Variant
from vggbench.views import make_views, offsets, rescale, rescaled_size, to_input

RNG = np.random.default_rng(11)
DEFAULT = Choices()


def picture(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(200, 300), (300, 200), (97, 97), (31, 401), (500, 375), (64, 65)])
@pytest.mark.parametrize("scale", [64, 73, 256])
def test_the_shorter_side_is_the_scale_and_the_longer_follows_within_a_pixel(size, scale):
    height, width = rescaled_size(*size, scale, DEFAULT)
    factor = scale / min(size)
    assert min(height, width) == scale
    assert abs(height - size[0] * factor) <= 0.5
    assert abs(width - size[1] * factor) <= 0.5
    assert rescale(picture(*size), scale, DEFAULT).shape == (height, width, 3)


def test_the_longer_side_rounds_half_to_even_or_down_as_chosen():
    assert rescaled_size(4, 5, 10, DEFAULT) == (10, 12)  # 12.5
    assert rescaled_size(4, 7, 10, DEFAULT) == (10, 18)  # 17.5
    assert rescaled_size(7, 4, 10, Choices(side_rounding="floor")) == (17, 10)
    assert rescaled_size(375, 500, 256, DEFAULT) == (256, 341)  # 341.33


def test_an_image_of_that_size_stays_as_it_is():
    image = picture(64, 80)
    assert rescale(image, 64, DEFAULT) is image


@pytest.mark.parametrize("name", CHOICES["resize_filter"])
def test_rescaling_is_pillows_filter_of_that_name_and_pytorchs_but_for_single_steps(name):
    library, _, kind = name.rpartition("-")
    for height, width in ((90, 130), (40, 57), (375, 500)):
        image = picture(height, width)
        found = rescale(image, 64, Choices(resize_filter=name))
        expected = np.asarray(Image.fromarray(image).resize(found.shape[1::-1], Image.Resampling[kind.upper()]))
        away = np.abs(found.astype(int) - expected.astype(int)).max()
        assert found.shape[0] == 64
        assert away <= (1 if library == "torch" else 0)


def test_pytorchs_filters_leave_the_image_that_they_are_given():
    image = picture(90, 130)
    before = image.copy()
    image.setflags(write=False)
    assert rescale(image, 64, Choices(resize_filter="torch-bicubic")).shape == (64, 92, 3)
    assert np.array_equal(image, before)


def test_the_library_of_a_filter_is_part_of_what_names_posteriors():
    variant = Variant(
        random_weights("A", 0, width=1 / 64, hidden_width=1 / 256, num_classes=7, crop_size=32), "crop", "fake"
    )

    def identity(name: str) -> dict:
        step = Pass("crop", 32, "center", False)
        return shards.identity(variant, step, Choices(resize_filter=name), "a decoder", "cpu")

    assert "resizer" not in identity("bicubic")
    assert identity("torch-bicubic")["resizer"] == f"torch {torch.__version__}"


def test_rescaling_down_is_antialiased():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    for name in CHOICES["resize_filter"]:
        small = rescale(stripes, 64, Choices(resize_filter=name))
        assert np.abs(small[8:-8, 8:-8].astype(int) - 128).max() <= 4, name


def test_offsets_of_each_grid_by_hand():
    assert offsets(256, 341, 224, "center", DEFAULT) == [(16, 58)]  # 58.5 goes to even
    assert offsets(256, 341, 224, "center", Choices(grid_rounding="floor")) == [(16, 58)]
    assert offsets(256, 343, 224, "center", DEFAULT) == [(16, 60)]  # 59.5
    assert offsets(256, 341, 224, "corners", DEFAULT) == [(0, 0), (0, 117), (32, 0), (32, 117), (16, 58)]
    assert offsets(256, 341, 224, "whole", DEFAULT) == [(0, 0)]
    ys, xs = (0, 8, 16, 24, 32), (0, 29, 58, 88, 117)  # 29.25, 58.5, 87.75
    assert offsets(256, 341, 224, "5x5", DEFAULT) == [(y, x) for y in ys for x in xs]
    assert offsets(256, 341, 224, "5x5", Choices(grid_rounding="floor"))[:5] == [(0, x) for x in (0, 29, 58, 87, 117)]


def test_the_5x5_grid_spans_the_whole_image_or_its_central_square():
    whole = offsets(256, 512, 224, "5x5", DEFAULT)
    square = offsets(256, 512, 224, "5x5", Choices(grid_extent="square"))
    assert (whole[0], whole[-1]) == ((0, 0), (32, 288))
    assert (square[0], square[-1]) == ((0, 128), (32, 160))
    tall = offsets(512, 256, 224, "5x5", Choices(grid_extent="square"))
    assert tall == [(y, x) for y in (128, 136, 144, 152, 160) for x in (0, 8, 16, 24, 32)]


@pytest.mark.parametrize("grid", ["center", "corners", "5x5"])
@pytest.mark.parametrize("extent", CHOICES["grid_extent"])
@pytest.mark.parametrize("rounding", CHOICES["grid_rounding"])
def test_every_crop_lies_inside_the_image(grid, extent, rounding):
    choices = Choices(grid_extent=extent, grid_rounding=rounding)
    for height, width in RNG.integers(64, 200, (200, 2)).tolist():
        for y, x in offsets(height, width, 64, grid, choices):
            assert 0 <= y <= height - 64
            assert 0 <= x <= width - 64


def test_views_are_the_crops_and_then_their_mirror_images():
    image = picture(70, 90)
    views = make_views(image, crops(70), 64, DEFAULT)
    assert views.shape == (50, 64, 64, 3)
    for view, (y, x) in zip(views, offsets(70, 90, 64, "5x5", DEFAULT), strict=False):
        assert np.array_equal(view, image[y : y + 64, x : x + 64])
    assert np.array_equal(views[25:], views[:25, :, ::-1])


def test_without_flip_there_are_no_mirror_images():
    assert make_views(picture(70, 90), Pass("crop", 70, "corners", False), 64, DEFAULT).shape == (5, 64, 64, 3)


def test_the_whole_image_is_one_view_and_its_mirror_image():
    image = picture(70, 90)
    views = make_views(image, dense(70), 64, DEFAULT)
    assert np.array_equal(views, np.stack([image, image[:, ::-1]]))
    assert make_views(image, Pass("dense", 140, "whole", False), 64, DEFAULT).shape == (1, 140, 180, 3)


def test_all_50_views_of_a_crop_sized_image_are_it_or_its_mirror_image():
    image = picture(64, 64)
    views = make_views(image, crops(64), 64, DEFAULT)
    assert (views[:25] == image).all()
    assert (views[25:] == image[:, ::-1]).all()


def test_views_of_the_mirrored_image_are_the_same_set():
    image = picture(72, 80)  # spans that 4 divides: no offset is rounded
    for pass_ in (crops(72), dense(72), Pass("crop", 72, "corners", True)):
        ours = {view.tobytes() for view in make_views(image, pass_, 64, DEFAULT)}
        mirrored = {view.tobytes() for view in make_views(image[:, ::-1].copy(), pass_, 64, DEFAULT)}
        assert ours == mirrored


def test_views_do_not_share_memory_with_the_image():
    image = picture(64, 64)
    assert not np.shares_memory(make_views(image, Pass("dense", 64, "whole", False), 64, DEFAULT), image)


@pytest.mark.parametrize("pass_", [crops(48), dense(48), Pass("crop", 63, "center", False)])
def test_a_scale_below_the_crop_is_named_with_both(pass_):
    with pytest.raises(UsageError, match=f"Scale {pass_.scale} is below the crop size 64"):
        make_views(picture(100, 100), pass_, 64, DEFAULT)


def test_an_image_smaller_than_the_crop_is_named_with_both():
    with pytest.raises(UsageError, match="100 x 60 pixels is smaller than the crop of 64"):
        offsets(60, 100, 64, "center", DEFAULT)


def test_an_unknown_grid_is_named():
    with pytest.raises(UsageError, match=r"No grid '3x3'\. Known: center, corners, 5x5, whole"):
        offsets(80, 80, 64, "3x3", DEFAULT)


@pytest.mark.parametrize("name", PREPROCESSING)
def test_input_is_value_minus_mean_times_scale_by_channel(name):
    preprocess = PREPROCESSING[name]
    views = RNG.integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    images = to_input(views, preprocess)
    assert images.shape == (3, 3, 5, 7)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    for n, y, x in np.ndindex(3, 5, 7):
        for channel, colour in enumerate(preprocess.order):
            value = float(views[n, y, x, "RGB".index(colour)])
            expected = (value - preprocess.mean[channel]) * preprocess.scale[channel]
            assert images[n, channel, y, x] == pytest.approx(expected, rel=1e-5, abs=1e-4 * preprocess.scale[channel])


def test_bgr_is_rgb_with_its_channels_reversed():
    views = RNG.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    rgb, bgr = (to_input(views, PREPROCESSING[name]) for name in ("paper-rgb", "paper-bgr"))
    assert np.array_equal(rgb[:, ::-1], bgr)


def test_input_takes_views_that_are_not_contiguous():
    views = RNG.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    assert np.array_equal(
        to_input(views[:, ::2, ::-1], Preprocess()), to_input(views[:, ::2, ::-1].copy(), Preprocess())
    )
