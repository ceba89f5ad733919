"""One network's weights in every container that people have, each written by other code than what reads it.

VGGBENCH_FULL_SIZE=1 writes full-size networks (0.6 GB a file) instead of small ones.
"""

import dataclasses
import hashlib
import os

import caffe_files as caffe
import numpy as np
import torch
from safetensors.torch import save_file

from vgg_reference.weights import random_weights, state_dict
from vggbench import paper_models

FULL = bool(os.environ.get("VGGBENCH_FULL_SIZE"))
SIZE = {} if FULL else {"width": 1 / 16, "hidden_width": 1 / 64, "num_classes": 7, "crop_size": 64}
CONTAINERS = ["caffemodel1", "caffemodel2", "pth", "safetensors", "old pth", "npz"]


def states_of():
    """A function: network -> its state dict, with biases that are not all zero; each made once."""
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


def as_published(monkeypatch, path, name="VGG_ILSVRC_16_layers"):
    """The published model of this name, its digest that of the file."""
    model = paper_models.by_name(name)
    digest = hashlib.new(model.digest_kind, path.read_bytes()).hexdigest()[: len(model.digest)]
    changed = dataclasses.replace(model, digest=digest)
    others = tuple(each for each in paper_models.published() if each.name != name)
    monkeypatch.setattr(paper_models, "published", lambda: (changed, *others))
    return changed
