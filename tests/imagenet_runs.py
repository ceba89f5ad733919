"""A made-up part of ImageNet and small networks of 1000 classes in published containers, for runs from end to end."""

import json

import caffe_files as caffe
import imagenet_layouts
import torch
from typer.testing import CliRunner

from vgg_reference.weights import random_weights, state_dict
from vggbench.cli import app

COUNT = 24
SMALL = {"width": 1 / 32, "hidden_width": 1 / 64, "num_classes": 1000, "crop_size": 32}


def make_images(folder, count=COUNT):
    """The folder to name: flat validation images beside a list of WordNet ids."""
    return imagenet_layouts.flat_with_wordnet_ids(folder, imagenet_layouts.make(count))


def write_small(path, network, seed=1, **size):
    """A file in the container that its name ends in."""
    state = state_dict(random_weights(network, seed, **{**SMALL, **size}))
    if path.suffix == ".caffemodel":
        return caffe.write_caffemodel(path, caffe.as_caffe(state, network), 1)
    torch.save(state, path)
    return path


def reproduce(images, out, *more):
    return CliRunner().invoke(
        app, ["reproduce", "--data", str(images), "--out", str(out), "--backend", "pytorch", *map(str, more)]
    )


def document(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
