"""One batch in parts, whose gradient does not depend on who computes which part.

A batch's gradient is the mean over its images. It is taken part by part: each is computed alone, in shapes and with
dropout masks of its own, and the parts are added in the order of their numbers. So any number of workers that share the
parts take the same steps, bit for bit, if all compute alike: the same kind of processor and as many threads a part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vgg_reference.model import VGG
from vggbench.distributed import Group, exchanging
from vggbench.errors import UsageError

#: Gradients are exchanged in pieces of at most so many values, which bounds what is held beside them.
PIECE = 1 << 22


def rows_of(count: int, part: int, parts: int) -> slice:
    """A part's share of so many rows, in order; shares differ by one at most and may be empty."""
    return slice(count * part // parts, count * (part + 1) // parts)


def dealt(parts: int, group: Group) -> range:
    """The parts that this process computes: as many as every other. Raises UsageError."""
    if parts % group.world:
        raise UsageError(
            f"{parts} parts of a batch cannot be dealt to {group.world} workers alike. "
            f"Accepted are multiples of {group.world}; or start a number of workers that divides {parts}."
        )
    each = parts // group.world
    return range(group.rank * each, (group.rank + 1) * each)


def seed_of(step_seed: int, part: int) -> int:
    """Decides a part's dropout masks; that of a batch in one part is the step's."""
    # Mixed, not put above the step's bits: torch's generator on a CPU takes the lower 32 of a seed.
    return int(np.random.SeedSequence((step_seed, part)).generate_state(1)[0]) if part else step_seed


def same_everywhere(model: VGG, group: Group) -> None:
    """Rank 0's weights on all: computed on each machine, they might differ in their last bits."""
    from torch import distributed

    with torch.no_grad(), exchanging(group):
        for parameter in model.parameters():
            values = parameter.contiguous()
            distributed.broadcast(values, 0)
            parameter.copy_(values)


def taken(parameters: Sequence[nn.Parameter]) -> Tensor:
    """All gradients in one piece, taken off the parameters; none counts as zero."""
    # In logical order: a process without rows would lay its zeros out as it likes.
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])
    for parameter in parameters:
        parameter.grad = None
    return flat


def add_parts(parameters: Sequence[nn.Parameter], own: Sequence[Tensor], filled: Sequence[int], group: Group) -> None:
    """Gives every parameter the sum of all parts' gradients, added as one process adds them: in order of their numbers.

    own: this process's parts, from taken(); overwritten. filled: numbers of the parts that have rows.
    """
    # Every process adds up a share of the values and hands the sums round, which costs what a ring's all-reduce does;
    # that one would add in an order that depends on the number of processes.
    total = own[0]
    for start in range(0, total.numel(), PIECE):
        _add_piece([part[start : start + PIECE] for part in own], filled, group)
    for parameter, values in zip(parameters, torch.split(total, [p.numel() for p in parameters]), strict=True):
        # In the parameter's own layout, as backward leaves it, or the optimizer would run another loop over it.
        parameter.grad = torch.empty_like(parameter).copy_(values.view(parameter.shape))


def _add_piece(own: Sequence[Tensor], filled: Sequence[int], group: Group) -> None:
    """own: (n,) each; the first is overwritten with the sum over the filled parts of all processes."""
    from torch import distributed

    count, world = own[0].numel(), group.world
    share = -(-count // world)
    sent = own[0].new_zeros(world, len(own), share)
    for number, part in enumerate(own):
        padded = nn.functional.pad(part, (0, world * share - count))
        sent[:, number] = padded.view(world, share)
    received = torch.empty_like(sent)
    with exchanging(group):
        distributed.all_to_all_single(received, sent)
    parts = received.view(world * len(own), share)
    mine = parts[filled[0]].clone()
    for number in filled[1:]:
        mine += parts[number]
    summed = own[0].new_empty(world, share)
    with exchanging(group):
        distributed.all_gather(list(summed.unbind()), mine)
    own[0].copy_(summed.view(-1)[:count])


def sums_over(group: Group, values: Sequence[float], device: str) -> list[float]:
    """Each value's sum over all processes; exact where at most one of them is not zero, or where all are whole."""
    if group.alone:
        return list(values)
    from torch import distributed

    total = torch.tensor(values, dtype=torch.float64, device=device)
    with exchanging(group):
        distributed.all_reduce(total)
    return [float(value) for value in total.tolist()]
