"""From what a file holds to a caption, with a count of what was met on the way."""

from msgspec import Struct

from protocol.identity import normalise_caption
from protocol.tickets import CAPTION_CHARACTERS_MAX


class CaptionCounts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a source held."""

    read: int
    """Texts, blank ones included."""
    blank: int
    duplicates: int
    """Texts that had come before, after NFC and trimming."""
    cut: int
    """Texts longer than a ticket may carry, of which the beginning is the caption."""

    @property
    def distinct(self) -> int:
        """Captions that a run visits."""
        return self.read - self.blank - self.duplicates

    def __str__(self) -> str:
        """For people: what there is, and what was left out only where there was any."""
        parts = [f"{self.read:,} read"]
        parts += [f"{self.duplicates:,} duplicates left out"] if self.duplicates else []
        parts += [f"{self.blank:,} blank left out"] if self.blank else []
        parts += [f"{self.cut:,} cut at {CAPTION_CHARACTERS_MAX:,} characters"] if self.cut else []
        return f"{self.distinct:,} captions ({', '.join(parts)})"


class Cleaner:
    """Turns texts into captions and counts them."""

    def __init__(self) -> None:
        self.read = 0
        self.blank = 0
        self.cut = 0

    def clean(self, text: str) -> str:
        """NFC, trimmed, at most as long as a ticket may carry; empty for what is no caption."""
        self.read += 1
        caption = normalise_caption(text)
        if len(caption) > CAPTION_CHARACTERS_MAX:
            # The beginning of an NFC text is NFC; no tokenizer reads nearly as far.
            caption = caption[:CAPTION_CHARACTERS_MAX].rstrip()
            self.cut += 1
        if not caption:
            self.blank += 1
        return caption

    def counts(self, distinct: int) -> CaptionCounts:
        """All that was counted, once it is known how many captions were left."""
        duplicates = self.read - self.blank - distinct
        return CaptionCounts(read=self.read, blank=self.blank, duplicates=duplicates, cut=self.cut)
