"""`streamrep captions`: reads or indexes the captions of a run ahead of it, and shows what they are."""

import sys

from launcher.interrupts import Interrupts
from launcher.run_file import RunFile
from trainer.captions import CaptionList, load_captions
from trainer.errors import StopRequestedError

SHOWN = 8


def captions(run_file: RunFile, interrupts: Interrupts) -> int:
    """Prints counts, digest and some captions; returns the exit code. Raises UserError."""
    try:
        found = load_captions(run_file.captions, say=_say, stopped=interrupts.stop.is_set)
    except StopRequestedError:
        return interrupts.exit_code
    print("\n".join(description(found)))
    return 0


def description(found: CaptionList) -> list[str]:
    """Lines for people: what the source holds, and captions from its beginning to its end."""
    step = max(1, -(-len(found) // SHOWN))
    return [
        str(found.counts),
        f"digest {found.digest}",
        *(f"{index + 1:>12,}  {found.texts[index]!r}" for index in range(0, len(found), step)),
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
