"""`streamrep engine build|list|clean`: engines built ahead of a run, what is there, and its removal."""

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from launcher.command_line import OneLineParser, split
from launcher.interrupts import Interrupts
from launcher.run_file import RunFile, load
from launcher.up import thread_environment

if TYPE_CHECKING:
    from generator_service.engine_cache import EngineCache


def engine(argv: list[str], interrupts: Interrupts) -> int:
    """Carries out the words after `engine`; returns the exit code. Raises UserError."""
    words, overrides = split(argv)
    parsed = _parser().parse_args(words)
    run_file = load(parsed.run_file, overrides)
    if parsed.action == "build":
        return _build(run_file, interrupts)
    from generator_service.engine_cache import EngineCache

    cache = EngineCache(Path(run_file.generator.engine_cache))
    if parsed.action == "list":
        print("\n".join(_lines(cache)))
    else:
        print(f"removed {cache.clean(parsed.key or None)} engines from {cache.root}")
    return 0


def _build(run_file: RunFile, interrupts: Interrupts) -> int:
    from generator_service.errors import DrawAbandonedError
    from generator_service.worker import prepare

    # Read once, when torch is imported for the engine: code for a CPU is written for so many threads.
    os.environ.update(thread_environment(run_file.generator.threads))
    config = msgspec.structs.replace(run_file.generator, engine="compile")
    _, build = prepare(config, _say)
    began = time.monotonic()
    try:
        built = build(run_file.generation, interrupts.stop.is_set)
    except DrawAbandonedError:
        return interrupts.exit_code
    _say(f"{built.summary}: ready after {time.monotonic() - began:.0f} s, exact: {built.exact}")
    return 0


def _lines(cache: "EngineCache") -> list[str]:
    lines = [f"{'engine':32}  {'MB':>7}  {'built in':>8}  device, latents, precision"]
    for folder, built in cache.engines():
        megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        shape, dtype = built.recipe["unet"][0]
        what = f"{built.recipe['device']}, {'x'.join(map(str, shape))}, {dtype.removeprefix('torch.')}"
        lines.append(f"{folder.name:32}  {megabytes:7.1f}  {built.build_seconds:6.0f} s  {what}")
    return lines if len(lines) > 1 else [f"no engines in {cache.root}"]


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="streamrep engine",
        description="Builds the compiled engine that generators of a run then load, with the run's model,"
        " batch, size and precision; lists what is built; removes it. The cache is generator.engine_cache.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="build|list|clean")
    for name, text in (
        ("build", "build the engine of a run, unless it is there"),
        ("list", "show what is built"),
        ("clean", "remove the engines named by --key, or all"),
    ):
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        action.add_argument("run_file", nargs="?", type=Path, metavar="RUN.toml")
        if name == "clean":
            action.add_argument("--key", action="append", metavar="ENGINE", help="as `list` has it")
    return parser


def _say(text: str) -> None:
    print(text, flush=True)
