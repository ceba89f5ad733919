"""Workers that share a batch's parts train, in FP32, the network that one worker trains: to the last bit."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from vggbench.images import sample
from vggbench.train import crops, loop, parallel
from vggbench.train.recipe import Recipe

IMAGES = 25
#: Batches of 10, 10 and 5 images; every epoch without a better tuning error drops the learning rate.
RECIPE = {
    "network": "A", "train_scale": "[256;512]", "width": 1 / 16, "hidden_width": 1 / 64, "crop_size": 32, "batch": 10,
    "input_scale": 1 / 64, "epochs": 9, "patience": 2, "dropout": 0.5, "initialization": "he", "parts": 2,
    "learning_rate": 0.02,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sample.prepare("train", tmp_path_factory.mktemp("sample"), count=IMAGES, workers=1)


@pytest.fixture
def trained(processes, folder, tmp_path):
    """Trains so many steps with so many workers; the checkpoint."""

    def run(name: str, world: int, fault: str | None = None, steps: int = 20, **changes):
        task = {"folder": folder, "output": tmp_path / name, "steps": steps, "fault": fault}
        assert processes.run(world=world, recipe={**RECIPE, **changes}, **task) == [0] * world
        return torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)

    return run


def difference(one, other):
    """The largest of all parameters, relative to the tensor's largest value."""
    pairs = [(one["model"][name], other["model"][name]) for name in one["model"]]
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def momenta(checkpoint):
    """After the first step, and without weight decay, the gradients."""
    return [state["momentum_buffer"] for _, state in sorted(checkpoint["optimizer"]["state"].items())]


@pytest.mark.parametrize("network", ["A", "D"])
def test_two_workers_train_what_one_trains(trained, network):
    one, two = (trained(f"{world}", world, network=network) for world in (1, 2))
    assert difference(one, two) == 0.0
    assert all(torch.equal(a, b) for a, b in zip(momenta(one), momenta(two), strict=True))
    assert one["state"] == two["state"], "tuning errors and the schedule's decisions among it"
    assert one["state"]["epoch"] == 6
    assert one["state"]["history"][-1]["training_loss"] < one["state"]["history"][0]["training_loss"]


def test_any_workers_that_divide_the_parts_go_on_where_others_stopped(trained):
    whole = trained("one", 1, steps=12, parts=6)
    trained("other", 3, steps=4, parts=6)
    trained("other", 1, steps=3, parts=6)
    assert difference(whole, trained("other", 2, steps=5, parts=6)) == 0.0


@pytest.mark.parametrize("fault", ["seeds by worker", "rows of another worker", "any order"])
def test_parts_dealt_seeded_or_added_wrongly_are_seen(trained, fault):
    right, wrong = trained("one", 1, parts=6), trained("two", 2, parts=6, fault=fault)
    assert difference(right, wrong) > (0.0 if fault == "any order" else 0.05)


def test_every_number_of_workers_has_the_gradient_of_its_parts_computed_by_hand(trained, folder, tmp_path):
    recipe = Recipe(**{**RECIPE, "parts": 6, "weight_decay": 0.0})
    one = trained("1", 1, steps=1, parts=6, weight_decay=0.0)
    for world in (2, 3, 6):
        # Of so small a network all values fit into one piece.
        many = trained(f"{world}", world, "small pieces" if world == 3 else None, steps=1, parts=6, weight_decay=0.0)
        assert all(torch.equal(a, b) for a, b in zip(momenta(one), momenta(many), strict=True)), world
    for mine, found in zip(by_hand(folder, recipe), momenta(one), strict=True):
        assert torch.allclose(mine, found, rtol=0, atol=1e-6 * float(found.abs().max()))


def by_hand(folder, recipe):
    """The first step's gradients: every image's part looked up, the parts' losses added up before backward."""
    inputs, labels, model = first_batch(folder, recipe)
    part_of = [max(part for part in range(6) if row >= 10 * part // 6) for row in range(10)]
    loss = 0.0
    for part in range(6):
        rows = [row for row in range(10) if part_of[row] == part]
        torch.manual_seed(parallel.seed_of(1_000_003, part))
        scores = model(inputs[rows].contiguous(memory_format=torch.channels_last))
        loss = loss + functional.cross_entropy(scores, labels[rows], reduction="sum") / 10
    loss.backward()
    return [parameter.grad for parameter in model.parameters()]


def first_batch(folder, recipe):
    paths = sorted(folder.glob("*.jpg"))
    source = crops.Pictures(paths, recipe, 0)
    colour = crops.colour_of([source.original(index) for index in range(IMAGES)])
    labels = np.arange(IMAGES, dtype=np.int64) % 7
    inputs, labels = next(crops.batches(source, labels, recipe, colour, 0))
    model = loop._model(recipe, 7).to(memory_format=torch.channels_last)
    return torch.from_numpy(inputs), torch.from_numpy(labels), loop.initialize(model, recipe)


def test_without_dropout_the_gradient_of_the_parts_is_that_of_the_whole_batch(trained):
    options = {"steps": 1, "dropout": 0.0, "weight_decay": 0.0}
    whole, parts = trained("whole", 1, parts=1, **options), trained("parts", 2, parts=2, **options)
    for a, b in zip(momenta(whole), momenta(parts), strict=True):
        assert float((a - b).abs().max()) <= 1e-5 * float(a.abs().max())
