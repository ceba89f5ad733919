"""A whole folder of real photos through both backends: VGGBENCH_TEST_PHOTOS names a folder of class folders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from vgg_reference.weights import random_weights
from vggbench.images.folder import open_folder
from vggbench.measure.accuracy import run_passes
from vggbench.measure.posteriors import ranks
from vggbench.protocols import protocol

pytestmark = pytest.mark.skipif(
    "VGGBENCH_TEST_PHOTOS" not in os.environ, reason="VGGBENCH_TEST_PHOTOS names no folder of photos"
)


@pytest.mark.parametrize("name", ["center", "dense"])
def test_all_photos_go_through_both_backends_once_and_get_the_same_rank(tmp_path, name):
    dataset = open_folder(Path(os.environ["VGGBENCH_TEST_PHOTOS"]))
    assert len({image.id for image in dataset.images}) == len(dataset.images) > 0
    weights = random_weights("A", 0, width=1 / 8, hidden_width=1 / 16, num_classes=len(dataset.classes), crop_size=64)
    (step,) = protocol(name, (73,)).passes
    labels = np.array([image.label for image in dataset.images])
    found = {}
    for backend in ("onnxruntime", "pytorch"):
        results = run_passes(
            dataset, weights, [step], backend=backend, device="cpu", cache_root=tmp_path / backend, on_bad="stop"
        )
        assert results.kept.tolist() == list(range(len(dataset.images)))
        found[backend] = ranks(results.posteriors[step], labels)
    assert (found["onnxruntime"] == found["pytorch"]).all()
