"""The distinct captions of a run, in a fixed order."""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

import xxhash

from protocol.errors import UserError
from protocol.identity import caption_id, normalise_caption
from trainer.config import CaptionsConfig


class Captions:
    """Distinct NFC captions with their ids. `digest` names the list: same texts, same order."""

    def __init__(self, texts: Iterable[str]) -> None:
        by_id: dict[int, str] = {}
        for raw in texts:
            text = normalise_caption(raw)
            if text:
                by_id.setdefault(caption_id(text), text)
        self.texts: Sequence[str] = tuple(by_id.values())
        self.ids: Sequence[int] = tuple(by_id)
        self.digest = xxhash.xxh3_128_hexdigest("\n".join(self.texts).encode())

    def __len__(self) -> int:
        return len(self.texts)


def load_captions(config: CaptionsConfig) -> Captions:
    """Reads the section's source. Raises UserError naming the file, and the line where it is not UTF-8."""
    if config.source == "embedded":
        return Captions(files("trainer").joinpath("embedded/captions.txt").read_text("utf-8").splitlines())
    path = Path(config.source)
    expected = "a UTF-8 text file with one caption a line"
    mend = "set captions.source to such a file, or to `embedded`"
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise UserError("no captions", expected=expected, got=got, where=str(path), mend=mend)
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            "captions can't be read",
            expected="UTF-8",
            got=f"byte 0x{data[error.start]:02x} in line {line}",
            where=str(path),
            mend=f"convert it, for example with `iconv -f latin1 -t utf-8 {path}`",
        ) from error
    captions = Captions(text.splitlines())
    if not len(captions):
        raise UserError("no captions", expected=expected, got="an empty file", where=str(path), mend=mend)
    return captions
