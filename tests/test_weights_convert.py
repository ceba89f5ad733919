"""Converted weights: bit-equal from every container, known by their digest, and one line for what cannot be used.

VGGBENCH_FULL_SIZE=1 writes full-size networks (0.6 GB a file) instead of small ones.
"""

import dataclasses
import hashlib
import io
import json
import os
import pickle
import random
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from tests import caffe_files as caffe
from vgg_reference.weights import PREPROCESSING, digest_of, load, random_weights, read_weights, state_dict
from vggbench import paper_models, weights, weights_convert
from vggbench.cli import app
from vggbench.errors import BackendUnavailable, UsageError, WeightsError

FULL = bool(os.environ.get("VGGBENCH_FULL_SIZE"))
SIZE = {} if FULL else {"width": 1 / 16, "hidden_width": 1 / 64, "num_classes": 7, "crop_size": 64}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def states():
    """Network -> its state dict, with biases that are not all zero."""
    made: dict[str, dict[str, torch.Tensor]] = {}

    def of(network):
        if network not in made:
            state = dict(state_dict(random_weights(network, 3, **SIZE)))
            generator = torch.Generator().manual_seed(5)
            for name in state:
                if name.endswith("bias"):
                    state[name] = torch.randn(state[name].shape, generator=generator)
            made[network] = state
        return made[network]

    return of


def channels_last(state, network):
    """As TensorFlow has it: (k, k, in, out), and fc6's inputs in the order row, column, channel."""
    arrays = {}
    for name, place in caffe.names(network):
        weight, bias = (state[f"{place}.{part}"].numpy() for part in ("weight", "bias"))
        if name == "conv1_1":
            weight = weight[:, ::-1]
        if name.startswith("conv"):
            weight = weight.transpose(2, 3, 1, 0)
        elif name == "fc6":
            channels = state[caffe.names(network)[-4][1] + ".bias"].numel()
            side = int((weight.shape[1] // channels) ** 0.5)
            weight = weight.reshape(-1, channels, side, side).transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])
        else:
            weight = weight.T
        arrays[name] = (weight, bias)
    return arrays


def bgr(state):
    return {**state, "features.0.weight": state["features.0.weight"][:, [2, 1, 0]].contiguous()}


def write(path, container, state, network):
    """A file of the container's kind that expects BGR, as the authors' models do."""
    if container.startswith("caffemodel"):
        caffe.write_caffemodel(path, caffe.as_caffe(state, network), int(container[-1]))
    elif container == "pth":
        torch.save(bgr(state), path)
    elif container == "old pth":
        rename = {"classifier.0.": "classifier.1.", "classifier.3.": "classifier.4."}
        old = {
            next((new + name[len(was) :] for was, new in rename.items() if name.startswith(was)), name): tensor
            for name, tensor in bgr(state).items()
        }
        torch.save(
            {"state_dict": {f"module.{k}": v for k, v in old.items()}}, path, _use_new_zipfile_serialization=False
        )
    elif container == "safetensors":
        save_file(bgr(state), path)
    else:
        np.savez(
            path,
            **{
                f"{n}_{p}": a
                for n, pair in channels_last(state, network).items()
                for p, a in zip("Wb", pair, strict=True)
            },
        )
    return path


CONTAINERS = ["caffemodel1", "caffemodel2", "pth", "safetensors", "old pth", "npz"]


@pytest.mark.parametrize("network", ["D", "E"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_weights_bit_for_bit_and_the_same_logits(tmp_path, states, network, container):
    state = states(network)
    suffix = {"old pth": "pth"}.get(container, container.rstrip("12"))
    path = write(tmp_path / f"given.{suffix}", container, state, network)
    found = weights_convert.convert(path, tmp_path / "out.safetensors", preprocess="paper-bgr")
    assert (found.network, found.status, found.preprocess) == (network, "other", PREPROCESSING["paper-rgb"])
    assert found == read_weights(tmp_path / "out.safetensors", network)
    assert found.digest == digest_of(state)
    for name, tensor in state_dict(found).items():
        assert torch.equal(tensor, state[name]), name
    image = torch.randn(1, 3, found.crop_size, found.crop_size, generator=torch.Generator().manual_seed(0))
    expected = random_weights(network, 3, **SIZE)
    with torch.inference_mode():
        model = load(expected)
        model.load_state_dict(state)
        assert torch.equal(load(found)(image), model(image))


@pytest.mark.parametrize("network", ["A", "B", "C", "shallow-B"])
def test_the_network_is_found_from_the_convolutions(tmp_path, states, network):
    for container in ("caffemodel2", "pth"):
        path = write(tmp_path / "w", container, states(network), network)
        found = weights_convert.convert(path, tmp_path / "out.safetensors", preprocess="paper-bgr")
        assert (found.network, found.digest) == (network, digest_of(states(network)))


def test_a_network_with_lrn_is_meant_only_when_asked(tmp_path, states):
    path = caffe.write_caffemodel(tmp_path / "a.caffemodel", caffe.as_caffe(states("A"), "A"), 1)
    assert weights_convert.convert(path, tmp_path / "out.safetensors").network == "A"
    found = weights_convert.convert(path, tmp_path / "lrn.safetensors", network="A-LRN")
    assert (found.network, set(state_dict(found))) == ("A-LRN", set(state_dict(random_weights("A-LRN", 0, **SIZE))))


def test_batch_normalization_comes_along(tmp_path):
    made = random_weights("A", 1, batch_norm=True, **SIZE)
    state = state_dict(made)
    torch.save(state, tmp_path / "bn.pth")
    found = weights_convert.convert(tmp_path / "bn.pth", tmp_path / "bn.safetensors", preprocess="torchvision")
    assert found.batch_norm
    assert found.preprocess == PREPROCESSING["torchvision"]
    assert torch.equal(state_dict(found)["features.1.running_var"], state["features.1.running_var"])


def test_the_first_layer_in_rgb_sees_the_same_image_as_in_bgr(tmp_path, states):
    path = write(tmp_path / "d.caffemodel", "caffemodel1", states("D"), "D")
    found = weights_convert.convert(path, tmp_path / "out.safetensors")
    kernel = torch.from_numpy(np.array(caffe.as_caffe(states("D"), "D")["conv1_1"][0]))
    pixels = torch.randint(0, 256, (1, 3, 9, 9), generator=torch.Generator().manual_seed(0)).double()

    def response(weight, preprocess):
        ordered = pixels if preprocess.order == "RGB" else pixels.flip(1)
        return torch.nn.functional.conv2d(ordered - torch.tensor(preprocess.mean).view(1, 3, 1, 1), weight.double())

    ours = response(state_dict(found)["features.0.weight"], found.preprocess)
    assert torch.allclose(ours, response(kernel, PREPROCESSING["paper-bgr"]), rtol=1e-12)


def as_published(monkeypatch, path, name="VGG_ILSVRC_16_layers"):
    """The published model of this name, its digest that of the file."""
    model = paper_models.by_name(name)
    digest = hashlib.new(model.digest_kind, path.read_bytes()).hexdigest()[: len(model.digest)]
    changed = dataclasses.replace(model, digest=digest)
    others = tuple(each for each in paper_models.published() if each.name != name)
    monkeypatch.setattr(paper_models, "published", lambda: (changed, *others))
    return changed


def test_the_authors_file_is_known_by_its_digest_and_says_where_it_came_from(tmp_path, states, monkeypatch):
    path = write(tmp_path / "renamed.caffemodel", "caffemodel1", states("D"), "D")
    model = as_published(monkeypatch, path)
    found = weights_convert.convert(path, tmp_path / "out.safetensors")
    assert (found.status, found.name, found.train_scale) == ("authors", "VGG_ILSVRC_16_layers", "[256;512]")
    assert found.source.sha1 == model.digest
    assert (found.source.file, found.source.format) == ("renamed.caffemodel", "caffemodel")
    assert found.source.done == "caffemodel read as D; first layer's input channels reversed (BGR -> RGB)"
    assert weights.verify(tmp_path / "out.safetensors", model)["published"] == model.name
    assert weights.verify(path)["published"] == model.name
    with pytest.raises(WeightsError, match="do not fit network E"):
        weights_convert.convert(path, tmp_path / "e.safetensors", network="E")


def test_a_ports_preprocessing_is_known_by_its_digest(tmp_path, states, monkeypatch):
    path = write(tmp_path / "w.pth", "pth", states("D"), "D")
    with pytest.raises(WeightsError, match="no publisher is known of; say what it expects: --preprocess paper-rgb"):
        weights_convert.convert(path, tmp_path / "out.safetensors")
    as_published(monkeypatch, path, "pytorch-vgg/vgg16")
    found = weights_convert.convert(path, tmp_path / "out.safetensors")
    assert (found.status, found.digest) == ("other", digest_of(states("D")))


def test_any_accepted_file_can_be_named_as_weights_and_is_converted_once(tmp_path, states, monkeypatch):
    path = write(tmp_path / "d.caffemodel", "caffemodel2", states("D"), "D")
    found = weights.resolve(str(path), "D")
    assert found.digest == digest_of(states("D"))
    out = weights_convert.convert(path, tmp_path / "out.safetensors").path
    assert weights.resolve(out, "D", preprocess="paper-rgb").digest == found.digest
    with pytest.raises(WeightsError, match="Leave --preprocess paper-bgr out"):
        weights.resolve(out, "D", preprocess="paper-bgr")
    monkeypatch.setattr(weights_convert, "convert", None)
    assert weights.resolve(str(path), "D") == found
    with pytest.raises(WeightsError, match="classes"):
        weights.resolve(str(path), "D", num_classes=99)


def test_a_published_model_that_is_not_here_is_named_with_the_command_that_fetches_it():
    with pytest.raises(WeightsError, match="vggbench weights fetch VGG_ILSVRC_19_layers"):
        weights.resolve("VGG_ILSVRC_19_layers", "E")


def test_weights_that_nobody_published_are_offered_as_a_training():
    for name in ("A", "D:256", "E:384", "C"):
        with pytest.raises(WeightsError, match=f"vggbench train --network {name[0]} "):
            weights.published_model(name)
    assert weights.published_model("D:256-512").name == weights.published_model("D").name == "VGG_ILSVRC_16_layers"
    listed = {row["name"] for row in weights.list_weights() if row["status"] == "none"}
    assert {"A:256", "A-LRN:256", "C:[256;512]", "D:384"} <= listed
    with pytest.raises(UsageError, match=r"No published model 'vgg17'\. Known: VGG_ILSVRC_16_layers"):
        weights.published_model("vgg17")


def test_the_catalogue_has_terms_digests_and_figures_for_every_model():
    rows = [row for row in weights.list_weights() if row["status"] in ("authors", "other")]
    assert len(rows) == 2 + 8 + 2 + 2 + 5
    for row in rows:
        assert row["licence"]
        assert "1409.1556" in row["citation"]
        assert row["scores"]
        assert any(key in row for key in ("sha1", "sha256", "md5"))
    beta = next(row for row in rows if row["name"] == "matconvnet/beta16/19")
    assert beta["network"] == "E"


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


def test_keras_files_are_read_where_h5py_is(tmp_path, states):
    path = tmp_path / "vgg.h5"
    try:
        import h5py
    except ImportError:
        path.write_bytes(b"\x89HDF\r\n\x1a\n")
        with pytest.raises(BackendUnavailable, match="pip install h5py"):
            weights_convert.convert(path, tmp_path / "out.safetensors")
        return
    keras = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}
    with h5py.File(path, "w") as file:
        file.create_group("block1_pool")
        for name, (weight, bias) in channels_last(states("D"), "D").items():
            layer = keras.get(name) or name.replace("conv", "block").replace("_", "_conv")
            file[f"{layer}/{layer}_W_1:0"], file[f"{layer}/{layer}_b_1:0"] = weight, bias
    found = weights_convert.convert(path, tmp_path / "out.safetensors")
    assert found.digest == digest_of(states("D"))
    with h5py.File(path, "a") as file:
        file["elsewhere"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
    with pytest.raises(WeightsError, match="elsewhere leads out of the file"):
        weights_convert.convert(path, tmp_path / "again.safetensors")


def test_opencv_reads_the_same_file_and_gives_the_same_output(tmp_path, states):
    cv2 = pytest.importorskip("cv2", reason="OpenCV 4 is not installed: pip install 'opencv-python-headless<5'")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("OpenCV 5 has no reader of .caffemodel files any more")
    for network in ("D", "E"):
        layers = caffe.as_caffe(states(network), network)
        text = tmp_path / "net.prototxt"
        for version in (1, 2):
            path = caffe.write_caffemodel(tmp_path / "net.caffemodel", layers, version)
            found = weights_convert.convert(path, tmp_path / "out.safetensors")
            text.write_text(caffe.prototxt(network, layers, found.crop_size))
            image = torch.randn(1, 3, found.crop_size, found.crop_size, generator=torch.Generator().manual_seed(0))
            net = cv2.dnn.readNetFromCaffe(str(text), str(path))
            net.setInput(image.flip(1).numpy())
            with torch.inference_mode():
                ours = load(found)(image).numpy()
            theirs = net.forward()
            assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_provenance_stands_in_the_files_metadata(tmp_path, states):
    from safetensors import safe_open

    path = write(tmp_path / "d.caffemodel", "caffemodel1", states("D"), "D")
    weights_convert.convert(path, tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", framework="np") as file:
        source = json.loads(file.metadata()["vggbench"])["source"]
    assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source["by"].startswith("vggbench ")


def command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_commands_convert_verify_and_tell(tmp_path, states, monkeypatch):
    path = write(tmp_path / "d.caffemodel", "caffemodel1", states("D"), "D")
    model = as_published(monkeypatch, path)
    out = tmp_path / "d.safetensors"
    result = command("weights", "convert", path, "--out", out, "-q")
    assert result.exit_code == 0
    assert "VGG_ILSVRC_16_layers, network D" in result.stdout
    assert "status authors" in result.stdout
    document = json.loads(command("weights", "verify", out, "--is", "D", "--json").stdout)
    assert (document["published"], document["converted_from"]) == (model.name, "d.caffemodel")
    for file in (out, path):
        told = json.loads(command("weights", "info", file, "--json").stdout)
        assert told["source"]["sha1"] == model.digest
        assert told["status"] == "authors"
    result = command("weights", "verify", path, "--is", "E")
    assert result.exit_code == 5
    assert len(result.stderr.splitlines()) == 1
    rows = json.loads(command("weights", "list", "--json").stdout)
    assert {row["status"] for row in rows} == {"sample", "random", "authors", "other", "none"}
    assert "vggbench train" in command("weights", "list").stdout


@pytest.mark.skipif(FULL, reason="of small files only")
def test_a_caffemodel_is_evaluated_without_a_word_about_converting_it(tmp_path):
    state = state_dict(random_weights("A", 0, width=1 / 32, num_classes=2, crop_size=32))
    path = caffe.write_caffemodel(tmp_path / "a.caffemodel", caffe.as_caffe(state, "A"), 2)
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        pixels = np.random.default_rng(ord(label)).integers(0, 256, (40, 44, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / label / "1.jpg")
    how = ["--data", tmp_path / "photos", "--network", "A", "--weights", path, "--protocol", "center", "--json"]
    document = json.loads(command("evaluate", *how, "--backend", "pytorch").stdout)
    assert document["images"] == 2
    assert document["record"]["networks"][0]["weights"]["source"]["format"] == "caffemodel"
    assert document["anchors"] == []
    result = command("evaluate", *how[:3], "B", *how[4:])
    assert result.exit_code == 5
    assert "holds network A, asked was B" in result.stderr


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


def test_a_misspelled_tensor_is_refused(tmp_path, states):
    state = dict(states("A"))
    state["features.0.wEight"] = state.pop("features.0.weight")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="do not fit any of"):
        weights_convert.convert(tmp_path / "w.pth", tmp_path / "out.safetensors", preprocess="paper-bgr")
