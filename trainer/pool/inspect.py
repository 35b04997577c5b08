"""What is in a pool, found by reading every picture of it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import DamagedImageError
from trainer.pool.files import PoolFiles
from trainer.pool.images import decode_image
from trainer.pool.pool import Pool, read_segments

EXAMPLE_CAPTIONS = 8


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Counts of one pool."""

    segments: int
    captions: int
    images: int
    """That the index names, damaged ones among them."""
    bytes: int
    """Of the pictures that could be read."""
    images_per_caption: Counter[int]
    """How many captions have so many images."""
    sizes: Counter[tuple[int, int]]
    """Pictures by (width, height)."""
    damaged: Counter[str]
    """By reason."""
    examples: tuple[str, ...]
    """The first few damaged ones."""
    captions_shown: tuple[str, ...]
    """A few captions, evenly over the pool."""


def inspect(pool: Pool, tell: Callable[[int, int], None] = lambda done, total: None) -> Inspection:
    """Reads and decodes every picture; `tell` hears of the progress. `pool` is opened without a limit."""
    files = PoolFiles(pool.folder)
    sizes: Counter[tuple[int, int]] = Counter()
    length = 0
    try:
        for row in range(len(pool.index)):
            place = pool.index.image(row).place
            try:
                data = files.read(place)
                height, width, _ = decode_image(data).shape
            except DamagedImageError as error:
                pool.damage.count(place.name, error.reason, error.detail)
            else:
                sizes[width, height] += 1
                length += len(data)
            tell(row + 1, len(pool.index))
    finally:
        files.close()
    by_caption = pool.index.images_by_caption()
    segments, texts = _look_up(pool.folder, len(by_caption))
    return Inspection(
        segments=segments,
        captions=len(by_caption),
        images=len(pool.index),
        bytes=length,
        images_per_caption=Counter(by_caption.values()),
        sizes=sizes,
        damaged=pool.damage.reasons,
        examples=tuple(pool.damage.examples),
        captions_shown=texts,
    )


def report(inspection: Inspection) -> str:
    """For a terminal."""
    found = inspection
    sizes = ", ".join(f"{count:,} of {w} x {h}" for (w, h), count in found.sizes.most_common(5))
    counts = sorted(found.images_per_caption.items())
    per_caption = ", ".join(f"{images} ({captions:,} captions)" for images, captions in counts[:5])
    more = f", and {len(counts) - 5} other numbers" if len(counts) > 5 else ""
    rows = [
        ("segments", f"{found.segments:,}"),
        ("captions", f"{found.captions:,}"),
        ("images", f"{found.images:,}"),
        ("images a caption", (per_caption or "none") + more),
        ("bytes of pictures", f"{found.bytes:,}"),
        ("sizes", (sizes or "none") + (", and others" if len(found.sizes) > 5 else "")),
        ("damaged", ", ".join(f"{n:,} {reason}" for reason, n in found.damaged.most_common()) or "none"),
    ]
    rows += [("", example) for example in found.examples]
    rows += [("for example" if i == 0 else "", text) for i, text in enumerate(found.captions_shown)]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"  {label:<{width}}  {value}" for label, value in rows)


def _look_up(folder: Path, captions: int) -> tuple[int, tuple[str, ...]]:
    """How many segments there are, and a few captions."""
    wanted = {captions * i // EXAMPLE_CAPTIONS for i in range(EXAMPLE_CAPTIONS)}
    seen: set[str] = set()
    texts: list[str] = []
    segments = 0
    for _, segment in read_segments(folder):
        segments += 1
        for text in segment.captions:
            if text not in seen and len(seen) in wanted:
                texts.append(text)
            seen.add(text)
    return segments, tuple(texts)
