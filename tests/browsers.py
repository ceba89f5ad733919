"""A real browser, or the reason why there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REQUIRED = os.environ.get("CI") == "true" or os.environ.get("VGGBENCH_REQUIRE_BROWSER") == "1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: In place of 30 seconds, which a machine with other work may need for a page.
PATIENCE_MILLISECONDS = 600_000
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


def missing(what: str):
    """Skips where a browser is a convenience, fails where it was promised."""
    if REQUIRED:
        pytest.fail(f"{what}, and CI=true or VGGBENCH_REQUIRE_BROWSER=1 asks for the browser tests.")
    pytest.skip(what)


def axe_source() -> str:
    try:
        import axe_core_python
    except ImportError:
        missing("axe-core-python is not installed; install it with: pip install axe-core-python")
    return (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def _patient(opens: Callable) -> Callable:
    def opened(**options):
        found = opens(**options)
        found.set_default_timeout(PATIENCE_MILLISECONDS)
        return found

    return opened


@contextmanager
def chromium() -> Iterator:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed; install it with: pip install playwright")
    found = os.environ.get("VGGBENCH_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        missing("No Chromium was found; install one, or name it with VGGBENCH_BROWSER=/path/to/chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=ARGUMENTS, timeout=PATIENCE_MILLISECONDS)
        for name in ("new_page", "new_context"):
            setattr(started, name, _patient(getattr(started, name)))
        yield started
        started.close()
