"""`streamrep ledger`: the everyday questions to the ledger of a run."""

import argparse
import os
import sys
from contextlib import closing

from launcher.answers import FORMATS, write_answer
from launcher.command_line import OneLineParser
from launcher.errors import RunFileError
from launcher.interrupts import Interrupts
from launcher.recorded_run import find_run
from protocol.identity import caption_id
from trainer.errors import StopRequestedError
from trainer.ledger_questions import QUESTIONS
from trainer.ledger_reader import LedgerReader

TABLE_ROWS = 20


def ledger(argv: list[str], interrupts: Interrupts) -> int:
    """Answers one question on stdout; returns the exit code. Raises UserError."""
    words = _parser().parse_args(argv)
    question = QUESTIONS[words.question]
    if not question.takes_filters and (words.group is not None or words.caption is not None):
        takers = [name for name, other in QUESTIONS.items() if other.takes_filters]
        raise RunFileError(
            f"{words.question} is about all groups",
            expected=f"--group or --caption with one of {', '.join(takers)}",
            got=words.question,
            where="command line",
            mend="ask one of these",
        )
    limit = (TABLE_ROWS if words.format == "table" else 0) if words.limit is None else words.limit
    try:
        with closing(LedgerReader(find_run(words.run).ledger, interrupts.stop.is_set)) as reader:
            answer = reader.ask(
                question,
                group_id=words.group,
                caption_id=None if words.caption is None else caption_id(words.caption),
            )
            write_answer(answer, words.format, sys.stdout, limit or None)
            sys.stdout.flush()
    except StopRequestedError:
        pass  # the exit code tells
    except BrokenPipeError:
        # Whoever read has seen enough, as `head` does; what is left must not be tried again at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return interrupts.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="streamrep ledger",
        description="Answers questions to the ledger of a run, also while it goes on. Nothing is changed.",
        epilog="questions:\n" + "\n".join(f"  {name:13} {one.text}" for name, one in QUESTIONS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, or the name of one in runs/")
    parser.add_argument(
        "question", nargs="?", default="summary", choices=QUESTIONS, metavar="QUESTION", help="(summary)"
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="(table)")
    parser.add_argument(
        "--limit", type=_rows, metavar="N", help=f"rows, 0 for all ({TABLE_ROWS} in a table, else all)"
    )
    parser.add_argument("--group", type=int, metavar="ID", help="of this group alone")
    parser.add_argument("--caption", metavar="TEXT", help="of this caption alone")
    return parser


def _rows(text: str) -> int:
    rows = int(text)
    if rows < 0:
        raise argparse.ArgumentTypeError(f"expected an integer >= 0, got {text}")
    return rows
