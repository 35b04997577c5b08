"""`streamrep regenerate`, and the script of docs/ledger.md, on ledgers that hold what an engine drew."""

import json
import re
import runpy
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generator_service.model_folder import EMBEDDED_FOLDER
from generator_service.worker import prepare
from launcher.main import main
from launcher.run_file import load, to_tables
from protocol.payload import checksum
from trainer.batch import Batch, DrawnGroup
from trainer.captions import Captions
from trainer.ledger import Ledger
from trainer.plan import Plan
from trainer.run_folder import write_json

pytestmark = pytest.mark.timeout(300)  # a real model is loaded and drawn with four times

CAPTIONS = ["red heart", "rocket", "dog face", "flag: Japan", "hot beverage"]
FAKE = ["--generator.engine", "fake", "--generation.size", "16"]
REAL = ["--generator.precision", "float32", "--generator.device", "cpu", "--generation.size", "32"]
GROUP, VIEWS = 7, 2
"""Of the second visit to its caption, so that views don't begin at 0."""


def _record(folder: Path, overrides: list[str]) -> np.ndarray:
    """Makes a run folder whose ledger holds what its engine drew; returns the pixels of GROUP."""
    words = ["--generation.views", str(VIEWS), "--generator.batch_images", str(2 * VIEWS)]
    run_file = load(None, [*words, *overrides])
    folder.mkdir(parents=True)
    write_json(folder / "run.json", to_tables(run_file))
    plan = Plan(Captions(CAPTIONS), 3, run_file.generation)
    _, build = prepare(run_file.generator)
    engine = build(run_file.generation, lambda: False)
    tickets = [plan.ticket(group_id) for group_id in (0, GROUP)]
    drawn = engine.draw(tickets, lambda: False)
    groups = tuple(
        DrawnGroup(
            ticket=ticket,
            images_NHWC=images_NHWC,
            source="online",
            worker="w",
            content=engine.content_hash,
            engine=engine.engine_hash,
            digest=checksum(images_NHWC),
            arrived_seconds=0.0,
        )
        for ticket, images_NHWC in zip(tickets, drawn, strict=True)
    )
    with closing(Ledger(folder / "ledger.sqlite")) as ledger:
        ledger.record(Batch(step=1, groups=groups, uses=(1, 1)))
        ledger.record_dead_letters({3: "failed 2 times, last: no such thing"})
    return drawn[1]


@pytest.fixture
def fake_run(tmp_path: Path) -> Path:
    """A run of the fake engine."""
    _record(tmp_path / "runs" / "r", FAKE)
    return tmp_path / "runs" / "r"


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A run of the embedded model, and the pixels of its GROUP."""
    folder = tmp_path_factory.mktemp("real") / "runs" / "r"
    return folder, _record(folder, REAL)


def _regenerate(run: Path, out: Path, *words: str, group: int = GROUP) -> int:
    return main(["regenerate", str(run), "--group", str(group), "--out", str(out), *words])


def _pixels(out: Path, view: int, group: int = GROUP) -> np.ndarray:
    with Image.open(out / f"group-{group}-view-{view}.png") as image:
        return np.asarray(image)


def _assert_comes_back(run: Path, out: Path, printed: str) -> None:
    assert printed.startswith(f"equal: group {GROUP} has the digest ")
    written = json.loads((out / f"group-{GROUP}.json").read_text())
    assert written["equal"]
    assert [view["view"] for view in written["views"]] == [VIEWS, VIEWS + 1]
    images_NHWC = np.stack([_pixels(out, view["view"]) for view in written["views"]])
    assert checksum(images_NHWC) == written["trained"]["digest"] == written["redrawn"]["digest"]
    assert len(list(out.iterdir())) == VIEWS + 1


def test_a_group_comes_back_bit_for_bit(
    fake_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files hold the pixels of the digest."""
    out = tmp_path / "deep" / "out"
    assert _regenerate(fake_run, out) == 0
    _assert_comes_back(fake_run, out, capsys.readouterr().out)


def test_the_embedded_model_repeats_itself(
    real_run: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alone, and not beside the neighbour that the group had when it was trained on."""
    assert _regenerate(real_run[0], tmp_path / "out") == 0
    _assert_comes_back(real_run[0], tmp_path / "out", capsys.readouterr().out)


def test_another_engine_is_told_and_judged_by_its_pixels(
    fake_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A static batch of another size has another hash; here its bits are the same."""
    assert _regenerate(fake_run, tmp_path / "out", "--generator.batch_images", "100") == 0
    text = capsys.readouterr().out
    assert text.startswith("equal: ")
    assert "though it was drawn by engine " in text


def test_pixels_that_differ_are_told_with_the_engines(
    real_run: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another precision: other bits, nearly the same picture, exit code 1."""
    run, images_NHWC = real_run
    out = tmp_path / "out"
    assert _regenerate(run, out, "--generator.precision", "bfloat16") == 1
    text = capsys.readouterr().out
    assert text.startswith("not equal: ")
    assert "The engine hash differs as well" in text
    written = json.loads((out / f"group-{GROUP}.json").read_text())
    assert not written["equal"]
    assert written["trained"]["engine"] != written["redrawn"]["engine"]
    assert np.abs(images_NHWC[0].astype(float) - _pixels(out, VIEWS).astype(float)).mean() < 20


def test_an_engine_that_does_not_repeat_itself_is_told(
    fake_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same engine hash, other pixels: here because the ledger was changed."""
    with closing(sqlite3.connect(fake_run / "ledger.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE groups SET digest = 'ffffffffffffffff'")
    assert _regenerate(fake_run, tmp_path / "out") == 1
    assert "it does not repeat itself" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("group", "words", "part"),
    [
        (4, [], "one of the 2 groups that were trained on, with ids from 0 to 7, got 4"),
        (3, [], "got 3, a dead letter: failed 2 times"),
        (GROUP, ["--generation.steps", "9"], "the group was drawn with another model"),
        (GROUP, ["--generator.model", "nowhere", "--generator.engine", "eager"], "no such folder"),
        (GROUP, ["--nonsense"], "unrecognized arguments"),
    ],
)
def test_what_can_not_be_redrawn_is_one_line(
    fake_run: Path,
    tmp_path: Path,
    group: int,
    words: list[str],
    part: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, and nothing is written."""
    out = tmp_path / "out"
    assert _regenerate(fake_run, out, *words, group=group) == 2
    printed, error = capsys.readouterr()
    assert (printed, error.count("\n")) == ("", 1)
    assert part in error
    assert not out.exists()


def test_a_folder_that_can_not_be_written_is_one_line(
    fake_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file stands in the way."""
    (tmp_path / "out").write_text("a file")
    assert _regenerate(fake_run, tmp_path / "out") == 2
    assert "choose another with --out" in capsys.readouterr().err


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning"
)  # diffusers' own, in a pipeline
def test_the_script_of_the_page_redraws_an_image(
    real_run: tuple[Path, np.ndarray], tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands in docs/ledger.md: at most one level apart, and that only where rounding ties."""
    run, images_NHWC = real_run
    [script] = re.findall(
        r"```python\n(.*?)```", (repository / "docs" / "ledger.md").read_text("utf-8"), re.S
    )
    path, out = tmp_path / "redraw.py", tmp_path / "one.png"
    path.write_text(script, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [str(path), str(run), str(GROUP), "1", str(EMBEDDED_FOLDER), str(out)])
    runpy.run_path(str(path), run_name="__main__")
    with Image.open(out) as image:
        difference = np.abs(np.asarray(image).astype(int) - images_NHWC[1].astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    assert np.abs(images_NHWC[0].astype(int) - images_NHWC[1].astype(int)).max() > 1
