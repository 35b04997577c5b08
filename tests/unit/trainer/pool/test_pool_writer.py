"""What the writer leaves on disk: whole segments, readable by others, and nothing of a killed one."""

import csv
import gc
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from protocol.errors import UserError
from protocol.identity import caption_id
from trainer.pool.files import PoolFiles
from trainer.pool.images import decode_image
from trainer.pool.pool import open_pool
from trainer.pool.writer import PoolWriter

CAPTIONS = ["a red dog", "zwei Häuser, groß", 'a "quoted", text']


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the package leaves the shards open
def test_the_webdataset_package_reads_our_shards(
    tmp_path: Path, write_pool: Callable[..., Path], picture_of: Callable[..., Any]
) -> None:
    """Pixels, captions and the rest, with its own decoders and its security switched on."""
    import webdataset

    webdataset.utils.enforce_security = True
    write_pool(tmp_path, CAPTIONS)
    urls = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    assert len(urls) == 2
    dataset = webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("webp", "txt", "json")
    seen = {}
    for image, caption, about in dataset:
        assert np.array_equal(np.asarray(image), picture_of(caption, about["image"]))
        assert about["caption"] == caption
        assert about["seed"] == 1000 + about["image"]
        assert (about["guidance"], about["engine"], about["content"]) == (2.5, "e", "c")
        seen[caption, about["image"]] = about["group_id"]
    del dataset, image
    gc.collect()  # while their warnings are ignored
    assert sorted(seen) == sorted((caption, n) for caption in CAPTIONS for n in range(4))


def test_stablereps_own_rules_read_our_folders(
    tmp_path: Path, write_pool: Callable[..., Path], picture_of: Callable[..., Any]
) -> None:
    """A plain loop as its loader has it: a CSV without a heading, the same path below every folder."""
    write_pool(tmp_path, CAPTIONS, format="folders", picture="png")
    folders = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    with open(tmp_path / "captions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [caption for _, caption in rows] == CAPTIONS
    assert len(folders) == 4
    for path, caption in rows:
        assert path.endswith(".png")
        for number, folder in enumerate(folders):
            assert np.array_equal(np.asarray(Image.open(folder / path)), picture_of(caption, number))


@pytest.mark.parametrize("pool_format", ["webdataset", "folders"])
def test_what_is_written_is_found_by_caption_and_number(
    tmp_path: Path, write_pool: Callable[..., Path], picture_of: Callable[..., Any], pool_format: str
) -> None:
    """With all that is known of it; a caption that is not there has no images."""
    pool = open_pool(write_pool(tmp_path, CAPTIONS, format=pool_format), max_damaged=0)
    files = PoolFiles(tmp_path)
    assert len(pool.index) == 12
    for caption in CAPTIONS:
        rows = pool.index.rows(caption_id(caption))
        assert [pool.index.image(row).image for row in rows] == [0, 1, 2, 3]
        assert [pool.index.image(row).image for row in pool.index.rows(caption_id(caption), 1, 3)] == [1, 2]
        for row in rows:
            image = pool.index.image(row)
            assert np.array_equal(decode_image(files.read(image.place)), picture_of(caption, image.image))
            assert (image.seed, image.guidance) == (1000 + image.image, 2.5)
            assert (image.engine, image.content) == ("e", "c")
    assert not pool.index.rows(caption_id("never drawn"))
    assert set(pool.index.images_by_caption().values()) == {4}
    files.close()


@pytest.mark.parametrize("pool_format", ["webdataset", "folders"])
def test_what_was_not_sealed_never_was(
    tmp_path: Path, about: Callable[..., Any], encoded: Callable[..., Any], pool_format: str
) -> None:
    """The process is killed in the middle of its second segment, without any chance to clean up."""
    script = f"""
import os, signal
from pathlib import Path
from protocol.generation import GenerationSpec
from trainer.pool.about import About
from trainer.pool.store import EncodedGroup
from trainer.pool.writer import PoolWriter
spec = GenerationSpec(views=2, size=16)
about = About(format={pool_format!r}, picture="webp", plan="p", seed=0, generation=spec)
writer = PoolWriter(Path({str(tmp_path)!r}), about)
for group_id, caption in enumerate("ab"):
    writer.add(EncodedGroup(group_id=group_id, caption=caption, images=(0, 1), pictures=(b"x", b"y"),
                            seeds=(1, 2), guidance=(2.0, 2.0), engine="e", content="c"))
    if group_id == 0:
        writer.seal()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert any(path.name.startswith(".writing-") for path in tmp_path.iterdir())
    assert len(open_pool(tmp_path, max_damaged=0).index) == 2
    writer = PoolWriter(tmp_path, about(format=pool_format))
    assert not any(path.name.startswith(".writing-") for path in tmp_path.iterdir())
    assert writer.groups == {0: 2}
    writer.add(encoded(1, "b"))
    writer.seal()
    writer.close()
    assert len(open_pool(tmp_path, max_damaged=0).index) == 4


def test_a_shard_without_its_index_is_discarded(
    tmp_path: Path, write_pool: Callable[..., Path], about: Callable[..., Any]
) -> None:
    """The kill came between the two renames."""
    write_pool(tmp_path, CAPTIONS)
    (tmp_path / "shard-000001.index.json").unlink()
    assert len(open_pool(tmp_path, max_damaged=0).index) == 6
    writer = PoolWriter(tmp_path, about())
    assert [path.name for path in tmp_path.glob("*.tar")] == ["shard-000000.tar"]
    assert writer.groups == dict.fromkeys([0, 1, 2], 2)
    writer.close()


@pytest.mark.parametrize("pool_format", ["webdataset", "folders"])
@pytest.mark.parametrize("cut", [False, True])
def test_an_index_that_is_not_in_place_does_not_count(
    tmp_path: Path, write_pool: Callable[..., Path], pool_format: str, cut: bool
) -> None:
    """The kill came while it was written, or before its rename; or a writer is at it while we read."""
    write_pool(tmp_path, CAPTIONS, format=pool_format)
    [*_, last] = sorted(tmp_path.glob("*.index.json"))
    whole = last.read_bytes()
    last.unlink()
    (tmp_path / f".writing-{last.name}").write_bytes(whole[: len(whole) // (1 + cut)])
    pool, files = open_pool(tmp_path, max_damaged=0), PoolFiles(tmp_path)
    assert 0 < len(pool.index) < 12
    for row in range(len(pool.index)):
        files.read(pool.index.image(row).place)
    files.close()


@pytest.mark.parametrize("pool_format", ["webdataset", "folders"])
def test_trimming_forgets_what_a_run_recorded_later_and_its_files(
    tmp_path: Path,
    write_pool: Callable[..., Path],
    about: Callable[..., Any],
    encoded: Callable[..., Any],
    pool_format: str,
) -> None:
    """As a resumed run does with what its checkpoint does not know; segments of others stay."""
    write_pool(tmp_path, CAPTIONS[:1], images=2, format=pool_format)
    writer = PoolWriter(tmp_path, about(format=pool_format))
    for step in (5, 7, 10):
        writer.add(encoded(step, "b", first=step))
        writer.seal("runs/r", step)
    writer.add(encoded(11, "c"))
    writer.seal("runs/other", 30)
    writer.trim("runs/r", 5)
    assert writer.groups == {0: 2, 5: 2, 11: 2}
    writer.add(encoded(7, "b", first=7))
    writer.seal("runs/r", 6)
    writer.trim("runs/r", 6)
    assert writer.groups == {0: 2, 5: 2, 7: 2, 11: 2}
    writer.trim("runs/r", 5)
    writer.close()
    assert len(open_pool(tmp_path, max_damaged=0).index) == 6
    pictures = [path for path in tmp_path.rglob("*") if path.suffix in (".tar", ".webp")]
    assert len(pictures) == (3 if pool_format == "webdataset" else 6)


def test_an_image_that_is_there_stays_as_it_is(
    tmp_path: Path, write_pool: Callable[..., Path], about: Callable[..., Any], encoded: Callable[..., Any]
) -> None:
    """The same caption and number twice: what was found before is found afterwards."""
    write_pool(tmp_path, ["a"], images=2, format="folders")
    before = open_pool(tmp_path, max_damaged=0).index.image(0)
    writer = PoolWriter(tmp_path, about(format="folders"))
    writer.add(encoded(77, "a", pictures=(b"other", b"bytes")))
    writer.add(encoded(78, "a", first=1))
    writer.seal("runs/r", 1)
    assert 77 in writer.groups
    writer.trim("runs/r", 0)  # and taking it back leaves the first ones
    writer.close()
    index = open_pool(tmp_path, max_damaged=0).index
    assert index.image(0) == before
    assert len(index) == 2


def test_one_writer_at_a_time(tmp_path: Path, about: Callable[..., Any]) -> None:
    """Another process would mix its segments with ours."""
    writer = PoolWriter(tmp_path, about())
    with pytest.raises(UserError, match="pool is in use"):
        PoolWriter(tmp_path, about())
    writer.close()
    PoolWriter(tmp_path, about()).close()


def test_another_plan_does_not_go_into_the_same_pool(
    tmp_path: Path, write_pool: Callable[..., Path], about: Callable[..., Any]
) -> None:
    """Nor another format; a pool made elsewhere is not written to at all."""
    write_pool(tmp_path / "ours", ["a"])
    with pytest.raises(UserError, match="expected plan = p, got plan = q"):
        PoolWriter(tmp_path / "ours", about(plan="q"))
    with pytest.raises(UserError, match="picture = webp"):
        PoolWriter(tmp_path / "ours", about(picture="jpeg"))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "00000.tar").touch()
    with pytest.raises(UserError, match="made elsewhere"):
        PoolWriter(theirs, about())
    assert [path.name for path in theirs.glob("*.tar")] == ["00000.tar"]


def test_another_model_does_not_go_into_the_same_pool(
    tmp_path: Path, write_pool: Callable[..., Path], about: Callable[..., Any], encoded: Callable[..., Any]
) -> None:
    """Its images would mean something else."""
    writer = PoolWriter(write_pool(tmp_path, ["a"]), about())
    with pytest.raises(UserError, match="groups of content hash c, got another"):
        writer.add(encoded(5, "b", content="another"))
    writer.close()


def test_the_same_images_make_the_same_shard(tmp_path: Path, write_pool: Callable[..., Path]) -> None:
    """No time, owner or order of a dict gets in, and offsets are those of the members."""
    first = write_pool(tmp_path / "a", CAPTIONS)
    time.sleep(0.01)
    second = write_pool(tmp_path / "b", CAPTIONS)
    for shard in first.glob("*.tar"):
        assert shard.read_bytes() == (second / shard.name).read_bytes()
    with tarfile.open(first / "shard-000000.tar") as tar:
        members = {member.name: member for member in tar}
    entries = json.loads((first / "shard-000000.index.json").read_text())["entries"]
    for _, _, name, offset, size, *_ in entries:
        assert (members[name].offset_data, members[name].size) == (offset, size)
        assert os.path.basename(name) == name
