"""A run folder has one writer, and its files are whole."""

import json
from pathlib import Path

import pytest

from protocol.errors import UserError
from trainer.config import RunConfig
from trainer.run_folder import RunFolder, is_in_use, write_json


def test_a_second_trainer_is_refused_until_the_first_leaves(tmp_path: Path) -> None:
    """The lock goes with its holder."""
    config = RunConfig(name="r", dir=str(tmp_path))
    first = RunFolder(config)
    with pytest.raises(UserError, match="locked by another trainer"):
        RunFolder(config)
    assert is_in_use(first.path)
    first.close()
    assert not is_in_use(first.path)
    RunFolder(config).close()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A file stands in the way."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the run folder"):
        RunFolder(RunConfig(name="r", dir=str(tmp_path / "file")))


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    """No temporary file stays, and a value that can't be written leaves the old file."""
    path = tmp_path / "x.json"
    write_json(path, {"a": "é"})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text("utf-8")) == {"a": "é"}
