"""`streamrep engine build|list|clean`: engines built ahead of a run, what is there, and its removal."""

import argparse
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from generator_service.config import BUILT_ENGINES, GeneratorConfig
from launcher.command_line import OneLineParser, split
from launcher.interrupts import Interrupts
from launcher.run_file import RunFile, load
from launcher.up import thread_environment
from protocol.errors import UserError
from protocol.generation import GenerationSpec

if TYPE_CHECKING:
    from generator_service.engine_cache import EngineCache


def engine(argv: list[str], interrupts: Interrupts) -> int:
    """Carries out the words after `engine`; returns the exit code. Raises UserError."""
    words, overrides = split(argv)
    parsed = _parser().parse_args(words)
    run_file = load(parsed.run_file, overrides)
    if parsed.action == "build":
        return _build(run_file, parsed.engine, parsed.compute_capability, interrupts)
    from generator_service.engine_cache import EngineCache

    cache = EngineCache(Path(run_file.generator.engine_cache))
    if parsed.action == "list":
        print("\n".join(_lines(cache)))
    else:
        print(f"removed {cache.clean(parsed.key or None)} engines from {cache.root}")
    return 0


def _build(
    run_file: RunFile, engine: str | None, capabilities: list[tuple[int, int]], interrupts: Interrupts
) -> int:
    # Read once, when torch is imported for the engine: code for a CPU is written for so many threads.
    os.environ.update(thread_environment(run_file.generator.threads))
    from generator_service.errors import DrawAbandonedError

    named = run_file.generator.engine if run_file.generator.engine in BUILT_ENGINES else "compile"
    config = msgspec.structs.replace(run_file.generator, engine=engine or named)
    try:
        if capabilities:
            _build_ahead(config, run_file.generation, capabilities, interrupts)
        else:
            _build_here(config, run_file.generation, interrupts)
    except DrawAbandonedError:
        return interrupts.exit_code
    return 0


def _build_here(config: GeneratorConfig, spec: GenerationSpec, interrupts: Interrupts) -> None:
    from generator_service.worker import prepare

    _, build = prepare(config, _say)
    began = time.monotonic()
    built = build(spec, interrupts.stop.is_set)
    _say(f"{built.summary}: ready after {time.monotonic() - began:.0f} s, exact: {built.exact}")


def _build_ahead(
    config: GeneratorConfig, spec: GenerationSpec, capabilities: list[tuple[int, int]], interrupts: Interrupts
) -> None:
    if config.engine != "tensorrt":
        raise UserError(
            "only plans are built for devices that are not here",
            expected="--engine tensorrt",
            got=config.engine,
            where="--compute-capability",
            mend="build on a machine with such a device",
        )
    from generator_service.plans_ahead import build_plans_ahead

    for folder in build_plans_ahead(config, spec, capabilities, interrupts.stop.is_set, _say):
        _say(f"built: {folder}")


def _lines(cache: "EngineCache") -> list[str]:
    lines = [f"{'engine':32}  {'kind':14}  {'MB':>7}  {'built in':>8}  device, latents, precision"]
    for folder, built in cache.engines():
        megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        shape, _, dtype = built.recipe["unet"][0]
        what = [built.recipe["device"], "x".join(map(str, shape)), dtype.removeprefix("torch.")]
        if "builder" in built.recipe:
            what.append(" ".join(built.recipe["builder"].values()))
        kind = built.recipe["engine"]
        lines.append(
            f"{folder.name:32}  {kind:14}  {megabytes:7.1f}  {built.build_seconds:6.0f} s  {', '.join(what)}"
        )
    return lines if len(lines) > 1 else [f"no engines in {cache.root}"]


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="streamrep engine",
        description="Builds the engine that generators of a run then load, with the run's model, batch, size"
        " and precision; lists what is built; removes it. The cache is generator.engine_cache.",
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
        if name == "build":
            action.add_argument(
                "--engine", choices=BUILT_ENGINES, help="by default the run file's, else compile"
            )
            action.add_argument(
                "--compute-capability",
                type=_capabilities,
                default=[],
                metavar="8.9,...",
                help="with --engine tensorrt: build for GPUs of these compute capabilities, which need not be"
                " here, by tensorrt_rtx (pip install 'streamrep[rtx]')",
            )
        if name == "clean":
            action.add_argument("--key", action="append", metavar="ENGINE", help="as `list` has it")
    return parser


def _capabilities(text: str) -> list[tuple[int, int]]:
    found = [re.fullmatch(r"(\d+)\.(\d)", part.strip()) for part in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"expected capabilities such as 8.9,12.0, got {text}")
    return [(int(match[1]), int(match[2])) for match in found if match]


def _say(text: str) -> None:
    print(text, flush=True)
