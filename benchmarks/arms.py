"""Which image of a caption each arm of `bench modes` serves at a visit: pure functions of arm and ticket."""

from dataclasses import dataclass
from typing import Literal

from protocol.tickets import Ticket
from trainer.pool.sampling import draw_order


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One way to serve a caption's images over its visits."""

    name: str
    kind: Literal["pool", "fresh", "replay"]
    visits: int
    """Of a caption, over the whole run: all arms with as many train on as many images."""
    pool_images: int = 0
    """l, of a pool."""
    reuse: int = 1
    """Visits that a replayed group serves, one after another."""

    def images_drawn(self, views: int) -> int:
        """Images of a caption that a generator has to draw for the run."""
        return self.pool_images if self.kind == "pool" else -(-self.visits // self.reuse) * views


def served(arm: Arm, ticket: Ticket, run_seed: int) -> list[int]:
    """Numbers of the caption's images that the ticket's visit trains on, one a view.

    pool: m of the first l, as the offline source samples them; where l is below m they repeat in turn.
    fresh: the next m, never seen before. replay: the next m, each group at `reuse` visits in a row.
    """
    views = ticket.views
    if arm.kind == "pool":
        order = draw_order(run_seed, ticket.group_id, arm.pool_images)
        return [order[i % len(order)] for i in range(views)]
    visit = ticket.first_view // views
    first = visit // arm.reuse * views
    return list(range(first, first + views))


def arms_of(visits: int, pools: tuple[int, ...], reuse: int, views: int) -> list[Arm]:
    """The arms at equal images trained; then fresh ones that draw as many images as the largest pool (in
    whole visits, so up to m - 1 more), and as the replay.
    """
    replay = Arm(name=f"replay, {reuse} uses", kind="replay", visits=visits, reuse=reuse)
    equal = [
        *(Arm(name=f"pool, l = {count}", kind="pool", visits=visits, pool_images=count) for count in pools),
        Arm(name="fresh", kind="fresh", visits=visits),
        replay,
    ]
    short = sorted({-(-max(pools) // views), replay.images_drawn(views) // views})
    return [*equal, *(Arm(name=f"fresh, {n * views} images", kind="fresh", visits=n) for n in short)]
