"""Classes of captions that name them: "a red panda on a branch" is of class "red panda".

The class of a caption is the longest class name that stands in it as whole words, whatever their case.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from protocol.errors import UserError
from protocol.identity import normalise_caption

_WORD = re.compile(r"\w+")
_SHOWN_CHARACTERS = 80


class ClassNames:
    """Class names in the order of their file; a class is its position in it."""

    def __init__(self, names: Iterable[str], where: str = "captions.classes") -> None:
        self.where = where
        self._class_of_words: dict[tuple[str, ...], int] = {}
        for name in names:
            words = _words(name)
            if words:
                self._class_of_words.setdefault(words, len(self._class_of_words))
        self._longest = max(map(len, self._class_of_words), default=0)

    def __len__(self) -> int:
        return len(self._class_of_words)

    def class_of(self, caption: str) -> int:
        """Raises UserError for a caption that names no class, or several that are equally long."""
        words = _words(caption)
        for length in range(min(self._longest, len(words)), 0, -1):
            runs = {words[start : start + length] for start in range(len(words) - length + 1)}
            found = sorted(run for run in runs if run in self._class_of_words)
            if len(found) > 1:
                raise self._refusal(caption, " and ".join(" ".join(run) for run in found))
            if found:
                return self._class_of_words[found[0]]
        raise self._refusal(caption, "none")

    def _refusal(self, caption: str, got: str) -> UserError:
        shown = caption if len(caption) <= _SHOWN_CHARACTERS else caption[: _SHOWN_CHARACTERS - 3] + "..."
        return UserError(
            "a caption must name one class",
            expected=f"one of the {len(self)} class names in {shown!r}",
            got=got,
            where=self.where,
            mend="mend the caption or the list of classes, or choose another train.objective",
        )


def load_class_names(source: str) -> ClassNames:
    """The names of `captions.classes`, one a line. Raises UserError where the file gives none."""
    path = Path(source)
    try:
        names = ClassNames(path.read_text("utf-8-sig").splitlines(), str(path))
        if not len(names):
            raise ValueError("no names in it")
    except (OSError, ValueError) as error:
        raise UserError(
            "no class names",
            expected="a UTF-8 text file with one class name a line",
            got=getattr(error, "strerror", None) or str(error),
            where=str(path),
            mend="set captions.classes to such a file",
        ) from error
    return names


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(normalise_caption(text).casefold()))
