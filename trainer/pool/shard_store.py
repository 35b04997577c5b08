"""Writes WebDataset shards: three members an image, KEY.webp, KEY.txt and KEY.json."""

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from protocol.identity import caption_id
from trainer.pool.images import SUFFIXES, PictureFormat
from trainer.pool.segment import INDEX_SUFFIX, Entry, sync_folder
from trainer.pool.store import WRITING, EncodedGroup


class ShardFile:
    """One tar file being written: every member a plain USTAR one with the same owner and time, so that the
    same images make the same file."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 - closed by `close`
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, name: str, data: bytes) -> int:
        """Appends a member; returns the offset of its first byte."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(member, io.BytesIO(data))
        return offset

    def close(self) -> int:
        """Ends the file and brings it to the disk; returns its length in bytes."""
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        length = self._file.tell()
        self._file.close()
        return length


class ShardStore:
    """One shard a segment."""

    stem = "shard"

    def __init__(self, folder: Path, picture: PictureFormat) -> None:
        self._folder = folder
        self._suffix = SUFFIXES[picture]
        self._writing = folder / f"{WRITING}shard.tar"
        self._file: ShardFile | None = None

    def add(self, group: EncodedGroup, i: int) -> tuple[str, int]:
        """See `Store.add`."""
        self._file = self._file or ShardFile(self._writing)
        key = f"{caption_id(group.caption):016x}_{group.images[i]:06d}"
        about = {
            "caption": group.caption,
            "image": group.images[i],
            "group_id": group.group_id,
            "seed": group.seeds[i],
            "guidance": group.guidance[i],
            "engine": group.engine,
            "content": group.content,
        }
        offset = self._file.add(key + self._suffix, group.pictures[i])
        self._file.add(f"{key}.txt", group.caption.encode())
        self._file.add(f"{key}.json", msgspec.json.encode(about))
        return key + self._suffix, offset

    def commit(self, number: int, entries: Sequence[Entry]) -> int:
        """See `Store.commit`. A segment that brought no new image has no shard."""
        if self._file is None:
            return 0
        length = self._file.close()
        self._file = None
        self._writing.rename(self._shard(number))
        sync_folder(self._folder)
        return length

    def finished(self, captions: Sequence[str]) -> None:
        """See `Store.finished`: nothing is left to do."""

    def remove(self, number: int, entries: Sequence[Entry]) -> None:
        """See `Store.remove`."""
        self._shard(number).unlink(missing_ok=True)

    def recover(self, captions: Sequence[str]) -> None:
        """See `Store.recover`: shards that were renamed, and killed before their index was there."""
        for shard in self._folder.glob("*.tar"):
            if not shard.with_suffix(INDEX_SUFFIX).exists():
                shard.unlink()

    def discard(self) -> None:
        """See `Store.discard`."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._writing.unlink(missing_ok=True)

    def _shard(self, number: int) -> Path:
        return self._folder / f"{self.stem}-{number:06d}.tar"
