"""`streamrep pool RUN.toml --out DIR`: fills a pool. `streamrep pool inspect DIR`: looks at one."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from launcher.command_line import OneLineParser, split
from launcher.errors import RunFileError
from launcher.interrupts import Interrupts
from launcher.processes import Child
from launcher.run_file import RunFile, load, to_tables
from launcher.supervisor import TRAINER
from launcher.up import check_keys, local_endpoint, supervise, thread_environment


def pool(argv: list[str], interrupts: Interrupts) -> int:
    """Carries out the words after `pool`; returns the exit code. Raises UserError."""
    if argv[:1] == ["inspect"]:
        return _inspect(argv[1:])
    words, overrides = split(argv)
    parsed = _fill_parser().parse_args(words)
    if parsed.end_with_stdin:
        interrupts.end_with_stdin()
    run_file = load(parsed.run_file, overrides)
    if parsed.workers == 0:
        return _fill(run_file, parsed.out, interrupts)
    check_keys(run_file)
    run_words = [*([str(parsed.run_file)] if parsed.run_file else []), *overrides]
    _make(parsed.out)
    generators = [f"generator-{index}" for index in range(parsed.workers)]
    return supervise(generators, _spawner(run_words, run_file, parsed.out), interrupts)


def _fill(run_file: RunFile, folder: Path, interrupts: Interrupts) -> int:
    from trainer.pool.fill import fill

    if not interrupts.stop.is_set():
        fill(run_file, folder, interrupts.stop, to_tables(run_file))
    return interrupts.exit_code


def _spawner(run_words: list[str], run_file: RunFile, folder: Path) -> Callable[[str], Child]:
    """A function that starts a process by its name: the one that fills takes the trainer's place."""
    connect = local_endpoint(run_file)

    def spawn(name: str) -> Child:
        python = [sys.executable, "-m", "launcher"]
        if name == TRAINER:
            argv = [*python, "pool", *run_words, "--out", str(folder), "--workers", "0", "--end-with-stdin"]
            return Child(argv, thread_environment(run_file.train.threads), None)
        argv = [*python, "generate", *run_words, "--generator.connect", connect, "--end-with-stdin"]
        return Child(argv, thread_environment(run_file.generator.threads), folder / f"{name}.log")

    return spawn


def _inspect(argv: list[str]) -> int:
    parsed = _inspect_parser().parse_args(argv)
    from trainer.pool.contact_sheet import write_contact_sheet
    from trainer.pool.inspect import inspect, report
    from trainer.pool.pool import open_pool

    opened = open_pool(parsed.dir, max_damaged=None)
    found = inspect(opened)
    print(report(found))
    sheet = parsed.sheet or parsed.dir / "contact_sheet.png"
    try:
        write_contact_sheet(opened, found.captions_shown, sheet)
    except OSError as error:
        raise _cannot_write(sheet, error, "choose another file with --sheet") from error
    print(f"  contact sheet: {sheet}")
    return 0


def _make(folder: Path) -> None:
    """Here, since the generators' logs may be opened before the pool is."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error, "choose another with --out") from error


def _cannot_write(path: Path, error: OSError, mend: str) -> RunFileError:
    got = error.strerror or str(error)
    return RunFileError("cannot write", expected="a place to write", got=got, where=str(path), mend=mend)


def _fill_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="streamrep pool",
        description="Fills a pool with pool.images_per_caption images of every caption, and goes on where it"
        " was stopped. `streamrep pool inspect DIR` looks at a pool.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "run_file", nargs="?", type=Path, metavar="RUN.toml", help="the embedded run without it"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the pool's folder")
    parser.add_argument(
        "--workers",
        type=_count,
        default=1,
        metavar="N",
        help="generators on this machine (1); with 0 they are started elsewhere with `streamrep generate`",
    )
    parser.add_argument("--end-with-stdin", action="store_true", help=argparse.SUPPRESS)
    return parser


def _inspect_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="streamrep pool inspect",
        description="Reads every picture of a pool; prints counts, sizes, what is damaged, and draws a few.",
        allow_abbrev=False,
    )
    parser.add_argument("dir", type=Path, metavar="DIR", help="the pool's folder")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help="where the contact sheet goes (DIR/contact_sheet.png)"
    )
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError(f"expected an integer >= 0, got {text}")
    return count
