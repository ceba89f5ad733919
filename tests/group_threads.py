"""Workers of one group as threads of one process."""

import threading


def in_threads(work, world: int) -> list:
    """What work(rank) returns, by rank."""
    found: list = [None] * world

    def run(rank: int) -> None:
        found[rank] = work(rank)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
