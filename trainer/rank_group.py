"""A trainer's place among the ranks of its run, and the messages that ranks exchange beside their tensors.

Messages are bytes that travel as tensors: no pickle. All ranks must make the same calls in the same order.
"""

import json
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(kw_only=True)
class RankGroup:
    """One rank of `world`; the first one writes all files. Alone it exchanges nothing."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Among the ranks of this machine: which of its GPUs is this one's."""
    address: str = "127.0.0.1"
    """Under which the first rank's machine knows this one."""
    settled: bool = False
    """Whether every rank knows that the run ends, so that this one's leaving is no news to the others."""

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the run's files."""
        return self.rank == 0

    def share(self, own: bytes) -> list[bytes]:
        """The message of every rank, in rank order, on all of them."""
        if self.world == 1:
            return [own]
        lengths = self._gather(torch.tensor([len(own)]))
        padded = torch.zeros(max(int(length) for length in lengths), dtype=torch.uint8)
        if own:
            padded[: len(own)] = torch.frombuffer(bytearray(own), dtype=torch.uint8)
        parts = self._gather(padded)
        return [part[: int(n)].numpy().tobytes() for part, n in zip(parts, lengths, strict=True)]

    def from_first(self, own: bytes) -> bytes:
        """The first rank's message on all ranks, whatever the others give."""
        return self.share(own if self.is_first else b"")[0]

    def same_tensors(self, tensors: Tensors) -> Tensors:
        """The first rank's tensors, all on the CPU, on all ranks. What the others give does not matter."""
        if self.world == 1:
            return tensors
        shapes = [(name, str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in tensors.items()]
        told = json.loads(self.from_first(json.dumps(shapes).encode()))
        same: Tensors = {}
        for name, dtype, shape in told:
            own = (
                tensors[name].contiguous()
                if self.is_first
                else torch.empty(shape, dtype=getattr(torch, dtype))
            )
            dist.broadcast(own, src=0)
            same[name] = own
        return same

    def wait_for_all(self) -> None:
        """Returns when every rank has come here."""
        if self.world > 1:
            dist.all_reduce(torch.zeros(1))

    def _gather(self, own: Tensor) -> list[Tensor]:
        everyone = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(everyone, own)
        return everyone
