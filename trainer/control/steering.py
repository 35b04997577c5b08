"""The opening of each step: the wishes of people are met, and a recorded switch happens at its step again.

Control ─asked→ ┐
ledger ─modes─→ ├ next_mode ─→ Supply.change ─→ another source    pause: nothing, until somebody asks
now ──────────→ ┘
                          with several ranks all of them, told by Turns
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from protocol.errors import UserError
from trainer import limits
from trainer.checkpoint import TrainedState
from trainer.config import Mode, TrainerConfig
from trainer.control.control import Asked, Control
from trainer.control.modes import next_mode, with_mode
from trainer.control.turns import Turn, Turns
from trainer.errors import SteeredError, StopRequestedError
from trainer.ledger import Ledger
from trainer.pool.recorder import Recorder
from trainer.progress import Progress
from trainer.sources.share import Modes
from trainer.sources.source import Source
from trainer.stall import Want
from trainer.stall_watch import StallWatch
from trainer.supply import Supply

LOOK_SECONDS = 0.2


@dataclass
class Steering:
    """Belongs to the training thread. Also the watch of the sources: a wish ends their waiting."""

    config: TrainerConfig
    """With the mode of this moment."""
    modes: Modes
    recorded: Mapping[int, Mode]
    """Switches that were made after the checkpoint and are made again, by their steps."""
    control: Control
    supply: Supply
    ledger: Ledger
    recorder: Recorder | None
    stalls: StallWatch
    progress: Progress
    stop: threading.Event
    turns: Turns | None = None
    """Of a run with several ranks."""

    def open_source(self) -> Source:
        """What the loop takes its batches from until the next switch."""
        return self.supply.open_source(self.stop, self, self.turns.lockstep if self.turns else None)

    def open_step(self, step: int, source: Source, state: Callable[[], TrainedState]) -> Source:
        """Where that step's batch comes from. Returns after a pause only when that is over.

        `state`: what was trained so far, which several ranks find out together. Raises StopRequestedError
        when asked to stop during a pause, and UserError, or PeerFailedError with several ranks, where a
        recorded switch can't be made again.
        """
        now = self.config.run.mode
        wanted = self.control.pending or next_mode(step, now, None, self.recorded) != now
        if not (self.turns.is_due(wanted=wanted) if self.turns else wanted):
            return source
        rested = False
        while True:
            asked = self.control.asked
            turn = self._decide(step, asked, state)
            source, refusal = self._change(turn, source) if turn.changes else (source, "")
            if turn.paused != self.control.paused:
                self.ledger.record_switch(step, "pause" if turn.paused else "resume", "ctl")
            self.control.settled(asked, mode=self.config.run.mode, paused=turn.paused, refusal=refusal)
            if not turn.paused:
                if rested:
                    self.stalls.over()
                return source
            rested = True
            self._rest(step - 1)

    def _decide(self, step: int, asked: Asked, state: Callable[[], TrainedState]) -> Turn:
        now = self.config.run.mode
        mode = next_mode(step, now, asked.mode, self.recorded)
        modes = (*((first, before) for first, before in self.modes if first < step), (step, mode))
        turn = Turn(
            state=state(),
            mode=mode,
            modes=modes if mode != now else tuple(self.modes),
            changes=mode != now,
            wished=asked.mode is not None,
            paused=self.control.paused if asked.paused is None else asked.paused,
        )
        if self.turns:
            self.turns.tell(turn)
        return turn

    def _change(self, turn: Turn, source: Source) -> tuple[Source, str]:
        """The source from here on, and why it is still the old one where a person may be told so."""
        config, refusal = with_mode(self.config, turn.mode), ""

        def check() -> None:
            check_mode(config, self.recorder)
            if self.recorder:
                self.recorder.seal()  # the pool may be what is read from now on
            self.supply.prepare(config, turn.state, turn.modes)

        try:
            if self.turns:
                refusal = self.turns.refusal(turn, check)
            else:
                check()
            if not refusal:
                return self._switch(config, turn), ""
        except UserError as error:
            if self.turns or not turn.wished:
                raise
            refusal = str(error)
        self.progress.say(f"stays in mode {self.config.run.mode}: {refusal}")
        return source, refusal

    def _switch(self, config: TrainerConfig, turn: Turn) -> Source:
        step = turn.state.step + 1
        self.supply.change(config, turn.state, turn.modes)
        self.config, self.modes = config, turn.modes
        # Where a person has decided anew, nothing is left of what was recorded.
        ahead = {} if turn.wished else self.recorded
        self.recorded = {at: mode for at, mode in ahead.items() if at > step}
        self.ledger.record_switch(step, turn.mode, "ctl")
        self.progress.say(f"mode {turn.mode} from step {step} on")
        return self.open_source()

    def _rest(self, step: int) -> None:
        """Until somebody asks for something."""
        try:
            while not (self._rest_together(self.turns) if self.turns else self._rest_alone()):
                self.stalls.paused(step)
                self.control.wait(LOOK_SECONDS)
        except StopRequestedError:
            self.stalls.over(goes_on=False)
            raise

    def _rest_alone(self) -> bool:
        if self.control.pending:
            return True
        if self.stop.is_set():
            raise StopRequestedError("asked to stop during a pause")
        self.supply.check()
        return False

    def _rest_together(self, turns: Turns) -> bool:
        return turns.rest(self.supply.check, wanted=self.control.pending)

    # the watch of the sources

    def waiting(self, want: Want) -> None:
        """Tells the stall watch. Raises SteeredError where somebody asked for something; of several ranks all
        do so, at their next meeting."""
        if self.control.pending and self.turns is None:
            raise SteeredError("somebody asked for something while the trainer waited")
        if self.turns:
            self.turns.want(wanted=self.control.pending)
        self.stalls.waiting(want)

    def over(self, *, goes_on: bool = True) -> None:
        """Tells the stall watch."""
        self.stalls.over(goes_on=goes_on)


def check_mode(config: TrainerConfig, recorder: Recorder | None) -> None:
    """Raises UserError where a running trainer can't switch to the mode of these settings."""
    limits.check(config)
    if config.pool.replay:
        raise UserError(
            "no switch of mode in a replay",
            expected="the mode that the recorded run is replayed in",
            got=config.run.mode,
            where="pool.replay",
            mend="start a run without pool.replay",
        )
    if config.pool.write and recorder is None and config.run.mode != "offline":
        raise UserError(
            "nothing records",
            expected="a trainer that was started in mode online or mixed, since pool.write = true",
            got="one that was started offline",
            where="pool.write",
            mend="stop the run and start it with --run.mode, or with --pool.write false",
        )
