"""The loop of every rank but the first: the same steps in lockstep, and no file of its own.

source ─Batch→ learner → report to the first rank, which writes ledger, metrics and checkpoints for all
   ↑ trained ──┘

Must make the same collective calls as `trainer.loop`: a meeting for each step, those of the learner, a
report, and the rings at each checkpoint.
"""

from dataclasses import dataclass

from trainer.config import TrainerConfig
from trainer.errors import STOPPING_ERRORS, StopRequestedError
from trainer.learner import Learner
from trainer.rank_group import RankGroup
from trainer.rank_reports import RankReports
from trainer.sources.source import Source


@dataclass(kw_only=True)
class Follower:
    """Runs the steps of one session on this rank. Built and closed by `trainer.train`."""

    config: TrainerConfig
    source: Source
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

    def _train_step(self) -> None:
        batch = self.source.next_batch(self.step + 1)
        self.learner.step(batch)
        self.step = batch.step
        self.source.trained(batch)
        self.reports.exchange(batch, self.source.ring_groups)
