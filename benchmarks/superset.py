"""Images that `bench modes` and `bench ablation` serve: drawn once into a pool, then held in memory."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from protocol.errors import UserError
from protocol.identity import caption_id, digest_of
from protocol.payload import ImagesNHWC
from trainer.captions import Captions
from trainer.pool.files import PoolFiles
from trainer.pool.images import decode_image
from trainer.pool.pool import Pool, open_pool


@dataclass(frozen=True, kw_only=True, slots=True)
class Superset:
    """M images of each caption."""

    captions: Captions
    images: dict[int, ImagesNHWC]
    """By caption id: [M, size, size, 3] uint8, image i at row i."""
    digest: str
    """Names the pictures: of the digests of all of them."""
    fill_seconds: float
    """Wall time that drawing and storing them took."""
    picture_bytes: float
    """Of a stored picture, on average."""


def choose_captions(count: int) -> list[str]:
    """`count` of the embedded captions, evenly spaced in their list. Raises UserError for more than those."""
    texts = Captions(files("trainer").joinpath("embedded/captions.txt").read_text("utf-8").splitlines()).texts
    if not 2 <= count <= len(texts):
        raise UserError(
            "no such number of captions",
            expected=f"2 to {len(texts)}, all of the embedded ones",
            got=str(count),
            where="--captions",
            mend="choose a number in between",
        )
    return [texts[i * len(texts) // count] for i in range(count)]


def fill(
    folder: Path,
    captions: Sequence[str],
    images_a_caption: int,
    views: int,
    guidance: Sequence[float] | None = None,
) -> None:
    """Fills the pool below `folder` by `streamrep pool`, or what is missing of it; adds up the seconds.
    `guidance` are scales to draw at instead of the run file's.

    Raises UserError where that ends with an error, having said it.
    """
    if _is_full(folder / "pool", captions, images_a_caption):
        return
    folder.mkdir(parents=True, exist_ok=True)
    source, clock = folder / "captions.txt", folder / "fill_seconds.json"
    source.write_text("\n".join(captions) + "\n", encoding="utf-8")
    words = ["--captions.source", str(source), "--generation.views", str(views)]
    words += ["--pool.images_per_caption", str(images_a_caption)]
    if guidance is not None:
        words += ["--generation.guidance", json.dumps(list(guidance))]
    before = json.loads(clock.read_text()) if clock.exists() else 0.0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="streamrep-") as sockets:
        words += ["--stream.bind", f"ipc://{sockets}/feed"]
        command = [sys.executable, "-m", "launcher", "pool", "--out", str(folder / "pool"), *words]
        code = subprocess.run(command, check=False).returncode
    clock.write_text(json.dumps(before + time.monotonic() - began))
    if code:
        raise UserError(
            "the superset could not be drawn",
            expected="`streamrep pool` to fill it",
            got=f"exit code {code}, its reason above",
            where=str(folder / "pool"),
            mend="mend that and start again: it goes on where it stopped",
        )


def _is_full(pool: Path, captions: Sequence[str], images_a_caption: int) -> bool:
    if not pool.is_dir():
        return False
    index = open_pool(pool, max_damaged=None).index
    ids = map(caption_id, captions)
    return all(len(index.rows(known, 0, images_a_caption)) == images_a_caption for known in ids)


def read(folder: Path, captions: Sequence[str], images_a_caption: int) -> Superset:
    """Everything into memory. Raises UserError where the pool has other captions, or too few images."""
    pool, known = open_pool(folder / "pool", max_damaged=0), Captions(captions)
    images = {caption_id(text): _images_of(pool, folder, text, images_a_caption) for text in known.texts}
    return Superset(
        captions=known,
        images=images,
        digest=_digest(pool),
        fill_seconds=json.loads((folder / "fill_seconds.json").read_text()),
        picture_bytes=pool.index.bytes / len(pool.index),
    )


def digest_at(folder: Path) -> str:
    """The `digest` of what `read` would read, without reading the pictures."""
    return _digest(open_pool(folder / "pool", max_damaged=0))


def _digest(pool: Pool) -> str:
    return digest_of({"pictures": [pool.index.image(row).place.digest for row in range(len(pool.index))]})


def _images_of(pool: Pool, folder: Path, caption: str, count: int) -> ImagesNHWC:
    rows = pool.index.rows(caption_id(caption), 0, count)
    if len(rows) != count:
        raise UserError(
            "superset is incomplete",
            expected=f"{count} images of {caption!r}",
            got=str(len(rows)),
            where=str(folder / "pool"),
            mend="remove that folder, or name another with --folder",
        )
    places = PoolFiles(folder / "pool")
    try:
        return np.stack([decode_image(places.read(pool.index.image(row).place)) for row in rows])
    finally:
        places.close()
