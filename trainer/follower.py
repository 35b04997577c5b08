"""The loop of every rank but the first: the same steps in lockstep, and no file of its own.

source ─Batch→ learner → report to the first rank, which writes ledger, metrics and checkpoints for all
   ↑ trained ──┘

Must make the same collective calls as `trainer.loop`: a meeting for each step, those of the learner, a
report, the rings at each checkpoint, and those of a turn where the first rank has one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from trainer.batch import Batch
from trainer.config import TrainerConfig
from trainer.control.modes import with_mode
from trainer.control.turns import Turns
from trainer.errors import STOPPING_ERRORS, SteeredError, StopRequestedError
from trainer.learner import Learner
from trainer.rank_group import RankGroup
from trainer.rank_reports import RankReports
from trainer.sources.source import Source
from trainer.supply import Supply


@dataclass(kw_only=True)
class Follower:
    """Runs the steps of one session on this rank. Built and closed by `trainer.train`."""

    config: TrainerConfig
    supply: Supply
    source: Source
    open_source: Callable[[], Source]
    """After a switch of mode."""
    turns: Turns
    learner: Learner
    ranks: RankGroup
    reports: RankReports
    step: int
    """Steps trained so far."""

    def run(self) -> None:
        """Trains until `max_steps`, or until a rank was asked to stop or can't go on."""
        saved = self.step
        try:
            while self.step < self.config.run.max_steps:
                self._train_step()
                if self.step % self.config.train.checkpoint_every == 0:
                    self.save()
                    saved = self.step
        except StopRequestedError:
            pass  # all ranks leave together, after the last checkpoint
        except STOPPING_ERRORS:
            if saved != self.step:
                self.save()
            self.ranks.settled = True
            raise
        if saved != self.step:
            self.save()
        self.ranks.settled = True

    def save(self) -> None:
        """Returns when the first rank has written a checkpoint."""
        self.reports.rings(self.source.ring_contents())
        self.ranks.wait_for_all()

    def _next_batch(self) -> Batch:
        while True:
            try:
                return self.source.next_batch(self.step + 1)
            except SteeredError:
                self._take_turns()

    def _take_turns(self) -> None:
        """Until the first rank lets the run go on."""
        while True:
            turn = self.turns.hear(self.source.ring_contents())
            if turn.changes:
                config = with_mode(self.config, turn.mode)
                prepare = partial(self.supply.prepare, config, turn.state, turn.modes)
                if not self.turns.refusal(turn, prepare):
                    self.supply.change(config, turn.state, turn.modes)
                    self.config, self.source = config, self.open_source()
            if not turn.paused:
                return
            while not self.turns.rest(self.supply.check):
                pass

    def _train_step(self) -> None:
        batch = self._next_batch()
        self.learner.step(batch)
        self.step = batch.step
        self.source.trained(batch)
        self.reports.exchange(batch, self.source.ring_groups)
