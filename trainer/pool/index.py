"""The index of a whole pool in memory: columns of numbers, sorted by caption and image."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocol.identity import caption_id
from trainer.pool.files import Place
from trainer.pool.segment import Segment

UNKNOWN = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolImage:
    """One image of a pool."""

    caption_id: int
    image: int
    """Its number: the view that it is."""
    place: Place
    seed: int | None
    guidance: float | None
    engine: str
    content: str


class PoolIndex:
    """Finds images by caption and number. Of two with the same number the earlier segment's counts, so that
    what is recorded later never changes what was found before."""

    def __init__(self, segments: Iterable[tuple[str, Segment]]) -> None:
        """(shard file below the pool's folder, its index); no file name where every image is a file."""
        columns: dict[str, list[npt.NDArray[np.int64]]] = {}
        self._files: list[str] = []
        self._contents: list[str] = []
        self._engines: list[tuple[str, ...]] = []
        self._paths: list[str] = []
        unnumbered: dict[int, int] = {}
        for number, (file, segment) in enumerate(segments):
            self._files.append(file)
            self._contents.append(segment.content)
            self._engines.append(segment.engines)
            for name, column in _columns(number, segment, unnumbered).items():
                columns.setdefault(name, []).append(column)
            self._paths += [entry.path for entry in segment.entries]
        joined = {name: np.concatenate(parts) for name, parts in columns.items()} or dict.fromkeys(
            _NAMES, np.zeros(0, np.int64)
        )
        joined["path"] = np.arange(len(self._paths), dtype=np.int64)
        # Stable, so that of equal ones the earlier segment's comes first; then only the first of each stays.
        order = np.lexsort((joined["image"], joined["caption_id"]))
        ids, images = joined["caption_id"][order], joined["image"][order]
        again = np.zeros(len(order), np.bool_)
        again[1:] = (ids[1:] == ids[:-1]) & (images[1:] == images[:-1])
        self._columns = {name: column[order[~again]] for name, column in joined.items()}
        self._ids: Sequence[int] = self._columns["caption_id"]  # type: ignore[assignment]  # bisect reads it

    def __len__(self) -> int:
        """Images."""
        return len(self._ids)

    def rows(self, caption: int, first: int = 0, last: int | None = None) -> range:
        """Rows of that caption's images with a number from `first` to below `last`, in their order."""
        low = bisect_left(self._ids, caption)
        high = bisect_right(self._ids, caption, lo=low)
        images: Sequence[int] = self._columns["image"]  # type: ignore[assignment]  # as above
        start = bisect_left(images, first, lo=low, hi=high)
        return range(start, high if last is None else bisect_left(images, last, lo=start, hi=high))

    def image(self, row: int) -> PoolImage:
        """All that is known of one image."""
        value = {name: int(column[row]) for name, column in self._columns.items()}
        file, path = self._files[value["segment"]], self._paths[value["path"]]
        engine = value["engine"]
        digest = f"{value['digest'] & (2**64 - 1):016x}" if value["digest"] else ""
        place = Place(file or path, value["offset"], value["size"], digest, path if file else "")
        return PoolImage(
            caption_id=value["caption_id"],
            image=value["image"],
            place=place,
            seed=None if value["seed"] == UNKNOWN else value["seed"],
            guidance=None if value["guidance"] == UNKNOWN else value["guidance"] / _GUIDANCE_UNIT,
            engine="" if engine == UNKNOWN else self._engines[value["segment"]][engine],
            content=self._contents[value["segment"]],
        )

    def images_by_caption(self) -> dict[int, int]:
        """How many images each caption has."""
        ids, counts = np.unique(self._columns["caption_id"], return_counts=True)
        return dict(zip(ids.tolist(), counts.tolist(), strict=True))

    @property
    def bytes(self) -> int:
        """Of all pictures whose size is known."""
        return int(self._columns["size"].sum())


_NAMES = ("caption_id", "image", "segment", "offset", "size", "digest", "seed", "guidance", "engine")
_GUIDANCE_UNIT = 10**6
"""Guidance is kept as a whole number of millionths, beside the others."""


def _columns(number: int, segment: Segment, unnumbered: dict[int, int]) -> dict[str, npt.NDArray[np.int64]]:
    """`unnumbered`: images without a number of their own so far, by caption; they are numbered on."""
    ids = [caption_id(caption) for caption in segment.captions]
    rows = []
    for entry in segment.entries:
        caption, image = ids[entry.caption], entry.image
        if image < 0:
            image = unnumbered.get(caption, 0)
            unnumbered[caption] = image + 1
        digest = int(entry.digest, 16) if entry.digest else 0
        rows.append(
            (
                caption,
                image,
                number,
                entry.offset,
                entry.size,
                digest - 2**64 if digest >= 2**63 else digest,
                UNKNOWN if entry.seed is None else entry.seed,
                UNKNOWN if entry.guidance is None else round(entry.guidance * _GUIDANCE_UNIT),
                UNKNOWN if entry.engine is None else entry.engine,
            )
        )
    table = np.array(rows, np.int64).reshape(len(rows), len(_NAMES))
    return {name: table[:, i].copy() for i, name in enumerate(_NAMES)}
