"""Labelled WebDataset shards, train-*.tar, val-*.tar and test-*.tar: KEY.jpg with KEY.cls or KEY.json, and
perhaps KEY.txt.

The label is KEY.cls, else `label`, `cls` or `class_name` in KEY.json, or a list of labels under one of these,
or `labels` or `classes`; the caption KEY.txt, else `caption`; the group `group`. No member is extracted:
pictures are read from their places.
"""

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from protocol.errors import UserError
from trainer.evaluation.image_set import Place, Row
from trainer.pool.images import READABLE_SUFFIXES

TEXT_BYTES_MAX = 2**20
LABEL_KEYS = ("label", "cls", "class_name", "labels", "classes")


def read_shards(paths: Sequence[Path]) -> list[Row]:
    """The rows of one split's shards, in their order. Raises UserError."""
    return [row for path in paths for row in _read_shard(path)]


def _read_shard(path: Path) -> Iterator[Row]:
    key, place, texts = "", None, dict[str, bytes]()
    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                if not member.isreg():
                    continue
                folder, slash, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                suffix = "." + extension.lower().rpartition(".")[2]
                if folder + slash + stem != key:
                    if place:
                        yield _row(place, texts, f"{path}: {key}")
                    key, place, texts = folder + slash + stem, None, {}
                if suffix in READABLE_SUFFIXES:
                    place = Place(path, member.offset_data, member.size)
                elif suffix in (".cls", ".json", ".txt") and member.size <= TEXT_BYTES_MAX:
                    file = tar.extractfile(member)
                    assert file, "a regular member"
                    texts[suffix] = file.read()
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            "a shard can't be read",
            expected="a plain tar file",
            got=str(error),
            where=str(path),
            mend="fetch it again",
        ) from error
    if place:
        yield _row(place, texts, f"{path}: {key}")


def _row(place: Place, texts: Mapping[str, bytes], where: str) -> Row:
    known = _json(texts.get(".json", b"{}"))
    text = texts[".cls"].decode("utf-8", "replace").strip() if ".cls" in texts else None
    label = next((known[key] for key in LABEL_KEYS if key in known), "") if text is None else text
    several = isinstance(label, list)
    labels = [_number_or_name(one) for one in (label if several else [label])]
    if any(type(one) not in (str, int) or one == "" for one in labels):
        raise UserError(
            "a picture has no label",
            expected=f"a .cls file, or {', '.join(LABEL_KEYS)} in its .json",
            got=repr(label),
            where=where,
            mend="write the shards with labels",
        )
    caption = texts[".txt"].decode("utf-8", "replace").strip() if ".txt" in texts else known.get("caption")
    return Row(
        place,
        tuple(labels) if several else labels[0],
        (caption,) if isinstance(caption, str) and caption else (),
        str(known.get("group", "")),
    )


def _number_or_name(label: Any) -> Any:
    return int(label) if isinstance(label, str) and label.isdecimal() else label


def _json(data: bytes) -> dict[str, Any]:
    try:
        known = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
