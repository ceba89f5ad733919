"""Hours on other machines come from measured parts alone."""

import dataclasses

import pytest
from measuring import make_dataset

from vgg_reference.weights import random_weights
from vggbench import plan, runs_parts, runs_project
from vggbench.errors import RecordError
from vggbench.protocols import Choices, crops, dense
from vggbench.results import NetworkRun, Record, Samples, Workload
from vggbench.runs_inputs import Setting
from vggbench.runs_parts import Preparing
from vggbench.runs_project import Parts, crop_equivalents, from_records, networks, project

PARTS = Parts(
    cpu_crops_per_second=10.0,
    cpu_threads=4,
    gpu_crops_per_second=2000.0,
    preparing_seconds=36_000.0,
    cores_per_gpu=5,
    said={},
)


def test_hours_are_of_the_slower_part_and_name_it():
    two_cores, one, eight, most = project(PARTS, 7_200_000.0)
    assert two_cores.compute_hours == pytest.approx(7_200_000 / (10 / 4 * 2) / 3600)
    assert two_cores.preparing_hours == pytest.approx(5.0)
    assert two_cores.hours == pytest.approx(two_cores.compute_hours + 5.0), "on a CPU both need the same cores"
    assert one.compute_hours == pytest.approx(1.0)
    assert one.preparing_hours == pytest.approx(2.0)
    assert (one.hours, one.limits) == (one.preparing_hours, "decoding and rescaling")
    assert eight.hours == pytest.approx(one.hours / 8)
    assert most.hours == pytest.approx(one.hours / 64)
    fed = project(dataclasses.replace(PARTS, cores_per_gpu=50), 7_200_000.0)[1]
    assert (fed.hours, fed.limits) == (fed.compute_hours, "the network")


def test_two_cores_are_two_of_those_that_the_network_was_timed_on(dataset, monkeypatch):
    monkeypatch.setattr(runs_project, "default_threads", lambda: 8)
    monkeypatch.setattr(runs_parts, "macs_per_second", lambda *_: 40 * plan.crop_macs(random_weights("D", 0)))
    monkeypatch.setattr(runs_parts, "preparing", lambda _, steps, *__: Preparing(0.0, dict.fromkeys(steps, 0.0)))
    parts = runs_project.measure(dataset, Setting("fake"))
    assert (parts.cpu_crops_per_second, parts.cpu_threads, parts.cores_per_gpu) == (40, 8, 8)
    assert project(parts, 36_000.0)[0].compute_hours == pytest.approx(1.0)
    assert runs_project.measure(dataset, Setting("fake", threads=4)).cpu_threads == 4


def test_a_gpu_without_a_record_has_no_hours():
    for line in project(dataclasses.replace(PARTS, gpu_crops_per_second=None), 1e6)[1:]:
        assert line.hours is line.compute_hours is None
        assert "no record" in line.limits


def test_the_work_is_that_of_every_row_with_public_weights_over_all_images():
    work = networks()
    assert [each.weights.network for each in work] == ["D", "E"]
    assert all(images == 50_000 for each in work for _, images in each.passes)
    assert {(step.form, step.scale) for step, _ in work[0].passes} == {
        (form, scale) for form in ("crop", "dense") for scale in (256, 384, 512)
    }

    class Plain:
        choices = Choices()

    # 150 crops an image in D and 1.27 times as much work for each of E's, and the dense passes.
    total = crop_equivalents(work, Plain, 4 / 3)
    assert 50_000 * 150 * 2.27 < total < 50_000 * 200 * 2.27


def latency(seconds, device="cuda:0", size=(224, 224), network="D", batch=32, width=1.0):
    run = NetworkRun(
        network=network, weights={"width": width, "crop_size": 224}, passes=[], backend="tensorrt", precision="fp16",
        session={"device": device},
    )  # fmt: skip
    return Record(
        kind="latency", networks=[run], workload=Workload(batch=batch, size=list(size)),
        samples=Samples(unit="seconds", values=seconds), environment={"gpu": "GPU X"},
    )  # fmt: skip


def test_a_gpus_speed_is_the_fastest_record_of_the_full_network_on_a_gpu(tmp_path):
    others = [
        latency([0.001], device="cpu"), latency([0.001], size=(256, 256)), latency([0.001], network="E"),
        latency([0.001], width=0.125),
    ]  # fmt: skip
    speed, source = from_records([*others, latency([0.02, 0.01, 0.03]), latency([0.05], batch=64)], tmp_path)
    assert speed == pytest.approx(32 / 0.02)
    assert source == "a record of tensorrt fp16 on GPU X, batch 32"
    with pytest.raises(RecordError, match="no latency record of D at full size on a GPU"):
        from_records(others, tmp_path)


def test_preparing_is_measured_on_images_that_can_be_decoded(tmp_path):
    dataset = make_dataset(tmp_path, 6)

    steps = (crops(40), dense(40))
    found = runs_parts.preparing(dataset, steps, 32, Choices())
    assert found.decode > 0
    assert set(found.views) == set(steps)
    assert min(found.views.values()) > 0
    work = [(steps[0], 10), (steps[1], 4)]
    assert found.seconds(work) == pytest.approx(
        10 * found.decode + 10 * found.views[steps[0]] + 4 * found.views[steps[1]]
    )


def test_what_is_public_and_was_not_given_is_named_with_its_size():
    found = runs_parts.downloads(["C trained at S = 256", "D trained at S = [256;512]"])
    assert found == {"D trained at S = [256;512]": 4 * 138_357_544}
    assert runs_project.IMAGES == 50_000
