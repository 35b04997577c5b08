"""The allow-list follows its folder; what can't be read admits nobody."""

import os
from pathlib import Path

import pytest
import zmq

from protocol.errors import UserError
from trainer.feed.allow_list import READ_AGAIN_SECONDS, AllowList, read_admitted

A, B = (zmq.curve_keypair()[0].decode() for _ in range(2))


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _put(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text + "\n")
    return path


def test_a_file_admits_and_its_removal_revokes(tmp_path: Path) -> None:
    """At the next refresh, without time going by."""
    path = _put(tmp_path, "a.public", A)
    allowed = AllowList(tmp_path, clock=Clock())
    assert allowed.admits(A)
    path.unlink()
    os.utime(tmp_path, ns=(0, 1))  # whatever the grain of the disk's clock
    assert allowed.admits(A), "until it is refreshed"
    allowed.refresh()
    assert not allowed.admits(A)
    _put(tmp_path, "b.public", B)
    os.utime(tmp_path, ns=(0, 2))
    allowed.refresh()
    assert allowed.admits(B)


def test_a_change_that_leaves_the_folders_time_is_seen_within_a_second(tmp_path: Path) -> None:
    """A key replaced inside its file."""
    clock = Clock()
    _put(tmp_path, "a.public", A)
    os.utime(tmp_path, ns=(0, 1))
    allowed = AllowList(tmp_path, clock=clock)
    _put(tmp_path, "a.public", B)
    os.utime(tmp_path, ns=(0, 1))
    allowed.refresh()
    assert allowed.admits(A)
    clock.now = READ_AGAIN_SECONDS
    allowed.refresh()
    assert (allowed.admits(A), allowed.admits(B)) == (False, True)


def test_a_missing_folder_is_nobody(tmp_path: Path) -> None:
    """From the start, or when it is removed later."""
    folder = tmp_path / "admitted"
    allowed = AllowList(folder)
    assert not allowed.admits(A)
    path = _put(folder, "a.public", A)
    allowed.refresh()
    assert allowed.admits(A)
    path.unlink()
    folder.rmdir()
    allowed.refresh()
    assert not allowed.admits(A)


def test_a_bad_file_is_refused_at_the_start_and_passed_over_later(tmp_path: Path) -> None:
    """A half-copied key must not end a run, nor take the others' keys with it."""
    _put(tmp_path, "a.public", A)
    clock = Clock()
    allowed = AllowList(tmp_path, clock=clock)
    _put(tmp_path, "b.public", B[:20])
    clock.now = READ_AGAIN_SECONDS
    allowed.refresh()
    assert (allowed.admits(A), allowed.admits(B[:20]), allowed.admits("")) == (True, False, False)
    with pytest.raises(UserError, match=r"b\.public: not a key"):
        AllowList(tmp_path)


def test_only_public_key_files_count(tmp_path: Path) -> None:
    """Neither a file being written nor somebody's notes."""
    _put(tmp_path, "a.public", A)
    _put(tmp_path, ".b.public.77", B)
    _put(tmp_path, ".b.public", B)
    _put(tmp_path, "notes.txt", "hello")
    assert read_admitted(tmp_path) == {"a": A}
