"""The distinct captions of a run, in a fixed order: in memory, or off an index where there are many."""

from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path

import xxhash

from protocol.errors import UserError
from protocol.identity import caption_id
from trainer.caption_sources.cleaning import Cleaner
from trainer.caption_sources.files import CaptionFiles, find_files
from trainer.caption_sources.index import IndexedCaptions
from trainer.caption_sources.read import read_source
from trainer.caption_sources.store import IndexStore
from trainer.config import CaptionsConfig

INDEX_BYTES = 4 << 20
"""A source of more bytes than this is indexed; a smaller one is read at every start."""


class Captions:
    """Distinct NFC captions with their ids. `digest` names the list: same texts, same order."""

    def __init__(self, texts: Iterable[str]) -> None:
        cleaner = Cleaner()
        by_id: dict[int, str] = {}
        for raw in texts:
            text = cleaner.clean(raw)
            if text:
                by_id.setdefault(caption_id(text), text)
        self.texts: Sequence[str] = tuple(by_id.values())
        self.ids: Sequence[int] = tuple(by_id)
        self.digest = xxhash.xxh3_128_hexdigest("\n".join(self.texts).encode())
        self.counts = cleaner.counts(len(by_id))

    def __len__(self) -> int:
        return len(self.texts)


CaptionList = Captions | IndexedCaptions
"""The same texts, ids and digest for the same source."""


def load_captions(
    config: CaptionsConfig,
    *,
    say: Callable[[str], None] = lambda text: None,
    stopped: Callable[[], bool] = lambda: False,
) -> CaptionList:
    """Reads or indexes the section's source; `say` hears what takes long.

    Raises UserError naming the file, and the line where there is one; StopRequestedError once `stopped`.
    """
    if config.source == "embedded":
        return Captions(files("trainer").joinpath("embedded/captions.txt").read_text("utf-8").splitlines())
    found = find_files(config.source)
    captions: CaptionList
    if found.total_bytes > INDEX_BYTES:
        captions = IndexStore(Path(config.index), say, stopped).open(found, config.column)
    else:
        captions = Captions(text for block in read_source(found, config.column) for text in block.texts)
    if not len(captions):
        raise _empty(found)
    return captions


def _empty(found: CaptionFiles) -> UserError:
    return UserError(
        "no captions",
        expected="at least one caption",
        got="an empty file" if len(found.paths) == 1 else f"{len(found.paths)} empty files",
        where=str(found.source),
        mend="set captions.source to another, or to `embedded`",
    )
