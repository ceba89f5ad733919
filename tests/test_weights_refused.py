"""Weights files that cannot be used: one line that names the file, and nothing left behind."""

import io
import pickle
import random
import tarfile
import zipfile

import caffe_files as caffe
import numpy as np
import pytest
import torch
from weights_files import CONTAINERS, FULL, write

from vgg_reference.weights import random_weights, read_weights, state_dict
from vggbench import paper_models, weights, weights_convert
from vggbench.errors import UsageError, WeightsError

pytestmark = pytest.mark.usefixtures("own_cache")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def zipped(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def bad_files(folder, state):
    """name -> (file, words of the refusal)."""
    evil, victim = folder / "evil.pth", folder / "made by a pickle"
    torch.save({"features.0.weight": Evil(victim)}, evil)
    raw = folder / "raw.pth"
    raw.write_bytes(pickle.dumps(Evil(victim), protocol=2))
    yield evil, "its pickle asks to run"
    yield raw, "its pickle asks to run"
    escaping = folder / "escaping.npz"
    zipped(escaping, {"../../outside.npy": npy(np.zeros(3))})
    yield escaping, "lies outside of its folder"
    absolute = folder / "absolute.pth"
    zipped(absolute, {"/etc/made.pkl": b"x", "data.pkl": b"x"})
    yield absolute, "lies outside of its folder"
    archive = folder / "w.tar"
    with tarfile.open(archive, "w") as file:
        info = tarfile.TarInfo("../../outside")
        file.addfile(info)
    yield archive, "an archive"
    lying = folder / "lying.npz"
    head = npy(np.zeros(4, np.float32)).replace(b"(4,), }", b"(4000000000000,), }")
    zipped(lying, {"conv1_1_W.npy": head})
    yield lying, "4000000000000"
    objects = folder / "objects.npz"
    zipped(objects, {"conv1_1_W.npy": npy(np.array([{}], dtype=object))})
    yield objects, "object"
    endless = folder / "endless.pth"
    torch.save({"features.0.weight": torch.zeros(1).expand(10**12)}, endless)
    yield endless, "more than the file has"
    whole = folder / "whole.pth"
    torch.save(state, whole)
    for share in (0.3, 0.9):
        cut = folder / f"cut{share}.pth"
        cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
        yield cut, "damaged"
    model = folder / "model.pth"
    torch.save([1, 2], model)
    yield model, "no state dict"
    mixed = folder / "mixed.pth"
    torch.save({**state, "epoch": 3}, mixed)
    yield mixed, "'epoch' of its state dict is int"
    text = folder / "notes.txt"
    text.write_text("no weights")
    yield text, "not a .caffemodel"
    for name, change, words in (
        ("misshapen", {"features.5.bias": torch.zeros(5)}, "features.5.bias is (5,)"),
        ("infinite", {"features.5.bias": state["features.5.bias"] * float("nan")}, "not finite"),
        ("narrow", {"classifier.0.weight": torch.zeros(64, 5)}, "no square of positions"),
        ("shrunk", {"features.28.weight": torch.zeros(32, 32, 1, 1)}, "do not fit any of"),
    ):
        path = folder / f"{name}.pth"
        torch.save({**state, **change}, path)
        yield path, words
    gap = folder / "gap.pth"
    torch.save({key: tensor for key, tensor in state.items() if key != "classifier.3.bias"}, gap)
    yield gap, "classifier.3.bias is absent"


@pytest.mark.skipif(FULL, reason="of small files only")
def test_files_that_cannot_be_used_are_refused_in_one_line_and_leave_nothing(tmp_path, states):
    given = tmp_path / "given"
    given.mkdir()
    for path, words in bad_files(given, states("D")):
        before = sorted(each.name for each in given.iterdir())
        with pytest.raises(WeightsError) as error:
            weights_convert.convert(path, tmp_path / "out" / "out.safetensors", preprocess="paper-rgb")
        assert words in str(error.value), path.name
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
        assert sorted(each.name for each in given.iterdir()) == before
        assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("version", [1, 2])
def test_damaged_caffemodels_are_refused_by_name(tmp_path, states, version):
    layers = caffe.as_caffe(states("D"), "D")
    path = tmp_path / "d.caffemodel"

    def refusal():
        with pytest.raises(WeightsError) as error:
            weights_convert.convert(path, tmp_path / "out.safetensors")
        assert "\n" not in str(error.value)
        return str(error.value)

    whole = caffe.write_caffemodel(path, layers, version).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refusal()
    caffe.write_caffemodel(path, {**layers, "fc8_flickr": layers["fc8"]}, version)
    assert "fc8_flickr" in refusal()
    caffe.write_caffemodel(path, {name: pair for name, pair in layers.items() if name != "fc7"}, version)
    assert "fc7 is absent" in refusal()
    caffe.write_caffemodel(path, {**layers, "conv3_2": (layers["conv3_2"][0][:, :5], layers["conv3_2"][1])}, version)
    assert "features.12.weight is" in refusal()


def test_a_wrong_digest_is_refused_by_name(tmp_path, states):
    path = write(tmp_path / "d.caffemodel", "caffemodel1", states("D"), "D")
    with pytest.raises(WeightsError, match=r"is not VGG_ILSVRC_16_layers: its sha1 is \w{40}, published is 9363e1f6"):
        weights.verify(path, paper_models.by_name("VGG_ILSVRC_16_layers"))


def test_the_file_itself_is_never_written_over(tmp_path, states):
    path = write(tmp_path / "w.safetensors", "safetensors", states("D"), "D")
    with pytest.raises(UsageError, match="is the file to convert"):
        weights_convert.convert(path, path, preprocess="paper-rgb")


@pytest.mark.skipif(FULL, reason="of small files only")
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_mutated_file_is_converted_or_refused_in_one_line(tmp_path, container):
    state = dict(state_dict(random_weights("A", 3, width=1 / 32, hidden_width=1 / 256, num_classes=3, crop_size=32)))
    whole = write(tmp_path / "whole", container, state, "A")
    whole = whole if whole.exists() else whole.with_suffix(".npz")  # numpy adds it
    path, out, dice = tmp_path / "mutated", tmp_path / "out.safetensors", random.Random(0)
    refused = 0
    for _ in range(150):
        data = bytearray(whole.read_bytes())
        for _ in range(dice.choice([1, 1, 2, 8])):
            at = dice.randrange(min(len(data), dice.choice([64, 600, 10**9])))
            length = dice.randrange(1, 9)
            if dice.random() < 0.5:
                data[at : at + length] = dice.randbytes(length)
            else:
                del data[at : at + dice.choice([length, len(data) // 2])]
        path.write_bytes(data)
        try:
            weights_convert.convert(path, out, preprocess="paper-bgr")
        except WeightsError as error:
            refused += str(error).count("\n") == 0
            continue
        assert read_weights(out).network == "A"
        refused += 1
    assert refused == 150


def test_a_file_that_says_all_of_itself_is_not_converted_again(tmp_path, states):
    path = write(tmp_path / "d.caffemodel", "caffemodel1", states("D"), "D")
    weights_convert.convert(path, tmp_path / "d.safetensors")
    with pytest.raises(UsageError, match=r"d\.safetensors: says all of itself already"):
        weights_convert.convert(tmp_path / "d.safetensors", tmp_path / "out.safetensors", preprocess="torchvision")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_misspelled_tensor_is_refused(tmp_path, states):
    state = dict(states("A"))
    state["features.0.wEight"] = state.pop("features.0.weight")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="do not fit any of"):
        weights_convert.convert(tmp_path / "w.pth", tmp_path / "out.safetensors", preprocess="paper-bgr")
