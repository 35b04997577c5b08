"""What the ranks of a run exchange in a step. Without a process group there is one rank, and nothing is sent.

Tensor collectives only. Every rank must make the same calls in the same order, in the backward pass as well,
which autograd ensures where every rank builds the same graph.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET_VALUES = 1 << 24
"""Gradients that travel together: 64 MiB of float32."""


def rank_count() -> int:
    """Ranks of the default process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of every rank's tensor, all of one shape. Carries no gradient."""
    total = values.detach().clone()
    if rank_count() > 1:
        dist.all_reduce(total)
    return total


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Puts the sum over all ranks in the place of each gradient. Every rank must have the same ones."""
    if rank_count() == 1:
        return
    for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        totals = torch.split(flat, [gradient.numel() for gradient in bucket])
        for gradient, total in zip(bucket, totals, strict=True):
            gradient.copy_(total.view_as(gradient))


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    values = 0
    for gradient in gradients:
        if bucket and values + gradient.numel() > BUCKET_VALUES:
            yield bucket
            bucket, values = [], 0
        bucket.append(gradient)
        values += gradient.numel()
    if bucket:
        yield bucket


def gather_rows(rows_ND: Tensor) -> tuple[Tensor, int]:
    """The rows of all ranks in rank order, and where this rank's own begin among them.

    Ranks may differ in their number of rows. The gradient of the gathered rows is summed over all ranks and
    comes back to the rank that a row is from.
    """
    if rank_count() == 1:
        return rows_ND, 0
    counts = _counts(len(rows_ND), rows_ND.device)
    gathered: Tensor = _GatherRows.apply(rows_ND, counts)  # type: ignore[no-untyped-call]  # torch
    return gathered, sum(counts[: dist.get_rank()])


def gather_row(row_D: Tensor) -> Tensor:
    """[D] of each rank -> [ranks, D] in rank order, with gradient as in `gather_rows`."""
    if rank_count() == 1:
        return row_D[None]
    gathered: Tensor = _GatherRows.apply(row_D[None], [1] * rank_count())  # type: ignore[no-untyped-call]  # torch
    return gathered


def _counts(rows: int, device: torch.device) -> list[int]:
    own = torch.tensor([rows], device=device)
    everyone = [torch.empty_like(own) for _ in range(rank_count())]
    dist.all_gather(everyone, own)
    return torch.cat(everyone).tolist()


class _GatherRows(torch.autograd.Function):
    """An all-gather of uneven parts whose backward pass is an all-reduce."""

    @staticmethod
    def forward(ctx: Any, rows_ND: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        # Collectives want parts of one shape, so shorter ones travel padded.
        padded = rows_ND.new_zeros((max(counts), *rows_ND.shape[1:]))
        padded[: len(rows_ND)] = rows_ND
        everyone = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(everyone, padded)
        return torch.cat([part[:count] for part, count in zip(everyone, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        first = sum(ctx.counts[: dist.get_rank()])
        return total[first : first + ctx.counts[dist.get_rank()]], None
