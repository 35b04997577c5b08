"""Opens the trackers that a run file asks for."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from trainer.trackers.config import LogConfig
from trainer.trackers.tensorboard import TensorBoardTracker
from trainer.trackers.tracker import Tracker
from trainer.trackers.wandb import WandbTracker


def open_trackers(
    stack: ExitStack, config: LogConfig, folder: Path, resolved: dict[str, Any], resumed_step: int
) -> list[Tracker]:
    """Trackers of the run in `folder`, closed with the stack; `resolved` is its whole run file. Raises
    UserError."""
    trackers: list[Tracker] = []
    if config.tensorboard:
        purge_step = resumed_step + 1 if resumed_step else None
        tensorboard = TensorBoardTracker(folder / "tensorboard", f"after{resumed_step}", purge_step)
        stack.callback(tensorboard.close)
        tensorboard.begin(resolved, resumed=resumed_step > 0)
        trackers.append(tensorboard)
    if config.wandb:
        trackers.append(WandbTracker(config.wandb, folder, resolved))
        stack.callback(trackers[-1].close)
    return trackers
