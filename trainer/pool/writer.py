"""Writes a pool, a segment at a time: what is not a whole segment when a process dies never was.

groups ─add→ .writing-* ─seal→ synced and renamed ─index→ a segment that counts
"""

import fcntl
import shutil
from pathlib import Path

import xxhash
from msgspec import structs

from protocol.errors import UserError
from protocol.identity import caption_id
from trainer.pool.about import About, read_about, write_about
from trainer.pool.folder_store import FolderStore
from trainer.pool.index import PoolIndex
from trainer.pool.segment import INDEX_SUFFIX, Entry, Segment, read_segment, write_segment
from trainer.pool.shard_store import ShardStore
from trainer.pool.store import WRITING, EncodedGroup, Store


class PoolWriter:
    """The only writer of its folder, by a lock. Not for several threads."""

    def __init__(self, folder: Path, about: About) -> None:
        """Makes the pool, or goes on with one of the same plan. Raises UserError."""
        self.folder = folder
        make_store = ShardStore if about.format == "webdataset" else FolderStore
        self._store: Store = make_store(folder, about.picture)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(folder / ".lock", "a+")  # noqa: SIM115 - held as long as the writer
        except OSError as error:
            raise _cannot(folder, "cannot write the pool", error.strerror or str(error)) from error
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise _cannot(folder, "pool is in use", "one that another process is writing") from error
            self._recover(about)
        except BaseException:
            self._lock.close()
            raise

    def _recover(self, about: About) -> None:
        folder, known = self.folder, read_about(self.folder)
        if known is None and any(path.suffix in (".tar", ".csv") for path in folder.iterdir()):
            raise _cannot(folder, "pool was made elsewhere", "tar shards or a CSV without pool.json")
        if known is not None and _core(known) != _core(about):
            differing = [name for name, value in _core(about).items() if _core(known)[name] != value]
            raise UserError(
                "pool is another one",
                expected=", ".join(f"{name} = {_core(known)[name]}" for name in differing),
                got=", ".join(f"{name} = {_core(about)[name]}" for name in differing),
                where=str(folder),
                mend="restore captions, seed, [generation] and [pool], or choose another folder",
            )
        for leftover in folder.glob(f"{WRITING}*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        filled_with = max(about.images_per_caption, known.images_per_caption if known else 0)
        if known is None or filled_with != known.images_per_caption:
            write_about(folder, structs.replace(about, images_per_caption=filled_with))
        self._numbers = sorted(
            int(path.name.removesuffix(INDEX_SUFFIX).rpartition("-")[2])
            for path in folder.glob(f"{self._store.stem}-*{INDEX_SUFFIX}")
        )
        self._look()
        self._start()

    def _look(self) -> None:
        """At the segments that count."""
        self.groups: dict[int, int] = {}
        """In segments that count: how many images of each group are here, by its id."""
        self.content = ""
        """Content hash of the workers; empty before the first segment."""
        captions: dict[str, None] = {}
        segments = [("", self._read(number)) for number in self._numbers]
        for _, segment in segments:
            self._note(segment)
            captions |= dict.fromkeys(segment.captions)
        self._known = PoolIndex(segments)
        self._store.recover(list(captions))

    def _start(self) -> None:
        self._new_groups: list[tuple[int, int]] = []
        self._captions: dict[str, int] = {}
        self._engines: dict[str, int] = {}
        self._entries: list[Entry] = []

    @property
    def pending_images(self) -> int:
        """In the segment that is being written."""
        return len(self._entries)

    def add(self, group: EncodedGroup) -> None:
        """Adds one group to the segment that is being written. An image that the pool had when it was opened
        stays as it is. Raises UserError for a group of another model than the others."""
        if group.content != (self.content or group.content):
            raise UserError(
                "pool is of another model",
                expected=f"groups of content hash {self.content}",
                got=group.content,
                where=str(self.folder),
                mend="draw with the model that the pool was begun with, or choose another folder",
            )
        self.content = group.content
        self._new_groups.append((group.group_id, len(group.images)))
        caption = self._captions.setdefault(group.caption, len(self._captions))
        engine = self._engines.setdefault(group.engine, len(self._engines))
        known = caption_id(group.caption)
        for i, (image, picture) in enumerate(zip(group.images, group.pictures, strict=True)):
            if self._known.rows(known, image, image + 1):
                continue
            path, offset = self._store.add(group, i)
            self._entries.append(
                Entry(
                    caption=caption,
                    image=image,
                    path=path,
                    offset=offset,
                    size=len(picture),
                    digest=xxhash.xxh3_64_hexdigest(picture),
                    seed=group.seeds[i],
                    guidance=group.guidance[i],
                    engine=engine,
                )
            )

    def seal(self, run: str = "", step: int = 0) -> None:
        """Makes what was added since the last time a segment that counts, recorded by that run until that
        step."""
        if not self._new_groups:
            return
        number = self._numbers[-1] + 1 if self._numbers else 0
        segment = Segment(
            bytes=self._store.commit(number, self._entries),
            content=self.content,
            engines=tuple(self._engines),
            captions=tuple(self._captions),
            groups=tuple(self._new_groups),
            run=run,
            step=step,
            entries=tuple(self._entries),
        )
        write_segment(self._index(number), segment)
        self._store.finished(segment.captions)
        self._numbers.append(number)
        self._note(segment)
        self._start()

    def trim(self, run: str, step: int) -> None:
        """Forgets what that run recorded after that step: its weights are gone."""
        segments = {number: self._read(number) for number in self._numbers}
        gone = {n: segment for n, segment in segments.items() if segment.run == run and segment.step > step}
        for number, segment in gone.items():
            self._index(number).unlink()
            self._store.remove(number, segment.entries)
            self._numbers.remove(number)
        if gone:
            self._look()

    def _note(self, segment: Segment) -> None:
        self.content = self.content or segment.content
        for group_id, images in segment.groups:
            self.groups[group_id] = max(images, self.groups.get(group_id, 0))

    def close(self) -> None:
        """Drops what is not sealed, and gives up the lock."""
        self._store.discard()
        self._lock.close()

    def _index(self, number: int) -> Path:
        return self.folder / f"{self._store.stem}-{number:06d}{INDEX_SUFFIX}"

    def _read(self, number: int) -> Segment:
        return read_segment(self._index(number))


def _core(about: About) -> dict[str, object]:
    """What all images of a pool share."""
    return {"format": about.format, "picture": about.picture, "plan": about.plan, "seed": about.seed}


def _cannot(folder: Path, what: str, got: str) -> UserError:
    return UserError(
        what,
        expected="a folder for this pool alone, that can be written",
        got=got,
        where=str(folder),
        mend="choose another folder",
    )
