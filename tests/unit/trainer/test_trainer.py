"""What comes before a run has begun."""

import threading
from pathlib import Path

import pytest

from trainer.config import CaptionsConfig, RunConfig, TrainConfig, TrainerConfig
from trainer.trainer import train


def test_a_stop_while_captions_are_indexed_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an error nor a folder."""
    monkeypatch.setattr("trainer.captions.INDEX_BYTES", 0)
    captions = tmp_path / "captions.txt"
    captions.write_text("one\ntwo\n")
    config = TrainerConfig(
        run=RunConfig(dir=str(tmp_path / "runs"), max_steps=100),
        captions=CaptionsConfig(source=str(captions), index=str(tmp_path / "index")),
        train=TrainConfig(batch_groups=2),
    )
    stop = threading.Event()
    stop.set()
    train(config, stop, {})
    assert not (tmp_path / "runs").exists()
