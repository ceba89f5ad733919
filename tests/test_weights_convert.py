"""Converted weights: bit-equal from every container, and known by their digest."""

import hashlib
import json

import caffe_files as caffe
import numpy as np
import pytest
import torch
from weights_files import CONTAINERS, SIZE, as_published, channels_last, write

from vgg_reference.weights import PREPROCESSING, digest_of, load, random_weights, read_weights, state_dict
from vggbench import weights, weights_convert
from vggbench.errors import BackendUnavailable, WeightsError

pytestmark = pytest.mark.usefixtures("own_cache")


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


def test_provenance_stands_in_the_files_metadata(tmp_path, states):
    from safetensors import safe_open

    path = write(tmp_path / "d.caffemodel", "caffemodel1", states("D"), "D")
    weights_convert.convert(path, tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", framework="np") as file:
        source = json.loads(file.metadata()["vggbench"])["source"]
    assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source["by"].startswith("vggbench ")
