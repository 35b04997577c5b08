"""The words after `streamrep`: a command, a run file, and `--section.key value` overrides."""

import argparse
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from launcher.errors import RunFileError
from launcher.help import help_text
from launcher.run_file import RunFile, load

TRAINER_SECTIONS = (
    "run",
    "captions",
    "generation",
    "stream",
    "pool",
    "model",
    "train",
    "augment",
    "eval",
    "monitor",
    "log",
)
SECTIONS = {
    "up": (*TRAINER_SECTIONS, "generator"),
    "train": TRAINER_SECTIONS,
    "generate": ("generator",),
    "captions": ("captions",),
}
LOGS = Path("runs/generators")
OVERRIDE = re.compile(r"--[A-Za-z_]\w*\.")


class Command(Struct, frozen=True, kw_only=True):
    """A parsed command line. `overrides` are the words that are not options of the command itself."""

    name: str
    run_path: Path | None
    overrides: list[str]
    workers: int
    ranks: int
    gpus: str
    """Of `generate`: those to draw on, a process each; empty is one process."""
    logs: Path
    """Of `generate --gpus`: the processes' output."""
    end_with_stdin: bool

    def load(self) -> RunFile:
        """The run it asks for. Raises UserError."""
        return load(self.run_path, self.overrides)

    @property
    def run_words(self) -> list[str]:
        """The words that name the same run to another command."""
        return [*([str(self.run_path)] if self.run_path else []), *self.overrides]


def parse(argv: list[str]) -> Command:
    """Exits with 2 and argparse's line on words that no command takes, with 0 after --help or --version."""
    words, overrides = split(argv)
    parsed = _parser().parse_args(words)
    return Command(
        name=parsed.command,
        run_path=parsed.run_file,
        overrides=overrides,
        workers=getattr(parsed, "workers", 1),
        ranks=getattr(parsed, "ranks", 1),
        gpus=getattr(parsed, "gpus", ""),
        logs=getattr(parsed, "logs", LOGS),
        end_with_stdin=getattr(parsed, "end_with_stdin", False),
    )


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Words for argparse, and override words with the value that follows each."""
    words: list[str] = []
    overrides: list[str] = []
    rest = iter(argv)
    for word in rest:
        if not OVERRIDE.match(word):
            words.append(word)
            continue
        overrides.append(word)
        if "=" not in word:
            overrides += [value for value in [next(rest, None)] if value is not None]
    return words, overrides


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="streamrep",
        description="StableRep training on images that generators stream as they are drawn.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"streamrep {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    texts = {
        "up": "one trainer and its generators on this machine, until the run ends",
        "train": "the trainer alone; generators on any machine connect to it",
        "generate": "one generator, for the trainer at generator.connect",
        "captions": "read or index the captions of a run, and show what they are",
    }
    for name, text in texts.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=help_text(SECTIONS[name]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_argument(
            "run_file", nargs="?", type=Path, metavar="RUN.toml", help="the embedded run without it"
        )
        if name == "up":
            command.add_argument("--workers", type=_count, default=1, metavar="N", help="generators (1)")
            command.add_argument("--ranks", type=_count, default=1, metavar="N", help="trainer ranks (1)")
        if name == "generate":
            command.add_argument("--gpus", default="", metavar="all|0,1", help="a generator on each (one)")
            command.add_argument(
                "--logs", type=Path, default=LOGS, metavar="DIR", help=f"with --gpus ({LOGS})"
            )
        if name in ("train", "generate"):
            command.add_argument("--end-with-stdin", action="store_true", help=argparse.SUPPRESS)
    commands.add_parser("keys", help="make, admit, list and revoke the keys of trainer and workers")
    commands.add_parser("ctl", help="ask a running trainer for its status, a pause, or another mode")
    commands.add_parser("eval", help="judge an encoder: retrieval, kNN, linear probe, few-shot, zero-shot")
    commands.add_parser("ledger", help="ask the ledger of a run about uses, captions, workers, engines")
    commands.add_parser("regenerate", help="draw a group of a run again and compare it with the ledger")
    commands.add_parser("pool", help="fill a pool with images of every caption, or look at one")
    commands.add_parser("engine", help="build the compiled engine of a run, list what is built, remove it")
    commands.add_parser("plan", help="hours, GPUs and bytes of a schedule, fresh or from a pool")
    commands.add_parser("bench", help="measure one question; `streamrep bench` lists them")
    return parser


class OneLineParser(argparse.ArgumentParser):
    """argparse with this project's errors: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise RunFileError(
            "cannot read the command line",
            expected=" ".join(self.format_usage().split()).removeprefix("usage: "),
            got=message,
            where="command line",
            mend=f"`{self.prog} --help` explains it",
        )


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {text}")
    return count


def _version() -> str:
    try:
        return version("streamrep")
    except PackageNotFoundError:
        return "(not installed)"
