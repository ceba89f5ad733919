"""A batch in parts: one part is a plain loop; seeds, dealing, threads; checkpoints and provenance name the parts."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vgg_reference.weights import load, read_weights
from vggbench import runs_train
from vggbench.distributed import ALONE, Group
from vggbench.errors import UsageError
from vggbench.images import sample
from vggbench.train import checkpoint, crops, labelled, loop, parallel
from vggbench.train.initialize import initialize
from vggbench.train.recipe import Recipe

TINY = Recipe(
    "A", width=1 / 16, hidden_width=1 / 64, crop_size=32, batch=8, input_scale=1 / 64, epochs=2, drop_after=(1,),
    initialization="he",
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """20 training images of the sample set: batches of 8, 8 and 4."""
    folder = sample.prepare("train", tmp_path_factory.mktemp("sample"), count=20, workers=1)
    paths = tuple(folder / f"{index:05d}.jpg" for index in range(20))
    return labelled.Labelled(paths, np.arange(20, dtype=np.int64) % 60, 60, "sample-20")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "changes", [{}, {"network": "D", "train_scale": "[256;512]", "seed": 3}, {"precision": "bf16"}]
)
def test_one_part_takes_the_steps_of_a_plain_loop_to_the_last_bit(images, tmp_path, changes):
    recipe = dataclasses.replace(TINY, **changes)
    losses = []
    weights = loop.train(
        recipe, images, images, tmp_path, progress=lambda state, _: losses.append((state.loss_sum, state.seen))
    )
    model, expected = plain_loop(recipe, images)
    found = load(weights).state_dict()
    assert losses == expected
    assert all(torch.equal(tensor, found[name]) for name, tensor in model.state_dict().items())
    assert "part" not in weights.recipe


def plain_loop(recipe, images):
    """Section 3.1 as a tutorial would write it: the network, and after every step the sum of losses and the images."""
    source = crops.Pictures(images.paths, recipe, 0)
    colour = crops.colour_of([source.original(index) for index in range(len(source))])
    model = initialize(loop._model(recipe, 60).to(memory_format=torch.channels_last), recipe)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    step, losses = 0, []
    for epoch, rate in enumerate((0.01, 0.001)):
        optimizer.param_groups[0]["lr"] = rate
        total, seen = 0.0, 0
        for inputs, labels in crops.batches(source, images.labels, recipe, colour, epoch):
            torch.manual_seed(1_000_003 * (recipe.seed + 1) + step)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
                scores = model(torch.from_numpy(inputs).contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(scores.float(), torch.from_numpy(labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step, total, seen = step + 1, total + loss.item() * len(labels), seen + len(labels)
            losses.append((total, seen))
    return model, losses


def test_parts_change_the_masks_and_nothing_else(images, tmp_path):
    def last(name, **changes):
        recipe = dataclasses.replace(TINY, epochs=1, **changes)
        return load(loop.train(recipe, images, images, tmp_path / name)).state_dict()

    def apart(one, other):
        return max(float((one[name] - other[name]).abs().max() / one[name].abs().max()) for name in one)

    assert apart(last("one", dropout=0.0), last("four", dropout=0.0, parts=4)) < 1e-4
    assert apart(last("1"), last("4", parts=4)) > 1e-2


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12))
def test_every_part_is_dealt_to_one_worker_in_order(each, world):
    found = [part for rank in range(world) for part in parallel.dealt(each * world, Group(rank, world, world))]
    assert found == list(range(each * world))


def test_parts_that_workers_cannot_share_are_refused_in_one_line(images, tmp_path):
    recipe = dataclasses.replace(TINY, parts=3)
    with pytest.raises(UsageError, match=r"3 parts .* 2 workers alike\. Accepted are multiples of 2;") as raised:
        loop.train(recipe, images, images, tmp_path, group=Group(0, 2, 2))
    assert "\n" not in str(raised.value)
    for parts in (0, 9):
        with pytest.raises(UsageError, match=f"{parts} parts of a batch: accepted are 1 to 8"):
            dataclasses.replace(TINY, parts=parts)


def test_no_two_parts_of_nearby_steps_draw_the_same_masks():
    seeds = [parallel.seed_of(1_000_003 + step, part) for step in range(500) for part in range(16)]
    assert len({seed % 2**32 for seed in seeds}) == len(seeds), "torch takes no more bits on a CPU"
    assert [parallel.seed_of(7, part) for part in range(3)] == [7, 369571992, 1009178997], "numpy keeps its streams"


def test_another_number_of_parts_is_refused_and_the_begun_one_is_found(images, tmp_path):
    assert checkpoint.parts_in(tmp_path) is None
    loop.train(dataclasses.replace(TINY, parts=2), images, images, tmp_path, stop_after_batches=1)
    assert checkpoint.parts_in(tmp_path) == 2
    with pytest.raises(UsageError, match=r"belongs to another run \(differs in recipe: parts 2, here 4\)\. ") as raised:
        loop.train(dataclasses.replace(TINY, parts=4), images, images, tmp_path)
    assert "\n" not in str(raised.value)


def test_a_checkpoint_from_before_there_were_parts_goes_on_as_one_part(images, tmp_path):
    whole = loop.train(TINY, images, images, tmp_path / "whole")
    loop.train(TINY, images, images, tmp_path / "old", stop_after_batches=4)
    path = tmp_path / "old" / "checkpoint.pt"
    found = torch.load(path, weights_only=True)
    del found["identity"]["recipe"]["parts"], found["state"]["threads"]
    torch.save(found, path)
    assert checkpoint.parts_in(tmp_path / "old") == 1
    assert loop.train(TINY, images, images, tmp_path / "old").digest == whole.digest


def test_workers_that_cannot_share_the_parts_of_a_begun_run_are_told_how_many_can(images, tmp_path):
    loop.train(TINY, images, images, tmp_path, stop_after_batches=1)
    assert runs_train._parts(None, tmp_path, ALONE) == 1
    with pytest.raises(
        UsageError, match=r"begun with batches in 1 part, which 2 workers cannot share alike\."
    ) as raised:
        runs_train._parts(None, tmp_path, Group(0, 2, 2))
    assert "\n" not in str(raised.value)
    assert runs_train._parts(None, tmp_path / "new", Group(0, 2, 2)) == 2


def test_weights_say_how_many_parts_and_threads_made_them(images, tmp_path):
    recipe = dataclasses.replace(TINY, parts=2)
    loop.train(recipe, images, images, tmp_path, stop_after_batches=4)
    torch.set_num_threads(2)
    weights = loop.train(recipe, images, images, tmp_path)
    told = read_weights(tmp_path / "weights.safetensors").recipe
    assert told == weights.recipe
    assert told.endswith("parts 2; threads a part: 1 or 2")


@pytest.mark.parametrize(
    ("parts", "group", "threads"),
    [
        (1, ALONE, None),
        (2, ALONE, 8),
        (2, Group(1, 2, 2), 8),
        (4, Group(1, 2, 2), 4),
        (4, Group(3, 4, 1), 16),
        (32, Group(3, 4, 4), 1),
    ],
)
def test_a_part_has_its_share_of_all_cores_whoever_computes_it(monkeypatch, parts, group, threads):
    monkeypatch.setattr(runs_train, "default_threads", lambda: 16)
    assert runs_train.threads_each(parts, group) == threads
