"""Groups of a pool as a source wants them: decoded ahead, and handed out in the order of their ids.

ids ─ticket→ selection of images ─job→ decoders ─pixels, in any order→ [ready] ─in order→ source
"""

import time
from collections.abc import Callable, Iterator

from protocol.errors import UserError
from protocol.payload import ImagesNHWC, checksum
from protocol.tickets import Ticket
from trainer.batch import DrawnGroup
from trainer.plan import Plan
from trainer.pool.decoders import Decoders
from trainer.pool.decoding import Answer, Job
from trainer.pool.index import PoolImage
from trainer.pool.pool import Pool
from trainer.pool.sampling import Select

NO_IMAGES = "no_images"


class PoolFeed:
    """A `trainer.sources.wait.GroupFeed`. All methods are for the training thread."""

    def __init__(
        self,
        plan: Plan,
        pool: Pool,
        select: Select,
        ids: Iterator[int],
        *,
        window: int,
        processes: int,
        limit: int | None = None,
        expected: Callable[[int], str] | None = None,
    ) -> None:
        """`ids`: groups in the order in which they are to come. `window`: that may be decoded or being
        decoded and never trained on, at most. `limit`: how many groups will be taken in all. `expected`: the
        digest that a group must have."""
        self._plan = plan
        self._pool = pool
        self._select = select
        self._ids = ids
        self._window = window
        self._limit = limit
        self._expected = expected
        self._decoders = Decoders(pool.folder, processes, plan.spec.size)
        self._sent = 0
        self._next = 0
        self._jobs: dict[int, tuple[Ticket, tuple[PoolImage, ...]]] = {}
        self._ready: dict[int, DrawnGroup | None] = {}
        self._untrained: set[int] = set()
        self._dead: dict[int, str] = {}

    def take(self, count: int) -> list[DrawnGroup]:
        """At most `count` groups. Raises FeedFailedError, and PoolDamagedError beyond the pool's limit."""
        self._collect()
        taken: list[DrawnGroup] = []
        while len(taken) < count and self._next in self._ready:
            group = self._ready.pop(self._next)
            self._next += 1
            if group is not None:
                taken.append(group)
        self._fill_window()
        return taken

    def wait(self, seconds: float) -> None:
        """Returns when something was decoded or the time is over."""
        self._decoders.wait(seconds)

    def trained(self, group_ids: list[int]) -> None:
        """Frees the room of groups trained for the first time; the next `take` fills it.

        Nothing is read here, so that no damage can be found between a step and the notes on it.
        """
        self._untrained.difference_update(group_ids)

    def dead_letters(self) -> dict[int, str]:
        """Groups that the pool has no usable image for, with their reasons."""
        return dict(self._dead)

    @property
    def buffered(self) -> int:
        """Groups decoded and not handed out. For any thread, as `damage` is."""
        return sum(group is not None for group in list(self._ready.values()))

    @property
    def damage(self) -> dict[str, int]:
        """Images of the pool that could not be used, by reason."""
        return {f"pool_{reason}": count for reason, count in dict(self._pool.damage.reasons).items()}

    def close(self) -> None:
        """Ends the decoding processes."""
        self._decoders.close()

    def _fill_window(self) -> None:
        while len(self._untrained) < self._window:
            if self._limit is not None and self._sent - len(self._dead) >= self._limit:
                return
            group_id = next(self._ids, None)
            if group_id is None:
                return
            self._send(self._plan.ticket(group_id))

    def _send(self, ticket: Ticket) -> None:
        selection = self._select(ticket)
        images = tuple(self._pool.index.image(row) for row in selection.rows)
        number = self._sent
        self._sent += 1
        self._untrained.add(ticket.group_id)
        if not images:
            self._bury(number, ticket)
            return
        self._jobs[number] = ticket, images
        places = tuple(image.place for image in images)
        self._decoders.submit(Job(number, places, ticket.views, self._plan.spec.size, selection.exact))

    def _collect(self) -> None:
        for answer, images_NHWC in self._decoders.take():
            ticket, images = self._jobs.pop(answer.number)
            for place, reason, detail in answer.damaged:
                self._pool.damage.count(images[place].place.name, reason, detail)
            if answer.used:
                self._ready[answer.number] = self._group(ticket, images, answer, images_NHWC)
            else:
                self._bury(answer.number, ticket)

    def _bury(self, number: int, ticket: Ticket) -> None:
        reason = f"the pool has no usable images for {ticket.caption!r}"
        self._pool.damage.count(f"group {ticket.group_id}", NO_IMAGES, reason)
        self._dead[ticket.group_id] = reason
        self._untrained.discard(ticket.group_id)
        self._ready[number] = None

    def _group(
        self, ticket: Ticket, images: tuple[PoolImage, ...], answer: Answer, images_NHWC: ImagesNHWC
    ) -> DrawnGroup:
        used = tuple(images[place] for place in answer.used)
        digest = checksum(images_NHWC)
        if self._expected and digest != (expected := self._expected(ticket.group_id)):
            raise UserError(
                "pool is not what the run trained on",
                expected=f"pixels of digest {expected} for group {ticket.group_id}",
                got=digest,
                where=str(self._pool.folder),
                mend="replay from the pool that the run recorded, without loss (pool.picture webp or png)",
            )
        return DrawnGroup(
            ticket=ticket,
            images_NHWC=images_NHWC,
            source="pool",
            worker="pool",
            content=_joined(image.content for image in used),
            engine=_joined(image.engine for image in used),
            digest=digest,
            arrived_seconds=time.monotonic(),
            images=used,
        )


def _joined(values: Iterator[str]) -> str:
    return ",".join(sorted(set(values)))
