"""Sets of pictures: the same pictures, labels, captions and groups from folders, shards and Parquet files."""

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from protocol.errors import UserError
from trainer.evaluation.image_set import ImageSet
from trainer.evaluation.open_set import open_set, openmoji_set

PICTURES = [
    (split, name, number)
    for split in ("train", "val", "test")
    for name in ("cat", "dog")
    for number in range(2)
]


def picture(split: str, name: str, number: int) -> np.ndarray:
    seed = [len(split), ord(name[0]), number]
    return np.random.default_rng(seed).integers(0, 256, (6 + number, 9, 3)).astype(np.uint8)


def png(split: str, name: str, number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(split, name, number)).save(buffer, "PNG")
    return buffer.getvalue()


def as_folder(root: Path) -> None:
    rows = [("path", "caption", "group")]
    for split, name, number in PICTURES:
        path = root / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(split, name, number))
        rows.append((f"{split}/{name}/{number}.png", f"a {name} of {split}", f"group {number}"))
    with (root / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def as_shards(root: Path) -> None:
    root.mkdir()
    for split, name, number in PICTURES:
        with tarfile.open(root / f"{split}-{name}{number}.tar", "w") as tar:
            members = {
                "png": png(split, name, number),
                "cls": name.encode(),
                "json": f'{{"group": "group {number}"}}'.encode(),
                "txt": f"a {name} of {split}".encode(),
            }
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{name}{number}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def as_parquet(root: Path) -> None:
    root.mkdir()
    for split in ("train", "validation", "test"):
        some = [one for one in PICTURES if split.startswith(one[0])]
        columns = {
            "image": [{"bytes": png(*one), "path": None} for one in some],
            "label": [("cat", "dog").index(one[1]) for one in some],
            "caption": [f"a {one[1]} of {one[0]}" for one in some],
            "group": [f"group {one[2]}" for one in some],
        }
        told = b'{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}'
        data = pyarrow.table(columns).replace_schema_metadata({b"huggingface": told})
        pyarrow.parquet.write_table(data, root / f"{split}-00000-of-00001.parquet", row_group_size=2)


@pytest.mark.parametrize("write", [as_folder, as_shards, as_parquet])
def test_every_kind_of_storage_gives_the_same_set(tmp_path: Path, write: object) -> None:
    """Pixels, labels, captions and groups of every split, in order; read in any order."""
    assert callable(write)
    write(tmp_path / "set")
    data = open_set(str(tmp_path / "set"), tmp_path / "cache")
    assert list(data.classes) == ["cat", "dog"]
    for split, short in ((data.train, "train"), (data.validation, "val"), (data.test, "test")):
        assert split is not None
        assert split.labels_N.tolist() == [0, 0, 1, 1]
        assert list(split.captions) == [(f"a {name} of {short}",) for name in ("cat", "cat", "dog", "dog")]
        assert list(split.groups) == ["group 0", "group 1"] * 2
        for row in (3, 0, 2, 1):
            expected = picture(short, ("cat", "dog")[row // 2], row % 2)
            np.testing.assert_array_equal(split.read(row), expected)


SEVERAL = {"a": ("cat", "dog"), "b": (), "c": ("dog",), "d": ("cat", "eel", "dog")}


def several_as_folder(root: Path) -> None:
    (root / "test" / "deep").mkdir(parents=True)
    lines = ["path,label"]
    for name, labels in SEVERAL.items():
        (root / "test" / "deep" / f"{name}.png").write_bytes(png("test", name, 0))
        lines += [f"test/deep/{name}.png,{label}" for label in labels or ("",)]
    (root / "labels.csv").write_text("\n".join([*lines[:2], *reversed(lines[2:])]))


def several_as_shards(root: Path) -> None:
    root.mkdir()
    with tarfile.open(root / "test-0.tar", "w") as tar:
        for name, labels in SEVERAL.items():
            told = json.dumps({"labels": labels}).encode()
            for extension, data in (("png", png("test", name, 0)), ("json", told)):
                info = tarfile.TarInfo(f"{name}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def several_as_parquet(root: Path) -> None:
    root.mkdir()
    names = ["cat", "dog", "eel"]
    columns = {
        "image": [{"bytes": png("test", name, 0), "path": None} for name in SEVERAL],
        "classes": [[names.index(label) for label in labels] for labels in SEVERAL.values()],
    }
    told = {"info": {"features": {"classes": {"feature": {"names": names, "_type": "ClassLabel"}}}}}
    described = {b"huggingface": json.dumps(told).encode()}
    data = pyarrow.table(columns).replace_schema_metadata(described)
    pyarrow.parquet.write_table(data, root / "test-00000-of-00001.parquet")


@pytest.mark.parametrize("write", [several_as_folder, several_as_shards, several_as_parquet])
def test_pictures_with_several_classes_or_none(tmp_path: Path, write: object) -> None:
    """The same set from a table beside a folder, from lists in shards, and from a column of lists."""
    assert callable(write)
    write(tmp_path / "set")
    data = open_set(str(tmp_path / "set"), tmp_path / "cache")
    assert data.is_multi_label
    assert list(data.classes) == ["cat", "dog", "eel"]
    expected = [[label in labels for label in data.classes] for labels in SEVERAL.values()]
    assert data.test.classes_NC is not None
    assert data.test.classes_NC.tolist() == expected
    assert data.test.targets.tolist() == expected
    assert data.test.labels_N.tolist() == [-1] * 4
    np.testing.assert_array_equal(data.test.read(2), picture("test", "c", 0))


def test_a_changed_table_is_another_set_of_the_same_pictures(tmp_path: Path) -> None:
    """Features, which are kept by the pictures' digest, need not be computed again."""
    several_as_folder(tmp_path)
    first = open_set(str(tmp_path), tmp_path)
    table = (tmp_path / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(table.replace("c.png,dog", "c.png,cat"))
    second = open_set(str(tmp_path), tmp_path)
    assert first.test.digest == second.test.digest
    assert first.test.labels_digest != second.test.labels_digest != ""


def test_parquet_pictures_are_copied_once(tmp_path: Path) -> None:
    """The second opening finds the copies of the first, and makes no others."""
    as_parquet(tmp_path / "set")
    open_set(str(tmp_path / "set"), tmp_path / "cache")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    again = open_set(str(tmp_path / "set"), tmp_path / "cache")
    assert len(before) == 3
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == before
    np.testing.assert_array_equal(again.test.read(0), picture("test", "cat", 0))


def test_a_set_without_test_is_judged_on_validation(tmp_path: Path) -> None:
    """As ImageNet is, whose test labels nobody has."""
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "cat" / "0.png").write_bytes(png(split, "cat", 0))
    data = open_set(str(tmp_path), tmp_path / "cache")
    assert data.validation is None
    np.testing.assert_array_equal(data.test.read(0), picture("val", "cat", 0))


def test_several_rows_of_a_path_are_several_captions(tmp_path: Path) -> None:
    """Folders without splits are all test."""
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.png").write_bytes(png("test", "cat", 0))
    (tmp_path / "captions.csv").write_text("path,caption\ncat/0.png,one\ncat/0.png,two\n")
    data = open_set(str(tmp_path), tmp_path)
    assert (data.train, list(data.test.captions)) == (None, [("one", "two")])


def test_numbers_without_names_and_a_changed_picture(tmp_path: Path) -> None:
    """A digest follows what lies on disk; classes.txt names numbers, and must name them all."""
    shard = tmp_path / "test-0.tar"

    def write(label: int) -> ImageSet:
        with tarfile.open(shard, "w") as tar:
            for extension, data in (("png", png("test", "cat", label)), ("cls", str(label).encode())):
                info = tarfile.TarInfo(f"0.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return open_set(str(tmp_path), tmp_path)

    first = write(1)
    assert list(first.classes) == ["0", "1"]
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert list(open_set(str(tmp_path), tmp_path).classes) == ["cat", "dog"]
    assert write(0).test.digest != first.test.digest
    with pytest.raises(UserError, match=r"0 to 1.*got 2 to 2"):
        write(2)


def shard(*told: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number, text in enumerate(told):
            for extension, data in (("png", b"-"), ("json", text.encode())):
                info = tarfile.TarInfo(f"{number}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


MIXED = shard('{"label": "cat"}', '{"label": ["dog"]}')
FRACTION = shard('{"label": [0.5]}')


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"cat/0.png": b"not a picture"}, "a picture can't be read"),
        ({"train/cat/0.png": b""}, "nothing to judge on"),
        ({"cat/0.png": b"", "captions.csv": b"path,caption\ncat/1.png,one\n"}, r"got cat/1\.png"),
        ({"cat/0.png": b"", "captions.csv": b"file,text\n"}, "got file, text"),
        ({"cat/0.png": b"", "labels.csv": b"path,label\n"}, r"a row of cat/0\.png"),
        ({"labels.csv": b"path,label\n0.png,cat\n"}, r"missing.*got 0\.png"),
        ({"0.png": b"", "labels.csv": b"path,label\n0.png,\n"}, "got 1 with none"),
        ({"0.png": b"", "labels.csv": b"path,caption\n0.png,\n"}, "got path, caption"),
        ({"test-0.tar": MIXED}, r"all lists or all single, got 'cat' and \('dog',\)"),
        ({"test-0.tar": FRACTION}, r"a picture has no label.*got \[0\.5\]"),
        ({"other.tar": b""}, r"got other\.tar"),
        ({"test-0.tar": b"not a shard"}, "a shard can't be read"),
        ({"test-0.parquet": b"not a table"}, "labelled pictures can't be read"),
    ],
)
def test_what_cannot_be_a_set_is_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    """In one line that names the file; a picture when it is read."""
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        open_set(str(tmp_path), tmp_path / "cache").test.read(0)


def test_the_embedded_set_asks_with_the_held_out_style() -> None:
    """Three styles to train on; every test name, which is its caption, stands in retrieval's labels."""
    data = openmoji_set()
    assert data.train is not None
    assert set(data.train.groups) == {"fluent", "noto", "twemoji"}
    assert data.test.instances_N is not None
    assert data.test.read(0).shape == (64, 64, 3)
    assert len(data.test.instances_N) == len(data.test.captions) == len(data.test)
