"""Training: the recipe's parts, exact resume, and that a shortened run learns."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from vgg_reference import build
from vgg_reference.weights import load, read_weights
from vggbench.errors import StorageError, UsageError, WeightsError
from vggbench.images import sample
from vggbench.train import crops, family, labelled, loop
from vggbench.train.initialize import initialize, transfer
from vggbench.train.recipe import Recipe, drops_from

TINY = Recipe(
    "A", width=1 / 16, hidden_width=1 / 64, crop_size=32, batch=8, input_scale=1 / 64, epochs=2, drop_after=(1,)
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """24 training images of the sample set, two classes an image apart, labels as drawn."""
    folder = sample.prepare("train", tmp_path_factory.mktemp("sample"), count=24, workers=1)
    paths = tuple(folder / f"{index:05d}.jpg" for index in range(24))
    return labelled.Labelled(paths, np.arange(24, dtype=np.int64) % 60, 60, "sample-24")


def state_of(path):
    return load(read_weights(path)).state_dict()


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_an_interrupted_run_ends_with_the_same_weights_as_an_undisturbed_one(pictures, tmp_path):
    torch.set_num_threads(1)
    whole = loop.train(TINY, pictures, pictures, tmp_path / "whole")
    for _ in range(10):
        parts = loop.train(TINY, pictures, pictures, tmp_path / "parts", stop_after_batches=2)
        if parts is not None:
            break
    assert parts is not None
    assert parts.digest == whole.digest
    assert (tmp_path / "parts" / "curve.jsonl").read_text() == (tmp_path / "whole" / "curve.jsonl").read_text()


def test_a_checkpoint_of_another_recipe_is_refused(pictures, tmp_path):
    loop.train(TINY, pictures, pictures, tmp_path, stop_after_batches=1)
    with pytest.raises(UsageError, match=r"belongs to another run \(differs in recipe"):
        loop.train(dataclasses.replace(TINY, seed=1), pictures, pictures, tmp_path)


def test_a_broken_checkpoint_is_named(pictures, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(StorageError, match=r"checkpoint\.pt: cannot be read"):
        loop.train(TINY, pictures, pictures, tmp_path)


def test_a_shortened_run_learns_its_training_images(pictures, tmp_path):
    recipe = dataclasses.replace(
        TINY, epochs=30, drop_after=(30,), initialization="scaled", dropout=0.0, rgb_shift=0.0, learning_rate=0.02
    )
    loop.train(recipe, pictures, pictures, tmp_path)
    losses = [json.loads(line)["training_loss"] for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert losses[0] > 3.0, "60 classes at chance are ln 60 = 4.1"
    assert losses[-1] < 0.5 * losses[0]


def test_every_image_is_drawn_once_an_epoch_and_every_epoch_in_another_order():
    first, again, second = (crops.draws(TINY, 100, epoch) for epoch in (0, 0, 1))
    assert sorted(first.order) == list(range(100))
    assert (first.order == again.order).all()
    assert (first.order != second.order).any()


def test_jittered_scales_span_the_whole_range_and_fixed_ones_do_not_vary():
    jittered = crops.draws(dataclasses.replace(TINY, train_scale="[256;512]"), 5000, 0).scales
    assert (jittered.min(), jittered.max()) == (37, 73)
    assert set(crops.draws(TINY, 100, 0).scales) == {37}


def test_a_crop_lies_inside_the_rescaled_image_and_is_mirrored_half_the_time(pictures):
    source = crops.Pictures(pictures.paths, TINY, 0)
    drawn = crops.draws(TINY, len(source), 0)
    for index in range(len(source)):
        assert crops.crop_of(source, TINY, drawn, index).shape == (32, 32, 3)
    assert 0.4 < crops.draws(TINY, 10_000, 0).mirrored.mean() < 0.6


def test_colour_axes_are_the_principal_axes_of_the_pixels():
    rng = np.random.default_rng(0)
    grays = rng.integers(0, 256, (50, 40, 1)).astype(np.uint8).repeat(3, axis=2)
    colour = crops.colour_of([grays])
    assert np.allclose(colour.mean, grays.mean(), atol=0.1)
    lengths = np.linalg.norm(colour.axes, axis=0)
    assert lengths[2] == pytest.approx(grays[..., 0].std() * np.sqrt(3), rel=1e-3)
    assert lengths[:2].max() < 0.01 * lengths[2]


def test_batches_are_mean_free_and_scaled(pictures):
    colour = crops.Colour(np.array([1, 2, 3], np.float32), np.zeros((3, 3), np.float32))
    recipe = dataclasses.replace(TINY, input_scale=0.5)
    source = crops.Pictures(pictures.paths, recipe, 0)
    drawn = crops.draws(recipe, len(source), 3)
    inputs, labels = next(crops.batches(source, pictures.labels, recipe, colour, 3))
    index = int(drawn.order[0])
    expected = (crops.crop_of(source, recipe, drawn, index).astype(np.float32) - [1, 2, 3]) * 0.5
    assert np.allclose(inputs[0], expected.transpose(2, 0, 1))
    assert labels[0] == pictures.labels[index]


def test_batches_are_the_same_with_and_without_worker_threads(pictures):
    colour = crops.Colour(np.zeros(3, np.float32), np.eye(3, dtype=np.float32))
    runs = [
        list(crops.batches(crops.Pictures(pictures.paths, TINY, workers), pictures.labels, TINY, colour, 1))
        for workers in (0, 2)
    ]
    assert len(runs[0]) == 3
    for (x, a), (y, b) in zip(*runs, strict=True):
        assert (x == y).all()
        assert (a == b).all()


def small(name, **kwargs):
    return build(name, 1 / 16, 10, 32, hidden_width=1 / 64, **kwargs)


def test_scaled_initialization_gives_unit_variance_before_every_relu():
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    recipe = dataclasses.replace(TINY, network="B", initialization="scaled")
    model = initialize(small("B"), recipe, images)
    seen = {}
    # A copy: the ReLU behind works in place.
    for name, layer in model.named_modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            layer.register_forward_hook(lambda _, __, y, name=name: seen.update({name: y.clone()}))
    model.eval()(images)
    assert len(seen) == 13
    for name, y in seen.items():
        dims = tuple(d for d in range(y.dim()) if d != 1)
        assert torch.allclose(y.mean(dims), torch.zeros(y.shape[1]), atol=1e-3), name
        assert torch.allclose(y.std(dims), torch.ones(y.shape[1]), atol=1e-2), name


@pytest.mark.parametrize(("name", "std"), [("gaussian", 0.01), ("he", (2 / 27) ** 0.5)])
def test_random_initializations_have_their_standard_deviation(name, std):
    model = initialize(build("A", 1.0, 10, 32, hidden_width=1 / 64), Recipe("A", initialization=name))
    assert model.convolutions()[0].weight.std().item() == pytest.approx(std, rel=0.05)
    assert all((layer.bias == 0).all() for layer in model.convolutions())


def test_growing_an_a_into_a_d_keeps_its_function_up_to_the_noise():
    torch.manual_seed(0)
    source = initialize(small("A"), dataclasses.replace(TINY, initialization="he")).eval()
    grown = transfer(small("D"), source, dataclasses.replace(TINY, network="D", transfer="grow")).eval()
    x = torch.randn(16, 3, 32, 32)
    a, d = source(x), grown(x)
    assert torch.nn.functional.cosine_similarity(a.flatten(), d.flatten(), dim=0) > 0.8


def test_the_papers_transfer_takes_four_convolutions_by_block_position_and_the_fc_layers():
    source, target = small("A"), small("D")
    before = [layer.weight.clone() for layer in target.convolutions()]
    transfer(target, source, dataclasses.replace(TINY, network="D", transfer="paper"))
    changed = [i for i, layer in enumerate(target.convolutions()) if not torch.equal(layer.weight, before[i])]
    # D's convolutions: conv1_1 is 0, conv2_1 is 2, conv3_1 and conv3_2 are 4 and 5.
    assert changed == [0, 2, 4, 5]
    for mine, other in zip(target.fully_connected(), source.fully_connected(), strict=True):
        assert torch.equal(mine.weight, other.weight)


def test_a_start_of_another_size_is_refused():
    with pytest.raises(WeightsError, match="width, classes and crop size"):
        transfer(small("D"), build("A", 1 / 8, 10, 32, hidden_width=1 / 64), dataclasses.replace(TINY, transfer="grow"))
    with pytest.raises(WeightsError, match="needs the same network"):
        transfer(small("D"), small("A"), dataclasses.replace(TINY, transfer="all"))


def test_the_learning_rate_drops_on_a_plateau_and_training_ends_after_the_last_drop(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "dense_error", lambda *_: 50.0)
    recipe = dataclasses.replace(TINY, epochs=50, drop_after=(), patience=2, drops=2)
    loop.train(recipe, pictures, pictures, tmp_path)
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    # The first epoch sets the best error, two stale ones make a drop.
    assert rates == pytest.approx([1e-2] * 3 + [1e-3] * 2 + [1e-4] * 2)


def test_frozen_convolutions_do_not_change(pictures, tmp_path):
    start = loop.train(TINY, pictures, pictures, tmp_path / "start")
    recipe = dataclasses.replace(TINY, freeze_convolutions=True, epochs=1)
    loop.train(recipe, pictures, pictures, tmp_path / "tuned", start=start)
    before, after = (state_of(tmp_path / name / "weights.safetensors") for name in ("start", "tuned"))
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("features"))
    assert not equal(before, after)


def test_bf16_trains_too(pictures, tmp_path):
    weights = loop.train(dataclasses.replace(TINY, precision="bf16", epochs=1), pictures, pictures, tmp_path)
    assert all(torch.isfinite(tensor).all() for tensor in state_of(weights.path).values())


def test_a_diverging_run_says_what_to_do(pictures, tmp_path):
    with pytest.raises(UsageError, match="Lower --learning-rate"):
        loop.train(dataclasses.replace(TINY, learning_rate=1e12, epochs=9), pictures, pictures, tmp_path)


def test_a_last_step_that_diverges_leaves_no_weights(pictures, tmp_path):
    recipe = dataclasses.replace(TINY, initialization="he", input_scale=1.0, learning_rate=1e38, epochs=1, batch=24)
    with pytest.raises(UsageError, match=r"has values that are not finite\. Lower --learning-rate"):
        loop.train(recipe, pictures, pictures, tmp_path)
    assert not (tmp_path / "weights.safetensors").exists()


def test_an_output_folder_that_takes_no_weights_is_told(pictures, tmp_path):
    (tmp_path / "weights.safetensors").mkdir()
    with pytest.raises(StorageError, match=r"cannot write the weights .* goes on from the checkpoint"):
        loop.train(dataclasses.replace(TINY, epochs=1), pictures, pictures, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initialization": "xavier"}, "No initialization 'xavier'. Known: gaussian"),
        ({"transfer": "half"}, "No transfer 'half'"),
        ({"train_scale": "wide"}, "Training scale 'wide'"),
        ({"train_scale": "128"}, "S is at least the crop"),
        ({"train_scale": "[512;256]"}, "the smaller one first"),
        ({"batch": 0}, "batch 0: at least 1"),
        ({"width": -1.0}, r"width -1\.0: accepted are numbers above 0"),
        ({"learning_rate": float("nan")}, "learning_rate nan: accepted are numbers above 0"),
        ({"init_std": 0.0}, "init_std 0"),
        ({"momentum": 1.0}, "momentum 1.0: accepted are numbers from 0 to below 1"),
        ({"dropout": 2.0}, "dropout 2.0: accepted are numbers from 0 to below 1"),
        ({"weight_decay": -1e-4}, "weight_decay -0.0001: accepted are numbers from 0 on"),
        ({"dropout_from": -1}, "dropout_from -1"),
        ({"seed": 2**32}, "seed 4294967296: accepted are whole numbers from 0 to 4,294,967,295"),
    ],
)
def test_a_wrong_recipe_is_one_line(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(TINY, **change)


def test_learning_rate_drops_are_read_from_rising_numbers():
    assert drops_from("5,7") == (5, 7)
    assert drops_from("") == ()
    for wrong in ("x", "7,5", "0"):
        with pytest.raises(UsageError, match=r"rising numbers|accepted are numbers"):
            drops_from(wrong)


def test_both_sides_of_every_training_comparison_get_the_same_epochs_and_rates():
    by_name = {stage.name: stage for stage in family.stages(0)}

    def schedule(name):
        stage = by_name[name]
        own = (stage.recipe.epochs, stage.recipe.drop_after, stage.recipe.learning_rate)
        return [*(schedule(stage.start) if stage.start else []), own]

    for group in (
        ("A-256", "A-LRN-256", "B-256", "C-256", "D-256", "E-256"),
        tuple(f"{n}-{s}" for n in "CDE" for s in ("384", "256-512")),
    ):
        assert len({json.dumps(schedule(name)) for name in group}) == 1
    for name in "CDE":
        assert by_name[f"{name}-384"].start == by_name[f"{name}-256-512"].start
