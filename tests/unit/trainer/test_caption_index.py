"""The index of a large source: the same captions as in memory, made once, never half."""

import json
import multiprocessing
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.errors import UserError
from protocol.generation import GenerationSpec
from trainer.caption_sources import build
from trainer.caption_sources.files import find_files
from trainer.caption_sources.index import IndexedCaptions
from trainer.caption_sources.store import IndexStore
from trainer.captions import Captions
from trainer.errors import StopRequestedError
from trainer.plan import Plan


def _open(
    source: Path, store: Path, column: str | int = "", said: list[str] | None = None
) -> IndexedCaptions:
    say = (lambda text: None) if said is None else said.append
    return IndexStore(store, say, lambda: False).open(find_files(str(source)), column)


def _source(tmp_path: Path, texts: list[str]) -> Path:
    path = tmp_path / "captions.txt"
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def _random_texts(count: int, kinds: int) -> list[str]:
    dice = random.Random(7)
    return [f"caption {dice.randrange(kinds)} é" * dice.randrange(1, 4) for _ in range(count)]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text("ab \u0301é", max_size=4), min_size=1), sizes=st.tuples(*[st.integers(1, 5)] * 3)
)
def test_an_index_equals_the_list_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str], sizes: tuple[int, int, int]
) -> None:
    """Texts, ids, digest and counts, however small the buckets and chunks are."""
    for name, size in zip(("BUCKET_IDS", "CHUNK_IDS", "CHUNK_TEXTS"), sizes, strict=True):
        monkeypatch.setattr(build, name, size)
    expected = Captions(texts)
    got = _open(_source(tmp_path, texts), tmp_path / "index")
    assert tuple(got.texts) == expected.texts
    assert tuple(got.ids) == expected.ids
    assert (len(got), got.digest, got.counts) == (len(expected), expected.digest, expected.counts)


def test_a_plan_can_not_tell_an_index_from_a_list(tmp_path: Path) -> None:
    """Same digest, so a checkpoint of one is one of the other; same tickets."""
    texts = _random_texts(300, 120)
    spec = GenerationSpec(views=2)
    listed = Plan(Captions(texts), 5, spec)
    indexed = Plan(_open(_source(tmp_path, texts), tmp_path / "index"), 5, spec)
    assert indexed.digest == listed.digest
    assert [indexed.ticket(i) for i in range(500)] == [listed.ticket(i) for i in range(500)]


def test_texts_are_a_sequence(tmp_path: Path) -> None:
    """Negative indices, slices, and the end."""
    captions = _open(_source(tmp_path, ["a", "b", "c"]), tmp_path / "index")
    assert captions.texts[-1] == "c"
    assert captions.texts[:2] == ["a", "b"]
    assert captions.ids[1:] == [captions.ids[1], captions.ids[2]]
    with pytest.raises(IndexError):
        captions.texts[3]


def test_the_first_of_equal_ids_is_kept_against_a_plain_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several buckets and chunks of other sizes."""
    monkeypatch.setattr(build, "BUCKET_IDS", 70)
    monkeypatch.setattr(build, "CHUNK_IDS", 33)
    ids = np.random.default_rng(0).integers(0, 300, 500)
    ids.astype(build.ID).tofile(tmp_path / "ids")
    seen: set[int] = set()
    expected = [not (int(i) in seen or seen.add(int(i))) for i in ids]
    assert build.keep_first(tmp_path / "ids", len(ids)).tolist() == expected


def test_an_index_is_made_once_and_again_when_a_file_has_changed(tmp_path: Path) -> None:
    """The key is honest: column, and name, size and time of change of every file."""
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "0.csv").write_text("caption,alt\na,x\n")
    store, said = tmp_path / "index", []

    def texts(column: str = "") -> tuple[list[str], int]:
        said.clear()
        return list(_open(folder, store, column, said).texts), len(said)

    assert texts() == (["a"], 1)
    assert texts() == (["a"], 0)
    assert texts("alt") == (["x"], 1)
    assert texts() == (["a"], 0)
    (folder / "1.csv").write_text("caption,alt\nb,y\n")
    assert texts() == (["a", "b"], 1)
    (folder / "1.csv").write_text("caption,alt\nc,y\n")
    os.utime(folder / "1.csv", ns=(0, 1))
    assert texts() == (["a", "c"], 1)
    (folder / "1.csv").rename(folder / "2.csv")
    assert texts() == (["a", "c"], 1)
    assert len([path for path in store.iterdir() if not path.name.startswith(".")]) == 2


def test_an_open_index_outlives_its_replacement(tmp_path: Path) -> None:
    """A run goes on with the captions it began with."""
    path, store = _source(tmp_path, ["a", "b"]), tmp_path / "index"
    old = _open(path, store)
    _source(tmp_path, ["c", "d", "e"])
    new = _open(path, store)
    assert (list(old.texts), list(new.texts)) == (["a", "b"], ["c", "d", "e"])


def test_nothing_is_left_of_an_index_that_could_not_be_made(tmp_path: Path) -> None:
    """Bad input, a stop, and a file that is written while it is read."""
    store = tmp_path / "index"
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"good\n\xff\n")
    with pytest.raises(UserError, match="byte 0xff in line 2"):
        _open(bad, store)
    with pytest.raises(StopRequestedError):
        IndexStore(store, lambda text: None, lambda: True).open(find_files(str(_source(tmp_path, ["a"]))), "")

    growing = _source(tmp_path, ["a", "b"])

    def grow() -> bool:
        with growing.open("a") as file:
            file.write("c\n")
        return False

    with pytest.raises(UserError, match="changed while they were read"):
        IndexStore(store, lambda text: None, grow).open(find_files(str(growing)), "")
    assert [path.name for path in store.iterdir() if path.is_dir()] == []


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    """Under the lock nobody else can be building."""
    path, store = _source(tmp_path, ["a"]), tmp_path / "index"
    _open(path, store)
    [made] = [p for p in store.iterdir() if p.is_dir()]
    made.rename(store / f".old-{made.name}")
    (store / f".building-{made.name}").mkdir()
    assert list(_open(path, store).texts) == ["a"]
    assert [p for p in store.iterdir() if p.is_dir()] == [made]


def test_a_damaged_index_is_one_line(tmp_path: Path) -> None:
    """It is neither read nor silently made again."""
    path, store = _source(tmp_path, ["one", "two"]), tmp_path / "index"
    _open(path, store)
    [made] = [p for p in store.iterdir() if p.is_dir()]
    for name, content in (("texts", b"on"), ("offsets", b""), ("index.json", b"{")):
        whole = (made / name).read_bytes()
        (made / name).write_bytes(content)
        with pytest.raises(UserError, match="delete that folder"):
            _open(path, store)
        (made / name).write_bytes(whole)
    header = json.loads((made / "index.json").read_text())
    (made / "index.json").write_text(json.dumps({"version": 0, "other": header}))
    assert list(_open(path, store).texts) == ["one", "two"]


def test_a_folder_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    """With the key that moves it."""
    (tmp_path / "index").write_text("a file")
    with pytest.raises(UserError, match=r"choose another with --captions\.index"):
        _open(_source(tmp_path, ["a"]), tmp_path / "index")


def test_progress_is_said_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many captions, how far into the files, how long still."""
    monkeypatch.setattr("trainer.caption_sources.lines.BLOCK_TEXTS", 10)
    seconds = iter(range(0, 1000, 3))
    said: list[str] = []
    path = _source(tmp_path, [f"{i:09}" for i in range(100)])
    store = IndexStore(tmp_path / "index", said.append, lambda: False, clock=lambda: float(next(seconds)))
    store.open(find_files(str(path)), "")
    assert said[0] == "indexing captions.txt: 20 captions, 20%, 24s left"
    assert said[4] == "indexing captions.txt: 100 captions, 100%, 0s left"
    assert said[5].startswith(f"indexed {path}: 100 captions (100 read); kept in ")
    assert len(said) == 6


def _open_in_process(source: str, store: str, out: "multiprocessing.SimpleQueue[list[str]]") -> None:
    said: list[str] = []
    captions = _open(Path(source), Path(store), "", said)
    out.put([captions.digest, *said])


def test_processes_that_start_together_make_one_index(tmp_path: Path) -> None:
    """One builds, the others wait for it."""
    path = _source(tmp_path, _random_texts(20000, 10**9))
    context = multiprocessing.get_context("spawn")
    out = context.SimpleQueue()
    processes = [
        context.Process(target=_open_in_process, args=(str(path), str(tmp_path / "index"), out))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    answers = [out.get() for _ in processes]
    for process in processes:
        process.join(30)
        process.close()
    out.close()
    assert len({digest for digest, *_ in answers}) == 1
    assert sum(line.startswith("indexed") for _, *said in answers for line in said) == 1
