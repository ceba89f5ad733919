"""`python -m vggbench`: the same as the command `vggbench`."""

from vggbench.cli import main

if __name__ == "__main__":
    main()
