"""Caption files: what is read, and what is refused in one line."""

from pathlib import Path

import pytest

from protocol.errors import UserError
from protocol.identity import caption_id
from trainer.captions import Captions, load_captions
from trainer.config import CaptionsConfig


def _load(path: Path) -> Captions:
    return load_captions(CaptionsConfig(source=str(path)))


def test_duplicates_and_blank_lines_leave_and_order_stays(tmp_path: Path) -> None:
    """Exact duplicates after NFC and trimming are one caption."""
    path = tmp_path / "captions.txt"
    path.write_text("b\n\na\n b \ncafe\u0301\ncaf\u00e9\n", encoding="utf-8")
    captions = _load(path)
    assert captions.texts == ("b", "a", "café")
    assert captions.ids == tuple(caption_id(text) for text in captions.texts)


def test_a_byte_order_mark_is_no_part_of_the_first_caption(tmp_path: Path) -> None:
    """Files saved on Windows."""
    path = tmp_path / "captions.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert _load(path).texts == ("one", "two")


def test_the_embedded_captions_are_the_names_of_the_drawings() -> None:
    """Shipped with the trainer."""
    captions = load_captions(CaptionsConfig())
    assert len(captions) > 1800
    assert "grinning face" in captions.texts


@pytest.mark.parametrize(
    ("content", "got"),
    [(b"", "an empty file"), (b"\n \n", "an empty file"), (b"good\nb\xffd\n", "byte 0xff in line 2")],
)
def test_bad_files_are_one_line(tmp_path: Path, content: bytes, got: str) -> None:
    """What, expected, got, where, how to mend."""
    path = tmp_path / "captions.txt"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        _load(path)
    assert got in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    """Both say what was found."""
    with pytest.raises(UserError, match="no such file"):
        _load(tmp_path / "none.txt")
    with pytest.raises(UserError, match="a folder"):
        _load(tmp_path)
