"""One batch over several processes, with the gradient that one process would have.

Each takes its rows of every batch; gradients are summed, weighted by rows. A dropout mask is drawn for the whole batch
on each, from the same seed, of which each takes its rows: so masks do not depend on the number of processes either.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vgg_reference.model import VGG
from vggbench.distributed import Group


def rows_of(count: int, rank: int, world: int) -> slice:
    """A rank's share of so many rows, in order; shares differ by one at most and may be empty."""
    return slice(count * rank // world, count * (rank + 1) // world)


class SharedDropout(nn.Dropout):
    """Dropout on some rows of a batch of ``total``."""

    total = 0
    rows = slice(0)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return input
        mask = functional.dropout(input.new_ones(self.total, *input.shape[1:]), self.p)
        return input * mask[self.rows]


def share_dropout(model: VGG) -> None:
    """Puts SharedDropout in the place of every dropout; neither has weights."""
    for parent in model.modules():
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Dropout):
                setattr(parent, name, SharedDropout(layer.p))


def set_rows(model: VGG, total: int, rows: slice) -> None:
    """Which rows of the next batch this process has."""
    for layer in model.modules():
        if isinstance(layer, SharedDropout):
            layer.total, layer.rows = total, rows


def same_everywhere(model: VGG) -> None:
    """Rank 0's weights on all: computed on each machine, they might differ in their last bits."""
    from torch import distributed

    with torch.no_grad():
        for parameter in model.parameters():
            values = parameter.contiguous()
            distributed.broadcast(values, 0)
            parameter.copy_(values)


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Each gradient's sum over all processes; none counts as zero."""
    from torch import distributed

    # In one piece and in logical order: a process without rows may lay its zeros out in another memory format.
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    distributed.all_reduce(flat)
    for parameter, part in zip(parameters, torch.split(flat, [grad.numel() for grad in grads]), strict=True):
        parameter.grad = part.view(parameter.shape)


def sum_value(group: Group, value: float, device: str) -> float:
    """Over all processes."""
    if group.alone:
        return value
    from torch import distributed

    total = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return total.item()
