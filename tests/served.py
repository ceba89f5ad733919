"""Scripts of the tests in processes of their own, which import once and answer on stdout every line on stdin."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


@contextmanager
def serving(script: str) -> Iterator[subprocess.Popen]:
    """The script's process, which ends when it has nothing more to read."""
    process = subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'reference'}"},
    )
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
