"""Faults that training over several workers might have, to show that tests would see them; "small pieces" is none."""

from __future__ import annotations

from vggbench.train import crops, parallel


def plant(name: str | None) -> None:
    """In this process; it takes no fault out again."""
    if name is None:
        return
    {
        "seeds by worker": _seeds_by_worker,
        "rows of another worker": _rows_of_another,
        "any order": _any_order,
        "small pieces": _small_pieces,
    }[name]()


def _seeds_by_worker() -> None:
    """Each worker of two numbers its three parts from 0 on."""
    right = parallel.seed_of
    parallel.seed_of = lambda seed, part: right(seed, part % 3)


def _rows_of_another() -> None:
    """Each worker of two reads the other's rows, where these are as many."""
    right = crops.rows_of
    crops.rows_of = lambda count, part, parts: right(count, parts - 1 - part if count % parts == 0 else part, parts)


def _any_order() -> None:
    """Gradients are added from the last part to the first."""
    right = parallel.add_parts
    parallel.add_parts = lambda parameters, own, filled, group: right(parameters, own, filled[::-1], group)


def _small_pieces() -> None:
    """Gradients go round in many pieces, of a number of values that no number of workers divides."""
    parallel.PIECE = 997
