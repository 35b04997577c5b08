"""Opens the trackers that a run file asks for, and those that a run used."""

import json
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from trainer.trackers.config import LogConfig
from trainer.trackers.tensorboard import TensorBoardTracker
from trainer.trackers.tracker import Tracker
from trainer.trackers.wandb import WandbTracker, id_path

_TENSORBOARD = "tensorboard"


def open_trackers(
    stack: ExitStack, config: LogConfig, folder: Path, resolved: dict[str, Any], resumed_step: int
) -> list[Tracker]:
    """Trackers of the run in `folder`, closed with the stack; `resolved` is its whole run file. Raises
    UserError."""
    trackers: list[Tracker] = []
    if config.tensorboard:
        purge_step = resumed_step + 1 if resumed_step else None
        tensorboard = TensorBoardTracker(folder / _TENSORBOARD, f"after{resumed_step}", purge_step)
        stack.callback(tensorboard.close)
        tensorboard.begin(resolved, resumed=resumed_step > 0)
        trackers.append(tensorboard)
    if config.wandb:
        trackers.append(WandbTracker(config.wandb, folder, resolved))
        stack.callback(trackers[-1].close)
    return trackers


def openers_of(folder: Path) -> dict[str, Callable[[], Tracker]]:
    """By name, what opens each tracker that the run in `folder` wrote to, for scores found after its end.

    The run file says which, and what the folder holds: others would begin something new. They may raise
    UserError and OSError.
    """
    resolved = json.loads((folder / "run.json").read_text("utf-8"))
    log = resolved.get("log", {})
    openers: dict[str, Callable[[], Tracker]] = {}
    if log.get("tensorboard") and (folder / _TENSORBOARD).is_dir():
        name = f"scores-{secrets.token_hex(4)}"
        openers["TensorBoard"] = partial(TensorBoardTracker, folder / _TENSORBOARD, name)
    if log.get("wandb") and id_path(folder).is_file():
        openers["Weights & Biases"] = partial(WandbTracker, log["wandb"], folder, resolved, resume="must")
    return openers
