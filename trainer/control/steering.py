"""The opening of each step: the wishes of people are met, and a recorded switch happens at its step again.

Control ─asked→ ┐
ledger ─modes─→ ├ next_mode ─→ Supply.change ─→ another source    pause: nothing, until somebody asks
now ──────────→ ┘
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from protocol.errors import UserError
from trainer import limits
from trainer.checkpoint import TrainedState
from trainer.config import Mode, TrainerConfig
from trainer.control.control import Control
from trainer.control.modes import next_mode, with_mode
from trainer.errors import SteeredError, StopRequestedError
from trainer.ledger import Ledger
from trainer.lockstep import Lockstep
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
    lockstep: Lockstep | None = None
    """Of a run with several ranks, which nobody can ask for anything."""

    def open_source(self) -> Source:
        """What the loop takes its batches from until the next switch."""
        return self.supply.open_source(self.stop, self, self.lockstep)

    def open_step(self, step: int, source: Source, state: Callable[[], TrainedState]) -> Source:
        """Where that step's batch comes from. Returns after a pause only when that is over.

        `state`: what was trained so far. Raises StopRequestedError when asked to stop during a pause, and
        UserError where a recorded switch can't be made again.
        """
        rested = False
        while True:
            asked, now = self.control.asked, self.config.run.mode
            mode = next_mode(step, now, asked.mode, self.recorded)
            refusal = ""
            if mode != now:
                try:
                    source = self._switch(mode, state())
                except UserError as error:
                    if asked.mode is None:
                        raise
                    refusal = str(error)
                    self.progress.say(f"stays in mode {now}: {error}")
            paused = self.control.paused if asked.paused is None else asked.paused
            if paused != self.control.paused:
                self.ledger.record_switch(step, "pause" if paused else "resume", "ctl")
            self.control.settled(asked, mode=self.config.run.mode, paused=paused, refusal=refusal)
            if not paused:
                if rested:
                    self.stalls.over()
                return source
            rested = True
            self._rest(step - 1)

    def _switch(self, mode: Mode, state: TrainedState) -> Source:
        config = with_mode(self.config, mode)
        step = state.step + 1
        check_mode(config, self.recorder)
        if self.recorder:
            self.recorder.seal()  # the pool may be what is read from now on
        modes = (*((first, before) for first, before in self.modes if first < step), (step, mode))
        self.supply.change(config, state, modes)
        self.config, self.modes = config, modes
        self.recorded = {at: later for at, later in self.recorded.items() if at > step}
        if self.control.asked.mode:
            self.recorded = {}  # a person has decided anew
        self.ledger.record_switch(step, mode, "ctl")
        self.progress.say(f"mode {mode} from step {step} on")
        return self.open_source()

    def _rest(self, step: int) -> None:
        while not self.control.pending:
            if self.stop.is_set():
                self.stalls.over(goes_on=False)
                raise StopRequestedError("asked to stop during a pause")
            self.supply.check()
            self.stalls.paused(step)
            self.control.wait(LOOK_SECONDS)

    # the watch of the sources

    def waiting(self, want: Want) -> None:
        """Tells the stall watch. Raises SteeredError where somebody asked for something."""
        if self.control.pending:
            raise SteeredError("somebody asked for something while the trainer waited")
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
