"""The paths that decide how long a run and its page take, each at a realistic size: nox -s bench

With --benchmark-only each is timed for about half a second; in other runs it runs once, so that it stays true.
pytest-benchmark's --benchmark-save keeps the figures and `vggbench import-benchmark` takes them.
"""

from __future__ import annotations

import io

import numpy as np
import page_fixtures as fixtures
import pytest
from PIL import Image

from vgg_reference.weights import PREPROCESSING, random_weights
from vggbench.findings import judge
from vggbench.graphs import export_onnx
from vggbench.history import history, runs_of
from vggbench.history_changes import change_points
from vggbench.images.decode import decode
from vggbench.measure.pipeline import softmax
from vggbench.measure.posteriors import fuse, hardest, ranks
from vggbench.protocols import Choices, Pass
from vggbench.report import render
from vggbench.results import NetworkRun, Record, Samples, Workload, read_records, write_records
from vggbench.variants import Variant
from vggbench.views import make_views, rescale, to_input

#: A photograph of ImageNet's usual size; ImageNet's validation images and classes.
HEIGHT, WIDTH, IMAGES, CLASSES = 375, 500, 50_000, 1000
CHOICES = Choices()


@pytest.fixture
def timed(request, benchmark):
    """timed(work) -> its result: a benchmark where one was asked for, else a single call. rounds: of slow work."""
    benchmark.disabled = not request.config.getoption("--benchmark-only", False)
    benchmark._max_time = 0.5
    return lambda work, rounds=None: benchmark.pedantic(work, rounds=rounds) if rounds else benchmark(work)


@pytest.fixture(scope="module")
def photograph():
    """(h, w, 3) of about a photograph's detail."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT)), np.int16)
    return (smooth + generator.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def posteriors():
    """(images, classes) of a tenth of ImageNet's validation set, as the cache holds them."""
    return softmax(np.random.default_rng(0).normal(0, 4, (IMAGES // 10, CLASSES)).astype(np.float32)).astype(np.float32)


def test_decode_a_jpeg(timed, photograph):
    buffer = io.BytesIO()
    Image.fromarray(photograph).save(buffer, "JPEG", quality=90)
    assert timed(lambda: decode(buffer.getvalue())).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("scale", [256, 512])
def test_resize_a_photograph(timed, photograph, scale):
    assert min(timed(lambda: rescale(photograph, scale, CHOICES)).shape[:2]) == scale


@pytest.mark.parametrize(("grid", "flip", "views"), [("center", False, 1), ("5x5", True, 50), ("whole", True, 2)])
def test_cut_the_views_of_a_grid(timed, photograph, grid, flip, views):
    image = rescale(photograph, 256, CHOICES)
    step = Pass("dense" if grid == "whole" else "crop", 256, grid, flip)
    assert len(timed(lambda: make_views(image, step, 224, CHOICES))) == views


@pytest.mark.parametrize("preprocess", PREPROCESSING)
def test_50_crops_as_input(timed, photograph, preprocess):
    views = make_views(photograph, Pass("crop", 256, "5x5", True), 224, CHOICES)
    assert timed(lambda: to_input(views, PREPROCESSING[preprocess])).shape == (50, 3, 224, 224)


def test_softmax_of_a_batch_of_crops(timed):
    scores = np.random.default_rng(0).normal(0, 4, (64 * 50, CLASSES)).astype(np.float32)
    assert timed(lambda: softmax(scores)).sum() == pytest.approx(len(scores))


def test_mean_of_three_scales_posteriors(timed, posteriors):
    assert timed(lambda: fuse([posteriors] * 3)).shape == posteriors.shape


def test_ranks_of_all_images(timed, posteriors):
    labels = np.random.default_rng(1).integers(0, CLASSES, len(posteriors))
    assert len(timed(lambda: ranks(posteriors, labels))) == len(posteriors)


def test_hardest_images(timed, posteriors):
    labels = np.random.default_rng(1).integers(0, CLASSES, len(posteriors))
    ids = [f"{index:08d}.JPEG" for index in range(len(posteriors))]
    assert len(timed(lambda: hardest(posteriors, labels, ids))) == 16


def test_read_the_records_of_a_full_run(timed, tmp_path):
    records = fixtures.sample_records((0,), images=5_000)
    write_records(tmp_path / "records.jsonl.gz", records)
    assert len(timed(lambda: read_records(tmp_path / "records.jsonl.gz"))) == len(records)


def test_judge_the_findings(timed):
    records = fixtures.sample_records((0, 1, 2), images=1200)
    assert timed(lambda: judge(records))


def test_render_the_page(timed):
    records = fixtures.sample_records((0,), images=1200)
    found, context = judge(records), fixtures.context()
    assert timed(lambda: render(records, found, context), rounds=3).endswith("</html>")


def test_a_history_of_60_runs(timed):
    generator = np.random.default_rng(0)
    run = NetworkRun(network="D", weights={"name": "random:0"}, passes=[], backend="onnxruntime", precision="fp32")
    sources = [
        (
            f"{index}.jsonl",
            [
                Record(
                    kind="latency",
                    networks=[run],
                    workload=Workload(batch=1, size=[224, 224]),
                    samples=Samples(unit="seconds", values=list(0.2 + 0.002 * generator.random(50))),
                    environment={"commit": f"{index:07x}"},
                    started=f"2026-01-01T{index // 60:02d}:{index % 60:02d}:00+00:00",
                )
            ],
        )
        for index in range(60)
    ]
    assert len(timed(lambda: history(runs_of(sources))).series) == 1


def test_a_change_in_60_values(timed):
    values = np.random.default_rng(0).normal(0, 0.01, 60) + 0.05 * (np.arange(60) >= 40)
    assert [step.index for step in timed(lambda: change_points(values))] == [40]


def test_export_a_sample_network(timed):
    weights = random_weights("D", width=1 / 8, hidden_width=1 / 16, num_classes=60, crop_size=64)
    assert len(timed(lambda: export_onnx(Variant(weights, "crop", "onnxruntime")))) > 1_000_000
