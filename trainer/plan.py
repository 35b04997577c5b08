"""The plan of a run: `ticket(group_id)` is computed, never stored, so any worker can draw any group again."""

import struct
from functools import lru_cache

import msgspec
import xxhash

from protocol.generation import GenerationSpec
from protocol.identity import digest_of, view_seed
from protocol.tickets import Ticket
from trainer.captions import CaptionList
from trainer.permutation import Permutation

_RECENT_TICKETS = 1024


class Plan:
    """Captions visited epoch by epoch, each epoch in a seeded order of its own.

    `digest` names plan and generation spec together; it is the `run` of every message.
    """

    def __init__(self, captions: CaptionList, run_seed: int, spec: GenerationSpec) -> None:
        self.captions = captions
        self.run_seed = run_seed
        self.spec = spec
        self.digest = digest_of(
            {
                "captions": captions.digest,
                "count": len(captions),
                "seed": run_seed,
                "generation": msgspec.to_builtins(spec),
            }
        )
        self._order = lru_cache(maxsize=4)(self._order_of_epoch)
        # Each is wanted twice, when it is given out and when its group has come.
        self._ticket = lru_cache(maxsize=_RECENT_TICKETS)(self._ticket_of_group)

    def ticket(self, group_id: int) -> Ticket:
        """The order for one group: pure function of captions, seed, spec and id."""
        return self._ticket(group_id)

    def _ticket_of_group(self, group_id: int) -> Ticket:
        epoch, position = divmod(group_id, len(self.captions))
        index = self._order(epoch)[position]
        caption_id = self.captions.ids[index]
        first_view = epoch * self.spec.views
        return Ticket(
            group_id=group_id,
            caption_id=caption_id,
            caption=self.captions.texts[index],
            first_view=first_view,
            seeds=tuple(
                view_seed(self.run_seed, caption_id, view)
                for view in range(first_view, first_view + self.spec.views)
            ),
            guidance=(self._guidance(group_id),) * self.spec.views,
        )

    def _order_of_epoch(self, epoch: int) -> Permutation:
        return Permutation(len(self.captions), self.run_seed, epoch)

    def _guidance(self, group_id: int) -> float:
        scales = self.spec.guidance
        key = struct.pack("<8sQQ", b"guidance", self.run_seed & (2**64 - 1), group_id)
        return scales[xxhash.xxh3_64_intdigest(key) % len(scales)]
