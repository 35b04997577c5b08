"""How often groups are trained on where `stream.reuse = "auto"`: a controller, pure but for what it is told.

wait, work and backlog of each step ─→ [window of steps] ─→ effective reuse ─→ fresh groups of the next batch

An effective reuse of r asks for B / r fresh groups in a batch of B, as ticket order does; the ring fills the
rest. Let a step take T seconds of work, and generators bring g groups a second. A batch with f fresh groups
then waits max(0, f / g - T), a share w = 1 - T g / f of its time. So a share w that was seen at f becomes w*
at f (1 - w) / (1 - w*), whatever T and g are: one correction is enough, and nothing swings. No waiting says
nothing of g; what says that more fresh groups are to be had is a backlog that never ran empty.
"""

import math

WINDOW_STEPS = 16
"""That a decision rests on; fewer where they waited for as long as half of these work."""
SET_POINT = 0.25
"""Of the target: what a correction aims at, so that noise stays below the target."""
CALM_WINDOWS = 3
"""Without such waiting before reuse falls: groups come in bursts, and a run of luck looks like a surplus."""
RESERVE, RESERVE_BATCHES = 0.9, 2
"""What is left of the backlog: that part, or the fresh groups of so many batches where that is less."""
GROWTH_MAX = 1.5
"""Of the fresh groups a batch, at one decision."""


class AutoReuse:
    """Holds the trainer's waiting share under a target with the least reuse that does so.

    - Waited more than a quarter of the target: reuse rises to where it would be that quarter.
    - Waited less, and groups lay ready all the time: reuse falls, to use some of them up.
    - Else it stays.
    """

    def __init__(self, *, reuse_max: float, waiting_target: float, begins_at: float = 1.0) -> None:
        """`reuse_max`: never exceeded, however long the trainer waits. A new run begins with no reuse at all,
        one that goes on at the reuse of its checkpoint."""
        self._reuse_max = reuse_max
        self._set_point = SET_POINT * waiting_target
        self.reuse = min(reuse_max, max(1.0, begins_at))
        """Effective: groups of a batch for each fresh one."""
        self._carry = 0.0
        """Of a fresh group that earlier batches were short of."""
        self._calm: list[int] = []
        """Least backlog of each window since the last decision."""
        self._backlog = 0
        self._restart()

    def fresh_groups(self, groups: int) -> int:
        """How many of the next batch's `groups` must be fresh."""
        return min(groups, int(groups / self.reuse + self._carry + 1e-9))

    def stepped(self, groups: int, *, wait_seconds: float, work_seconds: float, backlog: int) -> None:
        """A step on a batch of `groups` is over. `backlog`: fresh groups left at hand when it was formed."""
        self._carry = min(1.0, groups / self.reuse + self._carry - self.fresh_groups(groups))
        self._steps += 1
        self._groups += groups
        self._wait_seconds += wait_seconds
        self._work_seconds += work_seconds
        self._backlog = min(self._backlog, backlog) if self._steps > 1 else backlog
        waited_long = self._wait_seconds * self._steps >= self._work_seconds * WINDOW_STEPS / 2
        if self._steps >= WINDOW_STEPS or (waited_long and self._wait_seconds > 0):
            self._decide()
            self._restart()

    def _decide(self) -> None:
        elapsed = self._wait_seconds + self._work_seconds
        working_share = self._work_seconds / elapsed if elapsed else 1.0
        fresh = self._groups / self._steps / self.reuse
        if 1 - working_share > self._set_point:
            self._calm = []
            self._set(self.reuse * (1 - self._set_point) / working_share if working_share else math.inf)
            return
        self._calm.append(self._backlog)
        if len(self._calm) == CALM_WINDOWS:
            backlog = min(self._calm)
            surplus = max(backlog * (1 - RESERVE), backlog - RESERVE_BATCHES * fresh)
            self._calm = []
            self._set(self.reuse / min(GROWTH_MAX, 1 + surplus / WINDOW_STEPS / fresh))

    def _set(self, reuse: float) -> None:
        self.reuse = min(self._reuse_max, max(1.0, reuse))

    def _restart(self) -> None:
        self._steps = self._groups = 0
        self._wait_seconds = self._work_seconds = 0.0
        self._backlog = 0
