"""Pools that others made, and pools that are damaged."""

import csv
import io
import os
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from protocol.errors import UserError
from protocol.identity import caption_id
from trainer.errors import DamagedImageError, PoolDamagedError
from trainer.pool.files import PoolFiles
from trainer.pool.images import decode_image, encode_image
from trainer.pool.pool import open_pool


def _tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _png(value: int) -> bytes:
    return encode_image(np.full((16, 16, 3), value, np.uint8), "png")


def _read_all(folder: Path, max_damaged: int | None = None) -> tuple[Counter[str], int]:
    """Reasons of damage, and how many images could be decoded."""
    pool = open_pool(folder, max_damaged=max_damaged)
    files, good = PoolFiles(folder), 0
    for row in range(len(pool.index)):
        place = pool.index.image(row).place
        try:
            decode_image(files.read(place))
            good += 1
        except DamagedImageError as error:
            pool.damage.count(place.name, error.reason, error.detail)
    files.close()
    return pool.damage.reasons, good


def test_shards_of_img2dataset_are_read(tmp_path: Path) -> None:
    """KEY.jpg, KEY.txt, KEY.json; the same caption in several places has all of their images."""
    _tar(
        tmp_path / "00000.tar",
        [
            ("000000000.png", _png(1)),
            ("000000000.txt", b"a cat"),
            ("000000000.json", b'{"caption": "x"}'),
            ("000000001.json", b'{"caption": " a dog\\n"}'),
            ("000000001.png", _png(2)),
            ("sub/000000002.png", _png(3)),
            ("sub/000000002.txt", b"a cat"),
            ("sub/000000002.cls", b"1"),
        ],
    )
    _tar(tmp_path / "00001.tar", [("a.b.png", _png(4)), ("a.txt", b"a cat"), ("notes", b"-")])
    pool = open_pool(tmp_path, max_damaged=0)
    files = PoolFiles(tmp_path)
    values = {
        text: [
            int(decode_image(files.read(pool.index.image(row).place))[0, 0, 0])
            for row in pool.index.rows(caption_id(text))
        ]
        for text in ("a cat", "a dog")
    }
    files.close()
    assert values == {"a cat": [1, 3, 4], "a dog": [2]}
    assert pool.about is None


def test_a_foreign_shard_is_read_through_once(tmp_path: Path) -> None:
    """Its index lies beside it, until the shard changes."""
    shard = tmp_path / "00000.tar"
    _tar(shard, [("0.png", _png(1)), ("0.txt", b"a cat")])
    open_pool(tmp_path, max_damaged=0)
    index = tmp_path / "00000.index.json"
    written = index.stat().st_mtime_ns
    open_pool(tmp_path, max_damaged=0)
    assert index.stat().st_mtime_ns == written
    _tar(shard, [("0.png", _png(1)), ("0.txt", b"a cat"), ("1.png", _png(2)), ("1.txt", b"a cat")])
    os.utime(shard, ns=(1, 1))
    assert len(open_pool(tmp_path, max_damaged=0).index) == 2


def _folders(root: Path, rows: list[tuple[str, str]], seeds: list[str]) -> None:
    for number, seed in enumerate(seeds):
        for path, _ in rows:
            target = root / seed / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_png(10 * number + len(path)))
    with open(root / "cc12m.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def test_stablereps_layout_is_read(tmp_path: Path) -> None:
    """Its own folder names in the order of their seeds; rows of other files are passed over as it does."""
    rows = [("000000/000000/00000.png", "a cat"), ("000000/000000/00001.png", "a, dog"), ("x", "heading")]
    _folders(tmp_path, rows[:2], [f"ddim_2.0_seed_{seed}" for seed in range(11)])
    with open(tmp_path / "cc12m.csv", "a", encoding="utf-8") as file:
        file.write("path,caption\n")
    pool = open_pool(tmp_path, max_damaged=0)
    files = PoolFiles(tmp_path)
    for caption in ("a cat", "a, dog"):
        found = [
            int(decode_image(files.read(pool.index.image(row).place))[0, 0, 0])
            for row in pool.index.rows(caption_id(caption))
        ]
        assert found == [10 * number + 23 for number in range(11)]
    assert len(pool.index) == 22
    files.close()


def test_missing_and_outside_paths_are_counted(tmp_path: Path) -> None:
    """A CSV may name anything: nothing outside the folder is read, also not through a link."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(_png(99))
    pool = tmp_path / "pool"
    rows = [("a.png", "a"), ("b.png", "b"), ("../../secret.png", "c"), (str(secret), "d"), ("link.png", "e")]
    _folders(pool, rows[:2], ["seed_0", "seed_1"])
    (pool / "seed_0" / "link.png").symlink_to(secret)
    (pool / "seed_1" / "link.png").symlink_to(pool / "seed_0" / "a.png")
    with open(pool / "cc12m.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    (pool / "seed_1" / "b.png").unlink()
    reasons, good = _read_all(pool)
    # An absolute path is taken below the folder of its seed, where there is nothing.
    assert reasons == {"missing": 3, "outside": 3}
    assert good == 4
    with pytest.raises(PoolDamagedError):
        _read_all(pool, max_damaged=2)


def test_a_shard_whose_members_leave_the_folder(tmp_path: Path) -> None:
    """Counted, skipped, and nothing is written anywhere."""
    pool = tmp_path / "pool"
    pool.mkdir()
    evil = [("../evil.png", _png(1)), ("../evil.txt", b"x"), ("/etc/evil.png", _png(1))]
    _tar(pool / "0.tar", [*evil, ("good.png", _png(1)), ("good.txt", b"fine"), ("bare.png", _png(1))])
    before = sorted(tmp_path.rglob("*"))
    reasons, good = _read_all(pool)
    assert good == 1
    assert reasons == {"outside": 3, "no_caption": 1}
    assert sorted(tmp_path.rglob("*")) == sorted([*before, pool / "0.index.json"])


@pytest.mark.parametrize(("cut", "whole"), [(100, 0), (1000, 0), (2000, 0), (3200, 1), (7000, 2)])
def test_a_truncated_foreign_shard_gives_what_is_whole(tmp_path: Path, cut: int, whole: int) -> None:
    """In the middle of a header or of a member's bytes; a sample is 512 + 512 + 512 + 1024 bytes."""
    shard = tmp_path / "0.tar"
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    members = [(f"{i}.{end}", data) for i in range(3) for end, data in
               (("txt", b"c%d" % i), ("png", encode_image(noise, "png")))]  # fmt: skip
    _tar(shard, members)
    shard.write_bytes(shard.read_bytes()[:cut])
    reasons, good = _read_all(tmp_path)
    assert reasons == {"truncated": 1}
    assert good == whole


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    """tarfile alone would stop there without a word."""
    shard = tmp_path / "0.tar"
    _tar(shard, [(f"{i}.{end}", data) for i in range(3) for end, data in
                 (("txt", b"c%d" % i), ("png", _png(i)))])  # fmt: skip
    data = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        offset = tar.getmember("1.txt").offset
    data[offset : offset + 20] = b"\xff" * 20
    shard.write_bytes(data)
    reasons, good = _read_all(tmp_path)
    assert (reasons, good) == ({"truncated": 1}, 1)


def test_damage_to_our_own_shards_is_found_by_checksum(
    tmp_path: Path, write_pool: Callable[..., Path]
) -> None:
    """A changed byte, a cut shard, a lost one: each image of them once, the others are read."""
    write_pool(tmp_path, ["a", "b"], images=6)
    first, second, third = sorted(tmp_path.glob("*.tar"))
    entry = open_pool(tmp_path, max_damaged=0).index.image(0).place
    data = bytearray(first.read_bytes())
    data[entry.offset + 30] ^= 1
    first.write_bytes(data)
    second.write_bytes(second.read_bytes()[:1000])
    third.unlink()
    reasons, good = _read_all(tmp_path)
    assert reasons == {"checksum": 1, "truncated": 4, "missing": 4}
    assert good == 3


def test_an_absurd_picture_in_a_pool_is_skipped(tmp_path: Path) -> None:
    """By its header, in a shard and in a folder."""
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, format="PNG")
    _tar(tmp_path / "0.tar", [("0.png", buffer.getvalue()), ("0.txt", b"a"), ("1.png", _png(1)),
                              ("1.txt", b"a")])  # fmt: skip
    assert _read_all(tmp_path) == (Counter(too_large=1), 1)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 20_000), st.binary(min_size=1, max_size=8)), max_size=8))
def test_any_damage_to_a_shard_is_counted_and_never_fatal(
    tmp_path: Path, changes: list[tuple[int, bytes]]
) -> None:
    """Bytes anywhere in the file, headers included, are overwritten."""
    shard = tmp_path / "0.tar"
    _tar(shard, [(f"{i}.{end}", data) for i in range(4) for end, data in
                 (("txt", b"c%d" % i), ("png", _png(i)))])  # fmt: skip
    data = bytearray(shard.read_bytes())
    for at, value in changes:
        at %= len(data) - len(value)
        data[at : at + len(value)] = value
    shard.write_bytes(data)
    (tmp_path / "0.index.json").unlink(missing_ok=True)
    _, good = _read_all(tmp_path)
    assert 0 <= good <= 4


def test_a_folder_without_a_pool_says_so(tmp_path: Path) -> None:
    """Empty, missing, or a file."""
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="no pool"):
            open_pool(path, max_damaged=0)


def test_an_index_of_another_kind_is_refused(tmp_path: Path, write_pool: Callable[..., Any]) -> None:
    """Named, with what to do."""
    write_pool(tmp_path, ["a"])
    (tmp_path / "shard-000000.index.json").write_bytes(b'{"version": 9}')
    with pytest.raises(UserError, match="index can't be read"):
        open_pool(tmp_path, max_damaged=0)
