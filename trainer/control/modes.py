"""Which mode a run is in: pure functions of what was trained, asked and recorded."""

from collections.abc import Mapping

from msgspec import structs

from trainer.checkpoint import TrainedState
from trainer.config import Mode, TrainerConfig


def next_mode(step: int, now: Mode, asked: Mode | None, recorded: Mapping[int, Mode]) -> Mode:
    """The mode of that step: a person's wish, or what the ledger had switched to there before a resume."""
    return asked or recorded.get(step, now)


def modes_so_far(file_mode: Mode, state: TrainedState) -> tuple[tuple[int, Mode], ...]:
    """(first step, mode) of the run that goes on from that state. A switch outlives a restart, until the run
    file's own mode is changed; then all that is trained from there on comes from the new mode's source."""
    if state.modes and state.file_mode == file_mode:
        return state.modes
    return ((1, file_mode),)


def with_mode(config: TrainerConfig, mode: Mode) -> TrainerConfig:
    """The same run in another mode."""
    return structs.replace(config, run=structs.replace(config.run, mode=mode))
