"""200 damaged JPEGs: each decodes or is a bad image, within bounded time and memory, and nothing else happens."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggbench.images.decode import BadImage, decode

MUTATIONS = ("truncated", "bits", "bytes", "header", "empty", "claimed", "swapped", "repeated", "noise", "lengths")
COUNT = 200
MEMORY_BYTES = 4 << 30
SECONDS_EACH = 10.0


def originals() -> list[bytes]:
    """Baseline, progressive, gray, CMYK, with EXIF and a colour profile."""
    generator = np.random.default_rng(3)
    photo = Image.fromarray(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((300, 225))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 6, "words", 72.0
    kinds = (
        (photo, {"exif": exif, "icc_profile": generator.bytes(3000)}),
        (photo, {"progressive": True, "exif": exif}),
        (photo.convert("L"), {"comment": b"a comment"}),
        (photo.convert("CMYK"), {"quality": 90}),
        (photo, {"restart_marker_rows": 1, "subsampling": 0}),
    )
    files = []
    for image, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **options)
        files.append(buffer.getvalue())
    return files


def mutated(data: bytes, kind: str, dice: random.Random) -> bytes:
    changed = bytearray(data)
    frame = next(at for at in (data.find(bytes((0xFF, mark, 0x00))) for mark in (0xC0, 0xC2)) if at > 0)
    if kind == "truncated":
        return data[: dice.randrange(1, len(data))]
    if kind == "bits":
        for _ in range(dice.choice((1, 10, 300))):
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    elif kind == "bytes":
        for _ in range(dice.choice((1, 30))):
            changed[dice.randrange(2, 700)] = dice.randrange(256)
    elif kind == "header":
        changed[: dice.randrange(1, 20)] = dice.randbytes(dice.randrange(0, 20))
    elif kind == "empty":
        return b"" if dice.random() < 0.5 else bytes(dice.randrange(1, 5000))
    elif kind == "claimed":
        sides = dice.choice(
            ((30_000, 30_000), (65_535, 65_535), (0, 300), (8_000, 8_000), (60_000, 1_000), (1, 65_535))
        )
        changed[frame + 5 : frame + 9] = struct.pack(">HH", *sides)
    elif kind == "swapped":
        a, b = sorted(dice.sample(range(2, len(data)), 2))
        return data[:2] + data[b:] + data[a:b] + data[2:a]
    elif kind == "repeated":
        a, b = sorted(dice.sample(range(2, len(data)), 2))
        return data[:b] + data[a:b] * dice.randrange(2, 20) + data[b:]
    elif kind == "noise":
        at = dice.randrange(frame, len(data) - 100)
        changed[at : at + dice.randrange(1, 3000)] = dice.randbytes(dice.randrange(0, 3000))
    elif kind == "lengths":
        at = dice.choice([at for at in range(2, 600) if data[at] == 0xFF and data[at + 1] >= 0xC0])
        changed[at + 2 : at + 4] = dice.choice((b"\0\0", b"\0\1", b"\xff\xff", dice.randbytes(2)))
    return bytes(changed)


def damaged() -> list[tuple[str, bytes]]:
    files = originals()
    files_of = [(MUTATIONS[i % len(MUTATIONS)], files[i // len(MUTATIONS) % len(files)]) for i in range(COUNT)]
    return [(f"{i}-{kind}", mutated(data, kind, random.Random(i))) for i, (kind, data) in enumerate(files_of)]


def decode_all() -> None:
    """Under the memory limit; prints one JSON line: outcomes by name, the longest time of the CPU, the peak."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("error")
    outcomes, longest = {}, 0.0
    for name, data in damaged():
        for exif in ("ignore", "apply"):
            started = time.process_time()
            try:
                pixels = decode(data, exif)
                outcomes[name] = f"{pixels.dtype} {pixels.ndim} {pixels.shape[-1]}"
            except BadImage as error:
                outcomes[name] = f"bad: {error.why}"
            except BaseException as error:
                outcomes[name] = f"RAISED {type(error).__name__}: {error}"
            longest = max(longest, time.process_time() - started)
    # Not getrusage: after fork and exec its peak is still that of the test process.
    status = Path("/proc/self/status").read_text().split()
    peak = int(status[status.index("VmHWM:") + 1]) * 1024
    print(json.dumps({"outcomes": outcomes, "longest": longest, "peak": peak}))


@pytest.fixture(scope="module")
def report() -> dict:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, env=environment, timeout=COUNT * SECONDS_EACH
    )
    assert done.returncode == 0, f"a crash: {done.stderr[-2000:]}"
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_each_of_200_decodes_or_is_a_bad_image(report):
    outcomes = report["outcomes"]
    assert len(outcomes) == COUNT
    wrong = {name: what for name, what in outcomes.items() if not what.startswith("bad: ") and what != "uint8 3 3"}
    assert not wrong


def test_the_damage_is_real_and_not_all_of_it_is_fatal(report):
    bad = [name for name, what in report["outcomes"].items() if what.startswith("bad: ")]
    assert COUNT // 4 < len(bad) < COUNT
    assert all(name in bad for name in report["outcomes"] if name.endswith("-empty"))


def test_each_reason_is_one_short_line(report):
    for name, what in report["outcomes"].items():
        assert "\n" not in what, name
        assert len(what) < 250, name
        assert "0x" not in what, f"{name}: {what} names an address"


def test_no_file_takes_long_or_much_memory(report):
    assert report["longest"] < SECONDS_EACH
    assert report["peak"] < 2 << 30


@pytest.mark.skipif("VGGBENCH_TEST_PHOTOS" not in os.environ, reason="VGGBENCH_TEST_PHOTOS names no folder of photos")
def test_damaged_photos_decode_or_are_bad_images():
    photos = sorted(Path(os.environ["VGGBENCH_TEST_PHOTOS"]).rglob("*.jpg"))[::97]
    for index, photo in enumerate(photos):
        kind = MUTATIONS[index % len(MUTATIONS)]
        with contextlib.suppress(BadImage):
            assert decode(mutated(photo.read_bytes(), kind, random.Random(index))).dtype == np.uint8


if __name__ == "__main__":
    decode_all()
