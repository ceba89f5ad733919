"""For all tests."""

from __future__ import annotations

import signal

# Started in the background of a script, a process is born deaf to Ctrl-C, and so are its children: tests of Ctrl-C
# would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
