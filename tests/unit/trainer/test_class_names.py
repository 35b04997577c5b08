"""The class of a caption is the longest class name in it."""

from pathlib import Path

import pytest

from protocol.errors import UserError
from trainer.class_names import ClassNames, load_class_names

NAMES = ClassNames(["panda", "Red Panda", "", "fish", "lion-fish", "rosé"])


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("panda", 0),
        ("A photo of a PANDA.", 0),
        ("a red panda on a branch", 1),
        ("red, panda", 1),
        ("two fish", 2),
        ("lion fish in the sea", 3),
        ("a glass of rose\u0301", 4),
    ],
)
def test_the_longest_name_in_whole_words_wins(caption: str, expected: int) -> None:
    """Whatever the case, the punctuation and the Unicode form; empty lines are no class."""
    assert NAMES.class_of(caption) == expected
    assert len(NAMES) == 5


@pytest.mark.parametrize(
    ("caption", "got"), [("pandas", "none"), ("", "none"), ("a fish and a panda", "got fish and panda")]
)
def test_a_caption_without_one_class_is_refused(caption: str, got: str) -> None:
    """One line with the caption and what was found in it."""
    with pytest.raises(UserError, match=got) as caught:
        NAMES.class_of(caption)
    assert repr(caption) in str(caught.value)


def test_names_come_one_a_line(tmp_path: Path) -> None:
    """In the order of the file."""
    path = tmp_path / "classes.txt"
    path.write_text("\ufefffish\r\n\nrose\n", "utf-8")
    names = load_class_names(str(path))
    assert [names.class_of(caption) for caption in ("a fish", "a rose")] == [0, 1]


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00"])
def test_a_file_without_names_is_refused(content: bytes | None, tmp_path: Path) -> None:
    """One line that names it."""
    path = tmp_path / "classes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="no class names") as caught:
        load_class_names(str(path))
    assert str(path) in str(caught.value)
