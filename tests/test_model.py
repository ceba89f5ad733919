"""The networks as torch modules: names, counts, and dense form = crop form."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from vgg_reference import ARCHITECTURES, build
from vgg_reference.architectures import architecture, count_parameters, pooled
from vgg_reference.model import LocalResponseNorm, average_score_map, initialize_he

#: torchvision's name of each network it has.
TORCHVISION_NAMES = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}
#: torchvision's own lists (torchvision.models.vgg.cfgs), an M being a max-pool.
TORCHVISION_CFGS = {
    "vgg11": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "vgg13": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "vgg16": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "vgg19": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
SMALL = {"width": 1 / 8, "hidden_width": 1 / 16, "num_classes": 60}


def torchvision_shapes(cfg: str, batch_norm: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a torchvision VGG's state dict, as its make_layers() numbers them."""
    shapes: dict[str, tuple[int, ...]] = {}
    index, channels = 0, 3
    for word in cfg.split():
        if word == "M":
            index += 1
            continue
        out = int(word)
        shapes[f"features.{index}.weight"] = (out, channels, 3, 3)
        shapes[f"features.{index}.bias"] = (out,)
        if batch_norm:
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"features.{index + 1}.{name}"] = (out,)
            shapes[f"features.{index + 1}.num_batches_tracked"] = ()
        index += 3 if batch_norm else 2
        channels = out
    for index, shape in ((0, (4096, 512 * 7 * 7)), (3, (4096, 4096)), (6, (1000, 4096))):
        shapes[f"classifier.{index}.weight"] = shape
        shapes[f"classifier.{index}.bias"] = shape[:1]
    return shapes


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", list(TORCHVISION_NAMES))
def test_state_dict_names_and_shapes_are_torchvisions(name, batch_norm):
    with torch.device("meta"):
        model = build(name, batch_norm=batch_norm)
    found = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert found == torchvision_shapes(TORCHVISION_CFGS[TORCHVISION_NAMES[name]], batch_norm)
    assert list(found) == list(torchvision_shapes(TORCHVISION_CFGS[TORCHVISION_NAMES[name]], batch_norm))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_the_modules_parameters_are_as_many_as_counted(name, batch_norm):
    for size in ({}, {**SMALL, "crop_size": 64}):
        with torch.device("meta"):
            model = build(name, batch_norm=batch_norm, **size)
        counted = count_parameters(architecture(name, batch_norm), **size)
        assert sum(parameter.numel() for parameter in model.parameters()) == counted


def relative_error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def pair(name, crop, ceil, **more):
    """Crop form and dense form of the same random weights, evaluating."""
    forms = [
        build(name, crop_size=crop, dense=dense, pool_ceil=ceil and dense, **SMALL, **more) for dense in (False, True)
    ]
    initialize_he(forms[0], 0)
    forms[1].load_state_dict(forms[0].state_dict())
    return [form.eval() for form in forms]


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("crop", [64, 224])
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_dense_form_equals_crop_form_on_a_crop_sized_image(name, crop, ceil):
    crop_form, dense_form = pair(name, crop, ceil)
    images = torch.randn(2, 3, crop, crop, generator=torch.Generator().manual_seed(1)) * 60
    with torch.inference_mode():
        expected = crop_form(images)
        scores = dense_form(images)
    assert scores.shape == (2, 60, 1, 1)
    assert expected.abs().max() > 1
    assert relative_error(scores[:, :, 0, 0], expected) <= 1e-5


def test_dense_form_equals_crop_form_at_full_width():
    """Every convolution of full width, on one crop of 64 pixels."""
    forms = [build("D", crop_size=64, hidden_width=1 / 16, dense=dense).eval() for dense in (False, True)]
    forms[1].load_state_dict(forms[0].state_dict())
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 60
    with torch.inference_mode():
        assert relative_error(forms[1](images)[:, :, 0, 0], forms[0](images)) <= 1e-5


def test_dense_scores_of_an_interior_position_do_not_depend_on_the_rest():
    """Positions are 32 pixels apart; with pools alone (no padding) each is the crop form at its window."""
    model = build("A", crop_size=64, dense=True, **SMALL).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 60, 1, 2)
        assert model(torch.zeros(1, 3, 128, 64)).shape == (1, 60, 3, 1)


@pytest.mark.parametrize(("height", "width"), [(64, 65), (75, 133), (97, 64), (127, 96)])
@pytest.mark.parametrize("ceil", [False, True])
def test_the_score_map_has_the_size_that_the_pools_give(height, width, ceil):
    model = build("A", crop_size=64, dense=True, pool_ceil=ceil, **SMALL).eval()
    sides = [height, width]
    for _ in range(5):
        sides = [pooled(side, ceil) for side in sides]
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, height, width)).shape[2:] == tuple(side - 1 for side in sides)


@pytest.mark.parametrize("side", range(1, 12))
def test_pooled_is_torchs_max_pool_both_ways(side):
    for ceil in (False, True):
        if pooled(side, ceil):
            found = functional.max_pool2d(torch.zeros(1, 1, side, side), 2, 2, ceil_mode=ceil)
            assert found.shape[-1] == pooled(side, ceil)


def test_lrn_equals_torchs():
    x = torch.randn(2, 17, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 100
    expected = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)(x)
    assert relative_error(LocalResponseNorm(17, 1e-4)(x), expected) <= 1e-7


def test_lrn_equals_the_papers_formula_by_loops():
    """Krizhevsky et al. 2012, section 3.3, with alpha divided by n and k = 1."""
    x = torch.randn(1, 7, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 300
    found = LocalResponseNorm(7, 1e-4)(x)
    for channel in range(7):
        for row in range(2):
            for column in range(3):
                window = range(max(0, channel - 2), min(7, channel + 3))
                total = sum(x[0, other, row, column].item() ** 2 for other in window)
                expected = x[0, channel, row, column].item() / (1 + 1e-4 / 5 * total) ** 0.75
                assert found[0, channel, row, column].item() == pytest.approx(expected, rel=1e-7)


def test_lrn_stands_after_the_first_relu_and_before_the_pool():
    kinds = [type(layer).__name__ for layer in build("A-LRN", crop_size=64, **SMALL).features[:4]]
    assert kinds == ["Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d"]


def test_dropout_follows_the_relus_of_the_first_two_layers():
    kinds = [type(layer).__name__ for layer in build("D", crop_size=64, **SMALL).classifier]
    assert kinds == ["FullyConnected", "ReLU", "Dropout", "FullyConnected", "ReLU", "Dropout", "FullyConnected"]


def test_mean_logits_is_the_mean_over_space():
    scores = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    assert torch.allclose(average_score_map(scores), scores.flatten(2).mean(2))


def test_mean_probs_is_the_log_of_the_mean_posterior_and_survives_large_scores():
    scores = torch.randn(2, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    posterior = scores.softmax(1).flatten(2).mean(2)
    assert torch.allclose(average_score_map(scores, "mean_probs").softmax(1), posterior, atol=1e-12)
    assert average_score_map(scores * 1e4, "mean_probs").isfinite().all()


def test_both_averages_agree_on_one_position():
    scores = torch.randn(2, 5, 1, 1, dtype=torch.float64)
    posteriors = [average_score_map(scores, pool).softmax(1) for pool in ("mean_logits", "mean_probs")]
    assert torch.allclose(*posteriors, atol=1e-12)


def test_an_unknown_average_is_refused():
    with pytest.raises(ValueError, match="Known: mean_logits, mean_probs"):
        average_score_map(torch.zeros(1, 2, 1, 1), "max")


def test_he_initialization_is_the_same_for_a_seed_whatever_the_global_generator():
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(initialize_he(build("A", crop_size=32, **SMALL), 7).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
