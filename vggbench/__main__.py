"""`python -m vggbench` and the command `vggbench`; a Ctrl-C while the command line is being read is no traceback."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Entry point of both."""
    try:
        from vggbench import cli

        cli.main()
    except KeyboardInterrupt:  # outside of every command, which say more
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not break off the way out
        print("vggbench: Interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
