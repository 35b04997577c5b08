"""`streamrep keys`: which files it leaves, with which modes, and what it refuses."""

import stat
from pathlib import Path

import pytest

from launcher.key_folder import KeyFolder
from launcher.main import main
from protocol.errors import UserError
from protocol.keys import public_of, read_public, read_trainer_keys, read_worker_keys


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    """One with a trainer's keys."""
    made = KeyFolder(tmp_path / "keys")
    made.make_trainer()
    return made


def _files(folder: Path) -> dict[str, int]:
    """Mode by path of every file."""
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_trainers_pair(folder: KeyFolder) -> None:
    """The secret for its owner alone, the public key for everybody, and nothing else."""
    assert _files(folder.path) == {"trainer.secret": 0o600, "trainer.public": 0o644}
    found = read_trainer_keys(str(folder.path))
    assert found is not None
    assert public_of(found.secret) == read_public(folder.path / "trainer.public", "")
    assert folder.admitted() == {}


def test_a_workers_folder_is_all_that_it_needs(folder: KeyFolder) -> None:
    """Its pair and the trainer's public key; it is admitted by the same command."""
    made = folder.make_worker("gpu1")
    assert _files(made) == {"worker.secret": 0o600, "worker.public": 0o644, "trainer.public": 0o644}
    found = read_worker_keys(str(made))
    assert found is not None
    assert folder.admitted() == {"gpu1": found.public}
    assert found.trainer == read_public(folder.path / "trainer.public", "")
    assert sorted(_files(folder.path)) == [
        "admitted/gpu1.public",
        "trainer.public",
        "trainer.secret",
        "workers/gpu1/trainer.public",
        "workers/gpu1/worker.public",
        "workers/gpu1/worker.secret",
    ]


def test_no_key_is_ever_overwritten(folder: KeyFolder) -> None:
    """Neither the trainer's, nor a worker's, nor an admitted one."""
    folder.make_worker("gpu1")
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    for act in (
        folder.make_trainer,
        lambda: folder.make_worker("gpu1"),
        lambda: folder.admit("gpu1", folder.path / "trainer.public"),
    ):
        with pytest.raises(UserError, match="key exists"):
            act()
    folder.revoke("gpu1")
    with pytest.raises(UserError, match="key exists"):
        folder.make_worker("gpu1")
    folder.admit("gpu1", folder.path / "workers" / "gpu1" / "worker.public")
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


def test_a_lost_public_key_comes_back(folder: KeyFolder) -> None:
    """The secret one is what matters, and it stays."""
    public = folder.path / "trainer.public"
    before = public.read_bytes()
    public.unlink()
    folder.make_trainer()
    assert public.read_bytes() == before


def test_revoking_removes_the_admission_and_keeps_the_rest(folder: KeyFolder) -> None:
    """The name must be known."""
    folder.make_worker("gpu1")
    folder.make_worker("gpu2")
    folder.revoke("gpu1")
    assert list(folder.admitted()) == ["gpu2"]
    with pytest.raises(UserError, match="expected one of gpu2, got gpu1"):
        folder.revoke("gpu1")


def test_one_key_is_admitted_under_one_name(folder: KeyFolder) -> None:
    """Otherwise revoking one name would leave the key in."""
    made = folder.make_worker("gpu1")
    with pytest.raises(UserError, match="the key of gpu1"):
        folder.admit("gpu2", made / "worker.public")
    assert list(folder.admitted()) == ["gpu1"]


def test_a_secret_key_is_never_admitted(folder: KeyFolder) -> None:
    """It would be copied to a file that everybody can read."""
    made = folder.make_worker("gpu1")
    folder.revoke("gpu1")
    with pytest.raises(UserError, match=r"give the worker\.public"):
        folder.admit("gpu1", made / "worker.secret")
    assert folder.admitted() == {}


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "a b", "x" * 65])
def test_names_that_are_no_file_names_are_refused(folder: KeyFolder, name: str) -> None:
    """Before anything is written."""
    before = _files(folder.path)
    with pytest.raises(UserError, match="bad name"):
        folder.make_worker(name)
    assert _files(folder.path) == before


def test_a_worker_needs_a_trainer_to_trust(tmp_path: Path) -> None:
    """The command to make it is named."""
    with pytest.raises(UserError, match="streamrep keys trainer"):
        KeyFolder(tmp_path).make_worker("gpu1")
    assert list(tmp_path.iterdir()) == []


def test_the_command_makes_lists_and_revokes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the README types it, with a folder of one's own."""
    where = ["--keys", str(tmp_path / "k")]
    assert main(["keys", "trainer", *where]) == 0
    assert main(["keys", "worker", "gpu1", *where]) == 0
    assert main(["keys", "revoke", "gpu1", *where]) == 0
    assert main(["keys", "admit", "one", str(tmp_path / "k/workers/gpu1/worker.public"), *where]) == 0
    capsys.readouterr()
    assert main(["keys", "list", *where]) == 0
    key = (tmp_path / "k/workers/gpu1/worker.public").read_text().strip()
    assert capsys.readouterr().out == f"one  {key}\n"
    assert main(["keys", "revoke", "two", *where]) == 2
    err = capsys.readouterr().err
    assert err.startswith("streamrep: ")
    assert err.count("\n") == 1
    assert main(["keys"]) == 2
    assert "usage" not in capsys.readouterr().out


def test_if_missing_makes_keys_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For a start that is repeated: the second changes nothing, and lets nobody in again that was revoked."""
    keys = tmp_path / "keys"
    commands = [["trainer", "--if-missing"], ["worker", "gpu1", "--if-missing"]]
    for words in commands:
        assert main(["keys", *words, "--keys", str(keys)]) == 0
    made = {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}
    assert sorted(KeyFolder(keys).admitted()) == ["gpu1"]
    KeyFolder(keys).revoke("gpu1")
    for words in commands:
        assert main(["keys", *words, "--keys", str(keys)]) == 0
    assert KeyFolder(keys).admitted() == {}
    assert {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()} == {
        path: content for path, content in made.items() if path.parent.name != "admitted"
    }
    assert main(["keys", "trainer", "--keys", str(keys)]) == 2
    assert "key exists" in capsys.readouterr().err
