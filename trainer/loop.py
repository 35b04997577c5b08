"""The training loop.

source ─Batch→ learner ─StepResult→ ledger, metrics, progress
   ↑ trained                            └─ now and then: samples, evaluation, checkpoint
   └────────────────────────────────────┘

consumes: batches of a source. Produces: weights, and the run folder's files. Waits for: the source alone.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from protocol.errors import StreamrepError, UserError
from trainer.batch import Batch
from trainer.checkpoint import Checkpoints, TrainedState
from trainer.config import TrainerConfig
from trainer.control.steering import Steering
from trainer.done import DoneIds
from trainer.errors import STOPPING_ERRORS, NonFiniteLossError, SteeredError, StopRequestedError
from trainer.journal import Journal
from trainer.learner import Learner
from trainer.ledger import Ledger
from trainer.metrics import Meter, Row
from trainer.monitor.board import Board
from trainer.pool.recorder import Recorder
from trainer.progress import Progress
from trainer.rank_group import RankGroup
from trainer.rank_reports import RankReports, merged
from trainer.sources.source import Source
from trainer.stall_watch import StallWatch
from trainer.step_result import StepResult
from trainer.supply import Supply

Value = TypeVar("Value")


@dataclass(kw_only=True)
class Loop:
    """Runs the steps of one session on the first rank; `trainer.follower` is the others' loop. Built and
    closed by `trainer.train`."""

    config: TrainerConfig
    supply: Supply
    source: Source
    learner: Learner
    ledger: Ledger
    recorder: Recorder | None
    """Takes what is trained on for the first time to a pool."""
    checkpoints: Checkpoints
    journal: Journal
    meter: Meter
    progress: Progress
    stalls: StallWatch
    """Also told by the source of its waits."""
    board: Board
    """Takes the row of every step, for whoever watches from another thread."""
    evaluate: Callable[[int], dict[str, float]]
    """Judges the encoder after that many steps; the result joins the row of metrics."""
    write_report: Callable[[], Path]
    """Renews the page that people look at; called after each evaluation."""
    done: DoneIds
    dead_letters: dict[int, str]
    plan_digest: str
    steering: Steering
    """Meets the wishes of people at the opening of each step, and knows the run's modes."""
    stop: threading.Event
    ranks: RankGroup
    reports: RankReports
    step: int
    """Steps trained so far."""

    def run(self) -> None:
        """Trains until `max_steps` or until asked to stop; either way the last step is checkpointed."""
        saved = self.step
        try:
            while self.step < self.config.run.max_steps and not self._is_stopped_alone():
                batch, result = self._train_step()
                row = self._row(result)
                last = self.step == self.config.run.max_steps
                evaluating = last or self._is_due(self.config.eval.every)
                if evaluating:
                    row |= self._evaluate(batch)
                if evaluating or self._is_due(self.config.train.log_every):
                    row |= result.measures()
                    self.journal.row(row)
                    self.meter.restart()
                if evaluating:
                    self._timed(self.write_report)
                self.progress.update(row)
                self.board.put(row)
                if self._is_due(self.config.train.checkpoint_every):
                    self._timed(self.save)
                    saved = self.step
        except StopRequestedError:
            self.stop.set()
        except self._stopping_errors() as error:
            if saved != self.step:
                self.save()
            self.ranks.settled = True
            if isinstance(error, NonFiniteLossError):
                last_good = self.checkpoints.path(self.step)
                raise NonFiniteLossError(f"{error}; the last good checkpoint is {last_good}") from error
            raise
        if saved != self.step:
            self.save()
        self.ranks.settled = True

    def save(self) -> None:
        """Writes a checkpoint of what all ranks trained so far; ledger and pool reach the disk first."""
        state = self._state()
        self.ledger.flush()
        if self.recorder:
            self.recorder.seal()
        with self.stalls.writing_checkpoint(self.step):
            self.checkpoints.save(state, self.learner.tensors())
        self.ranks.wait_for_all()

    def _is_stopped_alone(self) -> bool:
        """With several ranks stopping is a decision of all, where they meet."""
        return self.ranks.world == 1 and self.stop.is_set()

    def _stopping_errors(self) -> tuple[type[StreamrepError], ...]:
        """After which the last step is checkpointed. With several ranks all must come to the checkpoint."""
        return STOPPING_ERRORS if self.ranks.world > 1 else (*STOPPING_ERRORS, UserError)

    def _state(self) -> TrainedState:
        ring = self.reports.rings(self.source.ring_contents())
        self._note_dead_letters()
        return TrainedState(
            step=self.step,
            plan=self.plan_digest,
            content=self.supply.content,
            done_low=self.done.low,
            done_above=tuple(self.done.above),
            dead_letters=self.dead_letters,
            ring=ring,
            order=self.config.stream.order,
            modes=tuple(self.steering.modes),
            file_mode=self.config.run.mode,
            reuse=self.supply.reuse,
            groups_trained=self.meter.groups_trained,
            uses=self.meter.uses,
            images_received=self.meter.images_received,
            wait_seconds=self.meter.wait_seconds,
            train_seconds=self.meter.train_seconds,
        )

    def _next_batch(self) -> tuple[Batch, float]:
        """The batch of the next step, and the seconds waited for it."""
        waited = 0.0
        while True:
            self.source = self._timed(
                lambda: self.steering.open_step(self.step + 1, self.source, self._state)
            )
            source, before = self.source, self.source.wait_seconds
            try:
                return source.next_batch(self.step + 1), waited + source.wait_seconds - before
            except SteeredError:
                waited += source.wait_seconds - before

    def _train_step(self) -> tuple[Batch, StepResult]:
        batch, waited = self._next_batch()
        began = time.monotonic()
        result = self.learner.step(batch)
        self.step = batch.step
        self.source.trained(batch)
        parts = self.reports.exchange(batch, self.source.ring_groups)
        for rank, part in enumerate(parts):
            self.ledger.record(part, rank)
        whole = merged(parts)
        for group, use in zip(whole.groups, whole.uses, strict=True):
            if use == 1:
                self.done.add(group.group_id)
                if self.recorder and group.source == "online":
                    self.recorder.add(group, batch.step)
        self.meter.count(whole, waited, time.monotonic() - began)
        return batch, result

    def _row(self, result: StepResult) -> Row:
        return {
            "step": self.step,
            "time": time.time(),
            "loss": result.loss,
            "loss_excess": result.loss_excess,
            "lr": result.lr,
            **self.meter.row(self.config.generation.views, self.supply.status()),
            "ring_groups": self.source.ring_groups + self.reports.other_ring_groups,
            "reuse": self.supply.reuse,
            "mode": self.steering.config.run.mode,
            "stalls": self.stalls.seconds,
        }

    def _evaluate(self, batch: Batch) -> dict[str, float]:
        def evaluate() -> dict[str, float]:
            self.journal.batch(batch)
            with suppress(StopRequestedError):  # the loop will see it, where the ranks meet
                return self.evaluate(self.step)
            return {}

        return self._timed(evaluate)

    def _timed(self, work: Callable[[], Value]) -> Value:
        began = time.monotonic()
        value = work()
        self.meter.pause(time.monotonic() - began)
        return value

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _note_dead_letters(self) -> None:
        new = {i: why for i, why in self.supply.dead_letters().items() if i not in self.dead_letters}
        self.ledger.record_dead_letters(new)
        if self.config.stream.order == "ticket":
            return  # it is not done with: a resumed run tries it again, since none may be left out
        for group_id in new:
            self.done.add(group_id)
        self.dead_letters |= new
