"""Weights: round trips, identity, and one line for every file that cannot be used."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vgg_reference.weights import (
    METADATA_KEY,
    PREPROCESSING,
    BadWeights,
    digest_of,
    load,
    random_weights,
    read_weights,
    save_weights,
    state_dict,
)
from vggbench import weights as weights_module
from vggbench.errors import UsageError, WeightsError
from vggbench.weights import list_weights, resolve

SMALL = {"width": 1 / 16, "hidden_width": 1 / 64, "num_classes": 7, "crop_size": 32}


@pytest.fixture
def saved(tmp_path):
    made = random_weights("A", 3, **SMALL)
    made = dataclasses.replace(made, name="made", train_scale="[256;512]", recipe="a test")
    return save_weights(tmp_path / "a.safetensors", state_dict(made), made)


def rewrite(path, change):
    """The file again with its tensors and metadata changed in place by ``change(state, metadata)``."""
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
    state = load_file(path)
    change(state, metadata)
    save_file(state, path, metadata=metadata)


def one_line(error):
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def test_a_saved_file_says_all_about_itself(saved):
    assert read_weights(saved.path) == saved
    assert resolve(saved.path, "A") == saved


def test_loaded_tensors_equal_the_saved_ones(saved):
    model = load(read_weights(saved.path))
    for name, tensor in state_dict(random_weights("A", 3, **SMALL)).items():
        assert torch.equal(model.state_dict()[name], tensor)


@pytest.mark.parametrize("words", [0, 1, 7, 50])
def test_logits_do_not_depend_on_how_long_the_header_is(tmp_path, words):
    """Memory of a mapped file begins anywhere; on some CPUs that decides the order of additions."""
    made = dataclasses.replace(random_weights("A", 3, **SMALL), recipe="a word " * words)
    found = load(save_weights(tmp_path / "a.safetensors", state_dict(made), made))
    assert all(tensor.data_ptr() % 64 == 0 for tensor in found.state_dict().values())
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(found(image), load(random_weights("A", 3, **SMALL))(image))


def test_saving_leaves_no_temporary_file(saved, tmp_path):
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_digest_depends_on_the_tensors_only(saved, tmp_path):
    state = load_file(saved.path)
    shuffled = {name: state[name] for name in reversed(state)}
    assert digest_of(shuffled) == saved.digest
    other = save_weights(tmp_path / "other.safetensors", shuffled, dataclasses.replace(saved, name="another name"))
    assert other.digest == saved.digest
    shuffled["classifier.6.bias"] = shuffled["classifier.6.bias"] + 1e-3
    assert digest_of(shuffled) != saved.digest


def test_the_digest_takes_scalars():
    assert digest_of({"n": torch.tensor(1)}) != digest_of({"n": torch.tensor(2)})
    assert digest_of({"n": torch.tensor(1)}) != digest_of({"n": torch.tensor([1])})


def test_random_weights_are_decided_by_their_seed():
    first, second, other = (state_dict(random_weights("A", seed, **SMALL)) for seed in (0, 0, 1))
    assert digest_of(first) == digest_of(second) != digest_of(other)


def test_random_weights_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    load(random_weights("B", 0, batch_norm=True, **SMALL))
    assert torch.equal(before, torch.random.get_rng_state())


def test_random_weights_are_he_initialized():
    state = state_dict(random_weights("D", 0, width=1 / 4, hidden_width=1 / 8, crop_size=64))
    weight = state["features.24.weight"]
    assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.01)
    assert not state["features.24.bias"].any()


def test_every_property_of_random_weights_is_in_their_digest():
    base = random_weights("A", 0, **SMALL)
    for change in (
        {"width": 1 / 8},
        {"hidden_width": 1 / 8},
        {"num_classes": 8},
        {"crop_size": 64},
        {"batch_norm": True},
    ):
        assert random_weights("A", 0, **{**SMALL, **change}).digest != base.digest


def test_a_file_of_another_network_is_refused(saved):
    with pytest.raises(WeightsError) as error:
        resolve(saved.path, "D")
    assert "holds network A, asked was D" in one_line(error)


def test_a_file_with_another_class_count_is_refused(saved):
    with pytest.raises(WeightsError) as error:
        resolve(saved.path, "A", num_classes=1000)
    assert "7 classes, the data has 1000" in one_line(error)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(WeightsError) as error:
            resolve(str(path), "A")
        assert "no such weights file" in one_line(error)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 a pickle in a zip", b"\xff" * 4096])
def test_a_file_of_another_format_is_refused(tmp_path, data):
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError) as error:
        resolve(str(path), "A")
    assert "not a safetensors file" in one_line(error)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved, share):
    data = Path(saved.path).read_bytes()
    with open(saved.path, "wb") as file:
        file.write(data[: int(len(data) * share)])
    with pytest.raises(WeightsError) as error:
        resolve(saved.path, "A")
    assert "not a safetensors file" in one_line(error)


def test_an_altered_tensor_is_noticed(saved):
    rewrite(saved.path, lambda state, metadata: state["features.0.weight"][0, 0, 0].add_(1))
    with pytest.raises(WeightsError) as error:
        resolve(saved.path, "A")
    assert "do not match the digest" in one_line(error)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_refused_by_name(saved, value):
    rewrite(saved.path, lambda state, metadata: state["classifier.3.weight"][1, 2].fill_(value))
    with pytest.raises(WeightsError) as error:
        resolve(saved.path, "A")
    assert "classifier.3.weight has values that are not finite" in one_line(error)


def test_a_missing_and_a_misshapen_tensor_are_refused_by_name(saved):
    original = Path(saved.path).read_bytes()
    rewrite(saved.path, lambda state, metadata: state.pop("features.3.bias"))
    with pytest.raises(WeightsError, match=r"features\.3\.bias is absent"):
        resolve(saved.path, "A")
    with open(saved.path, "wb") as file:
        file.write(original)
    rewrite(saved.path, lambda state, metadata: state.update({"features.3.bias": torch.zeros(5)}))
    with pytest.raises(WeightsError, match=r"features\.3\.bias is \(5,\), expected \(8,\)"):
        resolve(saved.path, "A")


@pytest.mark.parametrize(
    "change",
    [
        {"network": "F"},
        {"width": "wide"},
        {"crop_size": 50},
        {"preprocess": None},
        {"preprocess": {"order": "RGB"}},
        {"num_classes": -1},
    ],
)
def test_metadata_that_make_no_sense_are_refused(saved, change):
    def alter(state, metadata):
        metadata[METADATA_KEY] = json.dumps({**json.loads(metadata[METADATA_KEY]), **change})

    rewrite(saved.path, alter)
    with pytest.raises(BadWeights) as error:
        read_weights(saved.path)
    assert saved.path in one_line(error)


def test_metadata_of_a_later_version_may_have_more_keys(saved):
    def alter(state, metadata):
        metadata[METADATA_KEY] = json.dumps({**json.loads(metadata[METADATA_KEY]), "colour": "red"})

    rewrite(saved.path, alter)
    assert read_weights(saved.path) == saved


def test_a_foreign_file_needs_its_preprocessing(saved):
    rewrite(saved.path, lambda state, metadata: metadata.clear())
    with pytest.raises(WeightsError) as error:
        resolve(saved.path, "A")
    assert all(name in one_line(error) for name in PREPROCESSING)
    with pytest.raises(WeightsError, match="does not fit network A"):
        resolve(saved.path, "A", preprocess="torchvision")  # a foreign file is of a full-size network


def test_unknown_names_are_refused_in_one_line(saved):
    for call, known in (
        (lambda: resolve("random:0", "F"), "shallow-B"),
        (lambda: resolve(saved.path, "A", preprocess="gray"), "paper-bgr"),
        (lambda: resolve("random:x", "A"), "random:0"),
        (lambda: resolve("random:", "A"), "random:0"),
        (lambda: resolve("random:-1", "A"), "random:0"),
        (lambda: resolve("random:0", "A", crop_size=100), "multiples of 32"),
    ):
        with pytest.raises(UsageError) as error:
            call()
        assert known in one_line(error)


def test_random_weights_are_full_size_unless_told_otherwise():
    full = resolve("random:5", "E")
    assert (full.seed, full.width, full.num_classes, full.crop_size) == (5, 1.0, 1000, 224)
    assert resolve("random:5", "E", num_classes=60, crop_size=64, width=1 / 8).num_classes == 60


def test_sample_means_the_jittered_file_else_the_small_fixed_scale(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "SAMPLE_FAMILY", tmp_path)
    made = random_weights("A", 3, **SMALL)
    with pytest.raises(WeightsError) as error:
        resolve("sample", "A")
    assert "Shipped: none" in one_line(error)
    for scale, written in (("256", "A-256"), ("[256;512]", "A-256-512")):
        described = dataclasses.replace(made, train_scale=scale, status="sample")
        save_weights(tmp_path / f"{written}.safetensors", state_dict(made), described)
        assert resolve("sample", "A").train_scale == scale
    assert resolve("sample", "A", train_scale="256").train_scale == "256"
    with pytest.raises(WeightsError, match=r"No sample weights A-384. Shipped: A-256, A-256-512"):
        resolve("sample", "A", train_scale="384")
    listed = [row for row in list_weights() if row["name"] == "sample"]
    assert [row["train_scale"] for row in listed] == ["256", "[256;512]"]
    assert all(row["digest"] == resolve("sample", "A").digest for row in listed)


def test_shipped_weights_can_all_be_read():
    for path in sorted(weights_module.SAMPLE_FAMILY.glob("*.safetensors")):
        found = read_weights(path)
        assert path.stem == f"{found.network}-{found.train_scale.strip('[]').replace(';', '-')}"
        assert found.status == "sample"


def test_the_list_is_json_and_names_the_public_models():
    rows = json.loads(json.dumps(list_weights()))
    assert {row["name"] for row in rows if row["status"] == "authors"} == {
        "VGG_ILSVRC_16_layers",
        "VGG_ILSVRC_19_layers",
    }
    assert not any(row["available"] for row in rows if row["status"] in ("authors", "other"))
