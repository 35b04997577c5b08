"""`streamrep pool`: bad words get one line, and inspecting writes nothing but the sheet."""

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from launcher.main import main
from protocol.generation import GenerationSpec
from trainer.pool.about import About
from trainer.pool.images import encode_image
from trainer.pool.store import EncodedGroup
from trainer.pool.writer import PoolWriter


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """The command takes over signals; the tests get them back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pool"], "--out"),
        (["pool", "--out", "x", "--workers", "-1"], "expected an integer >= 0, got -1"),
        (["pool", "missing.toml", "--out", "x"], "missing.toml"),
        (["pool", "inspect"], "DIR"),
        (["pool", "inspect", "missing"], "no such folder"),
    ],
)
def test_bad_words_are_told_in_one_line(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, and nothing is left."""
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_inspecting_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sheet goes where it was asked for; the pool stays as it is."""
    pool = tmp_path / "pool"
    spec = GenerationSpec(views=2, size=16)
    writer = PoolWriter(pool, About(format="webdataset", picture="png", plan="p", seed=0, generation=spec))
    picture = encode_image(np.zeros((16, 16, 3), np.uint8), "png")
    writer.add(
        EncodedGroup(
            group_id=0,
            caption="a dog",
            images=(0, 1),
            pictures=(picture, picture),
            seeds=(1, 2),
            guidance=(2.0, 2.0),
            engine="e",
            content="c",
        )
    )
    writer.seal()
    writer.close()
    before = sorted(path.name for path in pool.iterdir())
    assert main(["pool", "inspect", str(pool), "--sheet", str(tmp_path / "sheet.png")]) == 0
    printed = capsys.readouterr().out
    assert "2 of 16 x 16" in printed
    assert "a dog" in printed
    assert (tmp_path / "sheet.png").exists()
    assert sorted(path.name for path in pool.iterdir()) == before
