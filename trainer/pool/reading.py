"""Opens the pool that a run file names, and makes sure that it can serve that run."""

from pathlib import Path

from protocol.errors import UserError
from trainer.config import TrainerConfig
from trainer.plan import Plan
from trainer.pool.pool import Pool, open_pool

LOOK_TICKETS = 100
"""Whose captions are looked for."""


def open_sampled_pool(config: TrainerConfig, plan: Plan) -> Pool:
    """A pool with images 0 to l - 1 of the plan's captions. Raises UserError, PoolDamagedError.

    Looked at are the captions of the first few tickets: a pool of other captions has none of them. A few that
    it lacks are for the count of damage.
    """
    folder, wanted = Path(config.pool.dir), config.pool.images_per_caption
    pool = open_pool(folder, max_damaged=config.pool.max_damaged)
    tickets = [plan.ticket(group_id) for group_id in range(min(LOOK_TICKETS, len(plan.captions)))]
    counts = [len(pool.index.rows(ticket.caption_id, 0, wanted)) for ticket in tickets]
    if max(counts) == 0:
        raise UserError(
            "pool of other captions",
            expected=f"images of the run's captions, such as {tickets[0].caption!r}",
            got=f"{len(pool.index)} images of other captions",
            where=str(folder),
            mend="set captions.source to what the pool was filled with, or fill another",
        )
    if max(counts) < wanted:
        raise UserError(
            "pool has too few images",
            expected=f"pool.images_per_caption = {wanted} of a caption",
            got=f"at most {max(counts)}",
            where=str(folder),
            mend="fill it up with `streamrep pool`, or lower --pool.images_per_caption",
        )
    return pool
