"""Opens a run's control, and its door to people."""

from contextlib import ExitStack

from trainer.config import Mode, TrainerConfig
from trainer.control.control import Control
from trainer.control.door import Door
from trainer.control.modes import with_mode
from trainer.control.status import status_of
from trainer.control.steering import check_mode
from trainer.monitor.reading import Observer
from trainer.pool.recorder import Recorder


def open_control(
    stack: ExitStack,
    config: TrainerConfig,
    mode: Mode,
    observer: Observer,
    recorder: Recorder | None,
) -> Control:
    """Of a run in that mode, on its first rank. `stack` closes the door. Raises UserError where the run's
    folder can't hold a socket."""
    control = Control(
        mode,
        lambda mode: check_mode(with_mode(config, mode), recorder),
        lambda mode, paused: status_of(observer.read(), mode, paused=paused),
    )
    stack.callback(Door(observer.folder, control.answer).close)
    return control
