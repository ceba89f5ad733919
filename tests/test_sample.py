"""The built-in sample set: what is drawn, and what lies on disk after any history of runs."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cli_runs
import numpy as np
import pytest

from vggbench.errors import DataError, StorageError, UsageError
from vggbench.images import sample, sample_blocks, sample_canvas
from vggbench.images.sample import BLOCK, SPLITS, prepare
from vggbench.images.sample_drawing import _PART_CENTRES, ARRANGEMENTS, CLASSES, SHAPES, TEXTURES, draw, object_coverage

# Made by this code on 2026-11-23 (x86-64, NumPy 2.4): SHA-256 over the pixels of one image.
GOLDEN = {
    ("train", 0): "ecffbacf3f7a5f668dd3f128e05964119c24890ae17a14e9b4c6afa9f0acd851",
    ("tune", 777): "b7c9e4fa08d6193bbaeb9a2c735b0c060d9d7f0dc9a8f5c7a48d8ee6ba27ec91",
    ("test", 2399): "0cd2a067f46de10343c45d59440a79bbb167cfaae62637d1e5d5ad9ad540fd68",
}
SEED_IMAGES = [("train", index) for index in range(0, 6000, 101)] + [("test", index) for index in range(60)]


@pytest.fixture(scope="module")
def two_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images 0 to 599 of "tune", drawn by two processes."""
    return prepare("tune", tmp_path_factory.mktemp("sample"), count=2 * BLOCK, workers=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def copy_of(folder: Path, root: Path) -> Path:
    for source in folder.rglob("*"):
        if source.is_file():
            target = root / folder.name / source.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return root / folder.name


def modification_times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(("split", "index"), GOLDEN)
def test_pixels_are_the_recorded_bytes(split: str, index: int) -> None:
    assert hashlib.sha256(draw(split, index)[0].tobytes()).hexdigest() == GOLDEN[split, index]


def test_an_image_depends_on_its_split_and_index() -> None:
    drawn = {draw(split, index)[0].tobytes() for split in SPLITS for index in (0, 60)}
    assert len(drawn) == 6


def test_there_are_60_classes_and_label_is_index_modulo_60() -> None:
    assert len(set(CLASSES)) == len(CLASSES) == 60
    assert [draw("tune", index)[1].label for index in (0, 59, 60, 137)] == [0, 59, 0, 17]
    assert CLASSES[3 * 12 + 3 * 3 + 1] == "star-rings-two-stacked"


def test_every_split_and_every_block_holds_each_class_equally_often() -> None:
    assert all(size % BLOCK == 0 for size in SPLITS.values())
    assert BLOCK % len(CLASSES) == 0


@pytest.mark.parametrize(("split", "index"), SEED_IMAGES)
def test_box_is_the_tight_box_of_the_object_inside_the_canvas(split: str, index: int) -> None:
    pixels, annotation = draw(split, index)
    inside = object_coverage(split, index) >= 0.5
    assert inside.shape == pixels.shape[:2]
    x0, y0, x1, y1 = (int(edge) for edge in annotation.box)
    cut = inside[y0:y1, x0:x1]
    assert cut.sum() == inside.sum()
    assert all(edge.any() for edge in (cut[0], cut[-1], cut[:, 0], cut[:, -1]))
    assert 0.5 * annotation.diameter < max(x1 - x0, y1 - y0) < 1.35 * annotation.diameter


def test_diameter_lies_between_16_and_95_percent_of_the_shorter_side() -> None:
    shares = [annotation.diameter / min(pixels.shape[:2]) for pixels, annotation in (draw(*key) for key in SEED_IMAGES)]
    assert 0.16 <= min(shares) < 0.2
    assert 0.8 < max(shares) <= 0.95


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("texture", TEXTURES)
def test_a_flipped_object_is_an_object_of_the_same_shape_and_texture(shape: str, texture: str) -> None:
    size = 100
    pose = sample_canvas.place(40.0, 55.0, 30.0, 15.0, 1.1)
    mirrored = sample_canvas.place(size - 40.0, 55.0, 30.0, -15.0, 1.1)
    window, mirrored_window = (sample_canvas.window_of(p, size, size, reach=9) for p in (pose, mirrored))
    coverage = sample_canvas.shape_coverage(shape, window, pose)
    np.testing.assert_allclose(
        coverage[:, ::-1], sample_canvas.shape_coverage(shape, mirrored_window, mirrored), atol=1e-4
    )

    across = 0.3 if texture in ("vertical", "checker") else None
    tone = sample_canvas.texture_tone(texture, window, pose, 4.0, (0.3, 0.2))
    phases = (-0.3 if across else 0.3, 0.2)
    flipped = sample_canvas.texture_tone(texture, mirrored_window, mirrored, 4.0, phases)
    np.testing.assert_allclose(tone[:, ::-1], flipped, atol=1e-3)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_an_arrangement_of_parts_is_its_own_mirror_image(arrangement: str) -> None:
    centres = _PART_CENTRES[arrangement]
    assert {(-x, y) for x, y in centres} == set(centres)


def test_one_process_writes_the_same_files_as_two(two_blocks: Path, tmp_path: Path) -> None:
    assert contents(prepare("tune", tmp_path, count=2 * BLOCK, workers=1)) == contents(two_blocks)


def test_annotations_list_every_file_once_with_balanced_labels(two_blocks: Path) -> None:
    with open(two_blocks / "annotations.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == sample.COLUMNS
    assert [row["file"] for row in rows] == sorted(path.name for path in two_blocks.glob("*.jpg"))
    assert set(Counter(row["label"] for row in rows).values()) == {2 * BLOCK // 60}
    annotation = draw("tune", 77)[1]
    assert tuple(float(rows[77][edge]) for edge in ("x0", "y0", "x1", "y1")) == annotation.box
    assert rows[77]["class"] == CLASSES[int(rows[77]["label"])] == CLASSES[annotation.label]


def test_a_smaller_count_is_a_prefix_and_a_larger_one_only_adds(two_blocks: Path, tmp_path: Path) -> None:
    folder = prepare("tune", tmp_path, count=7, workers=1)
    times = modification_times(folder)
    assert sorted(times) == [*(f"{index:05d}.jpg" for index in range(7)), "annotations.csv"]
    prepare("tune", tmp_path, count=2 * BLOCK)
    assert contents(folder) == contents(two_blocks)
    later = modification_times(folder)
    assert all(later[name] == times[name] for name in times if name != "annotations.csv")


def test_a_second_call_changes_nothing_and_a_smaller_one_removes_nothing(two_blocks: Path) -> None:
    times = modification_times(two_blocks)
    calls: list[tuple[int, int]] = []
    prepare("tune", two_blocks.parent, 2 * BLOCK, workers=1, progress=lambda *done: calls.append(done))
    prepare("tune", two_blocks.parent, count=3, workers=1)
    assert modification_times(two_blocks) == times
    assert calls == [(BLOCK, 2 * BLOCK), (2 * BLOCK, 2 * BLOCK)]


def test_a_damaged_or_missing_file_is_written_again(two_blocks: Path, tmp_path: Path) -> None:
    folder = copy_of(two_blocks, tmp_path)
    (folder / "00299.jpg").write_bytes((folder / "00299.jpg").read_bytes()[:-5])
    (folder / "00011.jpg").unlink()
    assert contents(prepare("tune", tmp_path, count=2 * BLOCK, workers=1)) == contents(two_blocks)


def test_a_killed_run_leaves_only_whole_files_and_is_continued(two_blocks: Path, tmp_path: Path) -> None:
    script = "import sys, pathlib; from vggbench.images.sample import prepare\n"
    script += "if __name__ == '__main__': prepare('tune', pathlib.Path(sys.argv[1]), 600, workers=1)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment)
    folder = tmp_path / "tune"
    while not (folder / "00200.jpg").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()

    left, whole = contents(folder), contents(two_blocks)
    assert "annotations.csv" not in left
    assert 200 < len(left) < 2 * BLOCK
    assert all(whole[name] == content for name, content in left.items())
    assert contents(prepare("tune", tmp_path, count=2 * BLOCK, workers=1)) == whole


@pytest.mark.parametrize(
    ("kind", "says"),
    [("pixels", "draws other pixels"), ("annotations", "draws other annotations"), ("jpeg", "only the JPEG encoder")],
)
def test_a_mismatch_names_the_block_and_what_differs(
    kind: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = sample_blocks.recorded_block("test", 3)
    monkeypatch.setattr(sample_blocks, "recorded_block", lambda split, block: recorded | {kind: "0" * 64})
    monkeypatch.setattr(sample_blocks, "_draw_block", lambda split, block: ([b""], [""], recorded))
    with pytest.raises(DataError, match=rf"Block 3 of .*'test' \(images 900 to 1199\).*{says}"):
        sample_blocks.prepare_block(tmp_path, "test", 3, BLOCK)
    assert not list(tmp_path.rglob("*.jpg"))


def test_the_manifest_covers_every_block() -> None:
    manifest = sample_blocks.manifest()
    assert manifest["block"] == BLOCK
    assert {split: len(blocks) * BLOCK for split, blocks in manifest["splits"].items()} == SPLITS


def test_an_unknown_split_and_an_impossible_count_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Known: train, tune, test"):
        prepare("val", tmp_path)
    with pytest.raises(UsageError, match="1 to 1200"):
        prepare("tune", tmp_path, count=0)


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be kept in"):
        prepare("tune", tmp_path / "file", count=1, workers=1)


def test_an_exception_ends_the_processes_that_draw_without_waiting_for_them() -> None:
    with contextlib.suppress(KeyboardInterrupt), sample._pool(2, 2) as pool:
        future = pool.submit(time.sleep, 300)
        raise KeyboardInterrupt
    assert future.cancelled() or future.exception() is not None


def test_ctrl_c_while_the_processes_are_started_ends_the_run(tmp_path: Path) -> None:
    """The pool knows of a process only after its start: broken off between, each waited for the other."""
    code = (
        "import os, signal, sys\n"
        "from multiprocessing.context import SpawnProcess\n"
        "from vggbench.images import sample\n"
        "started = []\n"
        "def start(process, begin=SpawnProcess.start):\n"
        "    begin(process)\n"
        "    started.append(process)\n"
        "    if len(started) == 2: os.kill(os.getpid(), signal.SIGINT)\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    SpawnProcess.start = start\n"
        "    try: sample.prepare('tune', sys.argv[1], workers=2)\n"
        "    except KeyboardInterrupt: print('interrupted', flush=True)\n"
    )
    (tmp_path / "draws.py").write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "draws.py"), str(tmp_path / "sample")], stdout=subprocess.PIPE, text=True,
        env=cli_runs.environment(), start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert (process.returncode, said) == (0, "interrupted\n")
