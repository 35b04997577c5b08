"""Checkpoints: what was trained, not what was fetched.

Written aside and renamed; only whole ones are read.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Literal

import msgspec
import torch
from msgspec import Struct
from safetensors.torch import load_file, save_file

from protocol.errors import UserError
from trainer.config import Mode

_NAME = re.compile(r"^step-(\d{9})$")
_STATE, _TENSORS = "state.json", "tensors.safetensors"

Tensors = dict[str, torch.Tensor]


class TrainedState(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a run stands after `step` optimizer steps."""

    version: int = 1
    step: int
    plan: str
    """Digest of captions, seed and generation spec."""
    content: str
    """Content hash of the workers; empty before the first."""
    done_low: int
    """Every id below it was trained or given up."""
    done_above: tuple[int, ...]
    dead_letters: dict[int, str]
    ring: tuple[tuple[int, int, int], ...]
    """(group_id, uses, last step) of each group that could be used again."""
    order: Literal["arrival", "ticket"] = "arrival"
    """`stream.order` of the steps so far."""
    modes: tuple[tuple[int, Mode], ...] = ()
    """(first step, mode) of all modes so far, those that were switched to among them."""
    file_mode: Mode | None = None
    """`run.mode` of the run file, from which a switch may have led away."""
    reuse: float | None = None
    """What `stream.reuse = "auto"` had come to; None with another."""
    groups_trained: int
    """Distinct groups."""
    uses: int
    """Trainings of groups, repeats included."""
    images_received: int
    wait_seconds: float
    train_seconds: float


class Checkpoints:
    """The checkpoint folder of one run."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, state: TrainedState, tensors: Tensors) -> Path:
        """Writes one checkpoint and drops the oldest beyond `keep`. A crash leaves the last whole one."""
        final = self.path(state.step)
        temporary = self._folder / f".writing-{state.step:09d}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary / _TENSORS)
        (temporary / _STATE).write_bytes(msgspec.json.encode(state))
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        _sync(self._folder)
        for old in self._whole()[: -self._keep]:
            shutil.rmtree(old)
        return final

    def path(self, step: int) -> Path:
        """Where the checkpoint of `step` is, once it is whole."""
        return self._folder / f"step-{step:09d}"

    def latest(self) -> tuple[TrainedState, Tensors] | None:
        """The newest checkpoint, or None. Raises UserError when it can't be read."""
        for leftover in self._folder.glob(".writing-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        whole = self._whole()
        if not whole:
            return None
        try:
            state = msgspec.json.decode((whole[-1] / _STATE).read_bytes(), type=TrainedState, strict=False)
            return state, load_file(whole[-1] / _TENSORS)
        except (OSError, msgspec.DecodeError, ValueError) as error:
            raise UserError(
                "checkpoint can't be read",
                expected="a folder that this version wrote",
                got=str(error),
                where=str(whole[-1]),
                mend="delete that folder to go on from the one before it",
            ) from error

    def written_at(self) -> float | None:
        """When the newest was written, in seconds of Unix time; None where there is none. For any thread."""
        try:
            return max((path.stat().st_mtime for path in self._whole()), default=None)
        except FileNotFoundError:
            return None  # one was dropped while we looked

    def _whole(self) -> list[Path]:
        return sorted(path for path in self._folder.iterdir() if _NAME.match(path.name))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
