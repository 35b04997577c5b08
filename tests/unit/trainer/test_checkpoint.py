"""Only whole checkpoints are ever seen."""

from pathlib import Path

import pytest
import torch

from protocol.errors import UserError
from trainer.checkpoint import Checkpoints, TrainedState


def _state(step: int) -> TrainedState:
    return TrainedState(
        step=step,
        plan="p",
        content="c",
        done_low=3,
        done_above=(5, 9),
        dead_letters={4: "why"},
        ring=((1, 2, 3),),
        groups_trained=5,
        uses=8,
        images_received=30,
        wait_seconds=1.5,
        train_seconds=2.5,
    )


def test_what_is_saved_is_what_comes_back(tmp_path: Path) -> None:
    """State and tensors, bit for bit."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() is None
    tensors = {"a": torch.randn(3, 4), "rng.torch": torch.get_rng_state(), "t": torch.randn(4, 3).T}
    checkpoints.save(_state(7), tensors)
    loaded = checkpoints.latest()
    assert loaded is not None
    assert loaded[0] == _state(7)
    assert loaded[1].keys() == tensors.keys()
    assert all(torch.equal(loaded[1][k], tensors[k]) for k in tensors)


def test_the_newest_wins_and_old_ones_leave(tmp_path: Path) -> None:
    """`keep` bounds the disk."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (0, 250, 1000):
        checkpoints.save(_state(step), {"a": torch.zeros(1)})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000250", "step-000001000"]
    latest = checkpoints.latest()
    assert latest is not None
    assert latest[0].step == 1000


def test_a_write_cut_short_is_not_a_checkpoint(tmp_path: Path) -> None:
    """A kill while writing leaves the one before it; the remains are cleared away."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(_state(1), {"a": torch.zeros(1)})
    (tmp_path / ".writing-000000002").mkdir()
    (tmp_path / ".writing-000000002" / "state.json").write_text("{")
    latest = checkpoints.latest()
    assert latest is not None
    assert latest[0].step == 1
    assert not list(tmp_path.glob(".writing-*"))


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    """A resumed run may reach the same step once more."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(_state(1), {"a": torch.zeros(1)})
    checkpoints.save(_state(1), {"a": torch.ones(1)})
    latest = checkpoints.latest()
    assert latest is not None
    assert float(latest[1]["a"]) == 1.0


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    """Names the folder and what to do."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    folder = checkpoints.save(_state(1), {"a": torch.zeros(1)})
    (folder / "state.json").write_text('{"version": 1}')
    with pytest.raises(UserError, match="delete that folder"):
        checkpoints.latest()
