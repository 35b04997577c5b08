"""Caption sources of every kind: what is read, and what is refused in one line."""

import csv
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

import trainer.captions
from protocol.errors import UserError
from protocol.identity import caption_id
from protocol.tickets import CAPTION_CHARACTERS_MAX
from trainer.caption_sources.index import IndexedCaptions
from trainer.captions import CaptionList, load_captions
from trainer.config import CaptionsConfig

ROWS = [("https://e.org/1", "a dog, running"), ("http://e.org/2", 'the "cat"'), ("https://e.org/3", "café")]


@pytest.fixture(params=["in memory", "indexed"])
def load(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Reads a source, once as a small one and once as a large one."""
    indexed = request.param == "indexed"
    if indexed:
        monkeypatch.setattr(trainer.captions, "INDEX_BYTES", -1)

    def load(path: Path, column: str | int = "") -> CaptionList:
        config = CaptionsConfig(source=str(path), column=column, index=str(tmp_path / "index"))
        captions = load_captions(config)
        assert isinstance(captions, IndexedCaptions) == indexed
        return captions

    return load


def _refusal(load, path: Path, column: str | int = "") -> str:
    with pytest.raises(UserError) as caught:
        load(path, column)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def _write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def _parquet(path: Path, **columns: object) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_duplicates_and_blank_lines_leave_and_order_stays(load, tmp_path: Path) -> None:
    """Exact duplicates after NFC and trimming are one caption, in the place of the first."""
    captions = load(_write(tmp_path / "c.txt", "b\n\na\n b \ncafe\u0301\ncaf\u00e9\na\n"))
    assert list(captions.texts) == ["b", "a", "café"]
    assert list(captions.ids) == [caption_id(text) for text in captions.texts]
    counts = captions.counts
    assert (counts.read, counts.blank, counts.duplicates, counts.distinct) == (7, 1, 3, 3)


def test_a_byte_order_mark_is_no_part_of_the_first_caption(load, tmp_path: Path) -> None:
    """Files saved on Windows, lists and tables."""
    path = tmp_path / "c.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert list(load(path).texts) == ["one", "two"]
    table = tmp_path / "c.csv"
    table.write_bytes(b"\xef\xbb\xbfcaption,n\r\none,1\r\ntwo,2\r\n")
    assert list(load(table).texts) == ["one", "two"]


def test_lines_end_where_python_ends_them(load, tmp_path: Path) -> None:
    """Old Macs, and the separators of Unicode."""
    text = "one\rtwo\u2028three\x0bfour\n\nfive"
    assert list(load(_write(tmp_path / "c.txt", text)).texts) == [t for t in text.splitlines() if t]


def test_the_embedded_captions_are_the_names_of_the_drawings() -> None:
    """Shipped with the trainer."""
    captions = load_captions(CaptionsConfig())
    assert len(captions) > 1800
    assert "grinning face" in captions.texts


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["CC12M", "CC3M"])
def test_conceptual_captions_are_read_as_published(load, tmp_path: Path, order: tuple[int, int]) -> None:
    """No header, tabs, quotes that mean nothing, and either column first."""
    lines = ["\t".join(row[i] for i in order) for row in ROWS]
    path = _write(tmp_path / "cc.tsv", "\n".join(lines) + "\n")
    expected = [caption for _, caption in ROWS]
    assert list(load(path).texts) == expected
    assert list(load(path, order.index(1) + 1).texts) == expected


def test_a_column_by_name_has_a_header_above_it(load, tmp_path: Path) -> None:
    """Found by its usual name, or by the one that is given."""
    path = tmp_path / "c.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "TEXT", "alt"])
        writer.writerows([[1, "one, two", "x"], [2, 'line\nbreak "quoted"', "y"], [3, "", "z"]])
    assert list(load(path).texts) == ["one, two", 'line\nbreak "quoted"']
    assert list(load(path, "alt").texts) == ["x", "y", "z"]


def test_a_column_by_number_has_no_header_above_it(load, tmp_path: Path) -> None:
    """Numbers count from 1; empty lines are no rows."""
    path = _write(tmp_path / "c.csv", "1,one,x\n\n2,two,y\n")
    assert list(load(path, 2).texts) == ["one", "two"]


def test_a_table_of_one_column_is_a_list(load, tmp_path: Path) -> None:
    """With or without a usual name above."""
    assert list(load(_write(tmp_path / "a.csv", "one\ntwo\n")).texts) == ["one", "two"]
    assert list(load(_write(tmp_path / "b.csv", "caption\none\n")).texts) == ["one"]


def test_parquet_columns(load, tmp_path: Path) -> None:
    """By usual name, by name, by number; nulls are blank; dictionaries and large strings are text."""
    path = _parquet(
        tmp_path / "c.parquet",
        url=["u", "v", "w"],
        caption=pyarrow.array(["one", None, "two"], pyarrow.large_string()),
        alt=pyarrow.array(["x", "y", "x"]).dictionary_encode(),
    )
    assert list(load(path).texts) == ["one", "two"]
    assert load(path).counts.blank == 1
    assert list(load(path, "alt").texts) == list(load(path, 3).texts) == ["x", "y"]
    dotted = _parquet(tmp_path / "dotted.parquet", s=[{"b": "x"}], **{"s.b": ["flat"]})
    assert list(load(dotted, "s.b").texts) == ["flat"]
    only = _parquet(tmp_path / "only.parquet", n=[1, 2], words=["one", "two"])
    assert list(load(only).texts) == ["one", "two"]


@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "parquet"])
def test_a_folder_is_its_shards_by_name(load, tmp_path: Path, kind: str) -> None:
    """Duplicates across shards are one caption; what is no shard, or hidden, is left alone."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, texts in enumerate([["d", "a"], ["b", "a"], ["c", "d"]]):
        shard = folder / f"part-{number}.{kind}"
        if kind == "parquet":
            _parquet(shard, caption=texts)
        else:
            header = [] if kind == "txt" else ["caption"]
            _write(shard, "\n".join(header + texts) + "\n")
    _write(folder / f".hidden.{kind}", "no\n")
    _write(folder / "stats.json", "{}")
    assert list(load(folder).texts) == ["d", "a", "b", "c"]


def test_a_caption_longer_than_a_ticket_is_cut_and_counted(load, tmp_path: Path) -> None:
    """Its beginning is the caption, whose id is that of what is left."""
    long = "word " * CAPTION_CHARACTERS_MAX
    captions = load(_write(tmp_path / "c.txt", f"{long}\nshort\n{long} other end\n"))
    assert len(captions) == 2
    assert len(captions.texts[0]) <= CAPTION_CHARACTERS_MAX
    assert long.startswith(captions.texts[0])
    assert captions.ids[0] == caption_id(captions.texts[0])
    assert (captions.counts.cut, captions.counts.duplicates) == (2, 1)


@pytest.mark.parametrize(
    ("name", "content", "got"),
    [
        ("c.txt", b"", "an empty file"),
        ("c.txt", b"\n \n", "an empty file"),
        ("c.csv", b"", "an empty file"),
        ("c.csv", b"caption,url\n", "an empty file"),
        ("c.txt", b"good\nb\xffd\n", "byte 0xff in line 2"),
        ("c.tsv", b"caption\tn\na\t1\nb\xffd\t2\n", "byte 0xff in line 3"),
        ("c.csv", b"caption,n\na,1\nb\n", "1 in line 3"),
        ("c.tsv", b"caption\tn\na\t1\tx\n", "3 in line 2"),
        ("c.csv", b'caption,n\n"a,1\n', "unexpected end of data"),
        ("c.csv", b'caption,n\n"a"b,1\n', "in line 2"),
        ("c.csv", b"id,alt\n1,one\n", "got id, alt"),
        ("c.parquet", b"PAR1 and no more", "after 0 rows"),
        ("c.json", b"[]", "ending in '.json'"),
    ],
)
def test_bad_files_are_one_line(load, tmp_path: Path, name: str, content: bytes, got: str) -> None:
    """What, expected, got, where, how to mend."""
    path = tmp_path / name
    path.write_bytes(content)
    assert got in _refusal(load, path)


def test_bad_columns_are_one_line(load, tmp_path: Path) -> None:
    """A name or number that isn't there, a column that is no text, a column of a list."""
    table = _write(tmp_path / "c.csv", "caption,url\na,b\n")
    assert "one of caption, url" in _refusal(load, table, "text")
    assert "one of 2 columns, got 3" in _refusal(load, table, 3)
    parquet = _parquet(tmp_path / "c.parquet", a=["x"], b=["y"], n=[1])
    assert "got a, b, n" in _refusal(load, parquet)
    assert "one of a, b, n" in _refusal(load, parquet, "c")
    assert "n, of type int64" in _refusal(load, parquet, "n")
    twice = tmp_path / "twice.parquet"
    columns = [pyarrow.array(["x"]), pyarrow.array(["y"])]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names=["alt", "alt"]), twice)
    assert "2 named alt" in _refusal(load, twice, 2)
    assert "one of 3 columns, got 4" in _refusal(load, parquet, 4)
    assert "no captions.column" in _refusal(load, _write(tmp_path / "c.txt", "a\n"), 1)


def test_a_parquet_file_that_is_cut_off_is_one_line(load, tmp_path: Path) -> None:
    """At its end, where the directory is, and in the middle of a column."""
    path = _parquet(tmp_path / "c.parquet", caption=[f"caption {i}" for i in range(3000)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert "whole Parquet file" in _refusal(load, path)
    path.write_bytes(whole[:4] + bytes(2000) + whole[2004:])
    assert "whole Parquet file" in _refusal(load, path)


def test_what_is_not_there_is_told_apart(load, tmp_path: Path) -> None:
    """A missing file, a folder without captions, and one of two kinds."""
    assert "no such file" in _refusal(load, tmp_path / "none.txt")
    with pytest.raises(UserError, match="no such file"):
        load_captions(CaptionsConfig(source=""))
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "a folder without any" in _refusal(load, folder)
    _write(folder / "README.txt", "read me\n")
    _parquet(folder / "a.parquet", caption=["a"])
    assert "1 .parquet, 1 .txt" in _refusal(load, folder)


def test_without_pyarrow_parquet_is_refused_in_one_line(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra, and only Parquet needs it."""
    path = _parquet(tmp_path / "c.parquet", caption=["a"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'streamrep[parquet]'" in _refusal(load, path)
