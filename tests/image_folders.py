"""Folders of made-up image files, for tests of layouts and order."""

from __future__ import annotations

from pathlib import Path

#: Not decoded by these tests.
PIXEL = b"\xff\xd8\xff\xe0 not decoded here: "


def files(root: Path, *names: str, data: bytes = PIXEL) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data + name.encode())
    return root


def text(root: Path, name: str, content: str) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content)
    return root / name


def labels(dataset) -> dict[str, int]:
    return {image.id: image.label for image in dataset.images}


def classes_of(root: Path, *, classes: int, each: int) -> Path:
    return files(root, *(f"c{label:02d}/{i}.jpg" for label in range(classes) for i in range(each)))
