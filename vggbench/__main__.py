"""`python -m vggbench` and the command `vggbench`; a Ctrl-C while the command line is being read is no traceback."""

from __future__ import annotations

import sys

from vggbench import interrupts


def main() -> None:
    """Entry point of both. A Ctrl-C before it, while Python itself starts, is Python's own and cannot be caught."""
    try:
        with interrupts.raising_once():
            from vggbench import cli

            cli.main()
    except KeyboardInterrupt:  # outside of every command, which say more
        interrupts.ignore()
        print("vggbench: Interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
