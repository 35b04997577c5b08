"""Key files: what is read, and what is refused in one line."""

from pathlib import Path

import pytest
import zmq

from protocol import keys
from protocol.errors import UserError
from protocol.keys import is_key, public_of, read_public, read_secret, read_trainer_keys, read_worker_keys

PUBLIC, SECRET = (key.decode() for key in zmq.curve_keypair())


def _secret(folder: Path, name: str, text: str = SECRET, mode: int = 0o600) -> Path:
    path = folder / name
    path.write_text(text + "\n")
    path.chmod(mode)
    return path


def test_no_folder_is_no_keys() -> None:
    """The default of both sections."""
    assert read_trainer_keys("") is None
    assert read_worker_keys("") is None


def test_a_worker_reads_its_secret_and_the_trainers_public_key(tmp_path: Path) -> None:
    """Its public key is computed, so that a stale file can't be used; no secret shows in a traceback."""
    _secret(tmp_path, "worker.secret")
    (tmp_path / "worker.public").write_text("stale")
    trainer = zmq.curve_keypair()[0].decode()
    (tmp_path / "trainer.public").write_text(f"{trainer}\n")
    found = read_worker_keys(str(tmp_path))
    assert found is not None
    assert (found.secret, found.public, found.trainer) == (SECRET, PUBLIC, trainer)
    assert SECRET not in repr(found)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666])
def test_a_secret_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """Readable or writable by group or world; the line says how to mend it and never the key."""
    path = _secret(tmp_path, "trainer.secret", mode=mode)
    with pytest.raises(UserError, match=f"chmod 600 {path}") as caught:
        read_trainer_keys(str(tmp_path))
    assert f"mode {mode:o}" in str(caught.value)
    assert SECRET not in str(caught.value)
    path.chmod(0o400)
    assert read_secret(path, "") == SECRET


@pytest.mark.parametrize(
    "text",
    ["", "short", SECRET[:-1], SECRET + "x", '"' * 40, "é" * 40, "%nSc1" * 8],
    # Names of tests may not hold the secret: it is another in every process that runs them.
    ids=["empty", "short", "one_less", "one_more", "quotes", "accents", "too_large"],
)
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    """Wrong length, wrong alphabet, or five characters above 2^32 - 1 (`%nSc1` is the first)."""
    assert not is_key(text)
    path = tmp_path / "worker.public"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="not a key") as caught:
        read_public(path, "mend it")
    assert "\n" not in str(caught.value)
    assert len(text) < 6 or text not in str(caught.value)


def test_a_missing_key_names_its_file_and_the_command(tmp_path: Path) -> None:
    """Both sides."""
    with pytest.raises(UserError, match=r"trainer\.secret: cannot read the key.*streamrep keys trainer"):
        read_trainer_keys(str(tmp_path))
    with pytest.raises(UserError, match=r"worker\.secret: cannot read the key.*streamrep keys worker"):
        read_worker_keys(str(tmp_path))


def test_a_library_without_curve_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any key is read, and only where keys are asked for."""
    monkeypatch.setattr(keys.zmq, "has", lambda what: what != "curve")
    with pytest.raises(UserError, match=r"stream\.keys: no encryption here"):
        read_trainer_keys(str(tmp_path))
    with pytest.raises(UserError, match=r"generator\.keys: no encryption here"):
        read_worker_keys(str(tmp_path))
    assert read_trainer_keys("") is None


def test_the_public_key_belongs_to_the_secret_one() -> None:
    """As libzmq computes it."""
    assert public_of(SECRET) == PUBLIC
