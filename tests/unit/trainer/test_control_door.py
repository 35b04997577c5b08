"""The control socket: who may open it, what comes through it, and what becomes of wishes."""

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from protocol.errors import UserError
from trainer.config import Mode
from trainer.control.call import call
from trainer.control.control import Asked, Control
from trainer.control.door import Door, short_path
from trainer.control.messages import SOCKET, Reply, Request, Status
from trainer.control.modes import next_mode


def _status(mode: Mode, paused: bool) -> Status:
    return Status(
        run="r",
        step=3,
        max_steps=9,
        mode=mode,
        paused=paused,
        fresh_share=0.5,
        waiting_share=None,
        mean_uses=2.0,
        reuse=None,
        workers=1,
        stall=None,
        stall_seconds=0.0,
    )


def _check(mode: Mode) -> None:
    if mode == "offline":
        raise UserError(
            "impossible setting", expected="a folder", got="none", where="pool.dir", mend="set it"
        )


@pytest.fixture
def control() -> Control:
    return Control("online", _check, _status, answer_seconds=0.2)


@pytest.fixture
def folder(tmp_path: Path, control: Control) -> Iterator[Path]:
    """With a door, and a path that no Unix socket could have."""
    path = tmp_path / ("run" * 40)
    path.mkdir()
    with closing(Door(path, control.answer)):
        yield path


def _raw(folder: Path, words: bytes) -> Reply:
    with socket.socket(socket.AF_UNIX) as stream, short_path(folder) as path:
        stream.settimeout(10)
        stream.connect(path)
        stream.sendall(words)
        stream.shutdown(socket.SHUT_WR)
        return msgspec.json.decode(stream.recv(65536), type=Reply)


def test_only_its_owner_can_open_the_socket(folder: Path) -> None:
    """Mode 600, under any umask, and one that a killed trainer left is replaced."""
    assert stat.S_IMODE(os.stat(folder / SOCKET).st_mode) == 0o600
    assert call(folder, Request(command="status")).status == _status("online", False)
    other = folder.parent / "other"
    other.mkdir()
    (other / SOCKET).write_text("left over")
    before = os.umask(0)
    try:
        with closing(Door(other, lambda request: Reply(ok=True))):
            assert stat.S_IMODE(os.stat(other / SOCKET).st_mode) == 0o600
            assert call(other, Request(command="pause")).ok
    finally:
        os.umask(before)
    assert not (other / SOCKET).exists()


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"\n",
        b"hello\n",
        b"[" * 3000 + b"\n",
        b'{"command": "stop"}\n',
        b'{"command": "mode", "mode": "both"}\n',
        b'{"command": "status", "more": 1}\n',
        b'{"command": "mode"}\n',
        b'{"command": "status", "version": 2}\n',
        b"\xff\xfe\n",
        b"x" * 100_000,
    ],
)
def test_what_is_no_request_is_refused_and_harms_nobody(folder: Path, words: bytes) -> None:
    """In one line; the next caller is answered."""
    try:
        reply = _raw(folder, words)
        assert not reply.ok
        assert len(reply.text.splitlines()) == 1
    except ConnectionError:
        assert len(words) > 4096  # the door had hung up before all was sent
    assert call(folder, Request(command="status")).ok


def test_nobody_behind_the_socket_is_one_line(tmp_path: Path) -> None:
    """Never started, and killed."""
    with pytest.raises(UserError, match="nobody at its socket"):
        call(tmp_path, Request(command="status"))
    with socket.socket(socket.AF_UNIX) as left, short_path(tmp_path) as path:
        left.bind(path)
    with pytest.raises(UserError, match="nobody at its socket"):
        call(tmp_path, Request(command="status"))


def test_a_wish_waits_for_the_training_thread(control: Control) -> None:
    """Who asked hears what became of it, or after a while that it will be done."""
    assert control.answer(Request(command="pause")) == Reply(
        ok=True, text="pause: at the opening of the next step"
    )
    assert control.asked == Asked(paused=True)
    assert control.pending
    control.settled(control.asked, mode="online", paused=True)
    assert (control.paused, control.pending) == (True, False)
    patient = Control("online", _check, _status, answer_seconds=60.0)
    replies: list[Reply] = []

    def ask() -> None:
        replies.append(patient.answer(Request(command="mode", mode="mixed")))

    for refusal in ("", "pool.dir: no pool"):
        asking = threading.Thread(target=ask)
        asking.start()
        patient.wait(30)
        assert patient.asked == Asked(mode="mixed")
        patient.settled(patient.asked, mode="mixed", paused=False, refusal=refusal)
        asking.join(30)
    assert replies == [Reply(ok=True, text="mode mixed"), Reply(ok=False, text="pool.dir: no pool")]


def test_a_wish_that_comes_while_a_step_opens_is_not_lost(control: Control) -> None:
    """The training thread had looked before, and says only then how it goes on."""
    seen = control.asked
    control.answer(Request(command="pause"))
    control.settled(seen, mode="online", paused=False)
    assert control.asked == Asked(paused=True)


def test_an_impossible_mode_is_refused_before_the_training_thread_hears_of_it(control: Control) -> None:
    """The line of the run file's own check."""
    reply = control.answer(Request(command="mode", mode="offline"))
    assert reply == Reply(ok=False, text="pool.dir: impossible setting: expected a folder, got none; set it")
    assert not control.pending


def test_a_wish_comes_before_what_was_recorded() -> None:
    """And without either the mode stays."""
    recorded: dict[int, Mode] = {7: "offline"}
    assert next_mode(7, "online", "mixed", recorded) == "mixed"
    assert next_mode(7, "online", None, recorded) == "offline"
    assert next_mode(8, "online", None, recorded) == "online"


def test_a_run_that_nobody_answers_for_is_named_in_one_line(tmp_path: Path) -> None:
    """With what to start."""
    with pytest.raises(UserError) as caught:
        call(tmp_path, Request(command="mode", mode="offline"))
    assert "control.sock" in str(caught.value)
    assert "start it with `streamrep train` or `up`" in str(caught.value)
    assert "\n" not in str(caught.value)
