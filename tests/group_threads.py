"""Workers of one group as threads of one process."""

import threading


def in_threads(work, world: int) -> list:
    """What work(rank) returns, by rank. Raises what the first of them raises, for which the others would wait."""
    found: list = [None] * world
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            found[rank] = work(rank)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and not errors:
            thread.join(0.05)
    if errors:
        raise errors[0]
    return found
