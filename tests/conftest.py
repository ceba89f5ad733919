"""For all tests."""

from __future__ import annotations

import signal

import pytest

# Started in the background of a script, a process is born deaf to Ctrl-C, and so are its children: tests of Ctrl-C
# would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _hears_ctrl_c():
    """A command that was interrupted inside a test leaves Ctrl-C ignored, for its process would end there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
