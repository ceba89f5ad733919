"""Lopsided images and biased networks, for the harness and for slow_protocols.py."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import slow_protocols as slow
import torch
from PIL import Image

from vgg_reference.weights import Preprocess, random_weights, save_weights, state_dict
from vggbench.images import Dataset, LabelledImage
from vggbench.measure.posteriors import answer
from vggbench.protocols import Choices

CLASSES = 7
CROP = 32
BACKENDS = ("pytorch", "onnxruntime")
#: Height and width: lying, standing, square and smaller than the scales, long.
SIZES = ((50, 71), (83, 49), (40, 40), (37, 150))
#: Offsets fall between pixels at the latter two: (47 - 32) / 2 and (61 - 32) / 2.
SCALES = (36, 47, 61)
CHOICES = (
    Choices(),
    Choices(pool_rounding="floor", grid_extent="square"),
    Choices(score_pool="mean_probs", grid_extent="square"),
    Choices(score_pool="mean_probs", pool_rounding="floor"),
)
MEAN, SCALE = (120.0, 115.0, 100.0), (1 / 60, 1 / 64, 1 / 70)


def noise(size, seed):
    """Smooth shapes and noise, lopsided: its mirror image is another image."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse) + rng.normal(0, 20, (*size, 3)), 0, 255).astype(np.uint8)


def make_dataset(folder: Path, images):
    """PNG files, so that what is decoded is what was drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    entries, digests = [], []
    for number, pixels in enumerate(images):
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        entries.append(LabelledImage(path.name, path, number % CLASSES))
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    names = tuple(f"class {number}" for number in range(CLASSES))
    whole = hashlib.sha256("".join(digests).encode()).hexdigest()
    return Dataset("made", "test", names, tuple(entries), tuple(digests), whole, "made", len(entries))


def weights_on_disk(folder: Path, name, crop, seed):
    """Random weights with biases, whose posteriors are neither flat nor certain."""
    order = "BGR" if name in ("D", "A-LRN") else "RGB"
    weights = random_weights(name, seed, width=1 / 32, hidden_width=1 / 64, num_classes=CLASSES, crop_size=crop)
    weights = dataclasses.replace(weights, preprocess=Preprocess(order, MEAN, SCALE), status="other", lrn_alpha=0.5)
    state = state_dict(weights)
    generator = torch.Generator().manual_seed(seed + 1)
    for key, tensor in state.items():
        if key.endswith("bias"):
            tensor.normal_(0, 0.1, generator=generator)
    return save_weights(folder / f"{name}-{crop}-{seed}.safetensors", state, weights)


def slow_network(weights, choices):
    """The same tensors for the slow implementation: weights and biases in the order of the file's layer numbers."""
    state = {key: tensor.double().numpy() for key, tensor in state_dict(weights).items()}
    keys = sorted(
        (key[: -len(".weight")] for key in state if key.endswith(".weight")),
        key=lambda key: (key.startswith("classifier"), int(key.split(".")[1])),
    )
    return slow.Network(
        weights.network,
        [(state[f"{key}.weight"], state[f"{key}.bias"]) for key in keys],
        weights.crop_size,
        weights.preprocess.mean,
        weights.preprocess.scale,
        bgr=weights.preprocess.order == "BGR",
        ceil=choices.pool_rounding == "ceil",
        lrn_alpha=weights.lrn_alpha,
    )


def scales_of(name):
    return SCALES if name.startswith("multi") else SCALES[1:2]


def posteriors_of(results, chosen):
    found, kept = answer([(results, chosen)])
    assert kept.tolist() == list(range(len(found)))
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)
    return found
