"""Opens a run's control, and its door to people where one rank trains alone."""

from contextlib import ExitStack

from trainer.config import Mode, TrainerConfig
from trainer.control.control import Control
from trainer.control.door import Door
from trainer.control.modes import with_mode
from trainer.control.status import status_of
from trainer.control.steering import check_mode
from trainer.monitor.reading import Observer
from trainer.pool.recorder import Recorder
from trainer.rank_group import RankGroup


def open_control(
    stack: ExitStack,
    config: TrainerConfig,
    mode: Mode,
    observer: Observer,
    recorder: Recorder | None,
    ranks: RankGroup,
) -> Control:
    """Of a run in that mode. `stack` closes the door. Several ranks have none yet: they would
    have to switch at the same step. Raises UserError where the run's folder can't hold a socket."""
    control = Control(
        mode,
        lambda mode: check_mode(with_mode(config, mode), recorder),
        lambda mode, paused: status_of(observer.read(), mode, paused=paused),
    )
    if ranks.world == 1:
        stack.callback(Door(observer.folder, control.answer).close)
    return control
