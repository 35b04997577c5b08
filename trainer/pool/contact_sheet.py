"""One picture of a few captions of a pool, a row each, for people to look at."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from protocol.identity import caption_id
from trainer.errors import DamagedImageError
from trainer.pool.files import PoolFiles
from trainer.pool.images import decode_image
from trainer.pool.pool import Pool

COLUMNS = 10
TILE = 96
TEXT_HEIGHT = 20
MARGIN = 4


def write_contact_sheet(pool: Pool, captions: Sequence[str], path: Path) -> None:
    """A PNG with the first images of each caption below its text; a damaged one leaves its place empty."""
    step_x, step_y = TILE + MARGIN, TEXT_HEIGHT + TILE + MARGIN
    sheet = Image.new("RGB", (COLUMNS * step_x + MARGIN, max(1, len(captions)) * step_y + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    files = PoolFiles(pool.folder)
    try:
        for line, caption in enumerate(captions):
            top = MARGIN + line * step_y
            draw.text((MARGIN, top), caption[:120].replace("\n", " "), fill="black", font=font)
            for column, row in enumerate(pool.index.rows(caption_id(caption))[:COLUMNS]):
                try:
                    tile = Image.fromarray(decode_image(files.read(pool.index.image(row).place), TILE))
                except DamagedImageError:
                    continue  # it has been counted already
                sheet.paste(tile, (MARGIN + column * step_x, top + TEXT_HEIGHT))
    finally:
        files.close()
    temporary = path.with_name(f".writing-{path.name}")
    sheet.save(temporary, format="PNG")
    temporary.replace(path)
