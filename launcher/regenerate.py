"""`streamrep regenerate`: draws a group of a run again and compares it with what was trained on.

ledger ─RecordedGroup→ engine of the run's settings ─images→ PNG files, and a verdict by digest and engine
"""

import argparse
import os
from contextlib import closing
from pathlib import Path

from generator_service.engine import Engine
from generator_service.errors import DrawAbandonedError
from generator_service.worker import prepare
from launcher.command_line import OneLineParser, split
from launcher.errors import RunFileError
from launcher.interrupts import Interrupts
from launcher.recorded_run import RecordedRun, find_run
from launcher.redrawn import Redrawn
from launcher.run_file import RunFile
from launcher.up import thread_environment
from protocol.errors import UserError
from trainer.ledger_reader import LedgerReader, RecordedGroup

UNEQUAL = 1


def regenerate(argv: list[str], interrupts: Interrupts) -> int:
    """Prints the verdict; returns 0 for an equal group, 1 for another. Raises UserError."""
    words, overrides = split(argv)
    asked = _parser().parse_args(words)
    run = find_run(asked.run)
    settings = run.settings(overrides)
    recorded = _recorded(run, asked.group)
    try:
        redrawn = _redraw(settings, recorded, run, interrupts)
    except DrawAbandonedError:
        return interrupts.exit_code
    names = redrawn.save(asked.out)
    print(redrawn.verdict())
    print(f"{recorded.ticket.caption!r}: {len(names)} images in {asked.out}, {names[0]} the first")
    return 0 if redrawn.equal else UNEQUAL


def _recorded(run: RecordedRun, group_id: int) -> RecordedGroup:
    """What the ledger has of the group. Raises UserError that tells why it has nothing."""
    with closing(LedgerReader(run.ledger)) as reader:
        recorded = reader.group(group_id)
        if recorded is not None:
            return recorded
        reason = reader.dead_letter(group_id)
        count, low, high = reader.extent()
    raise RunFileError(
        "the ledger lacks this group",
        expected=f"one of the {count} groups that were trained on, with ids from {low} to {high}",
        got=f"{group_id}" + (f", a dead letter: {reason}" if reason else ""),
        where=str(run.ledger),
        mend=f"`streamrep ledger {run.folder} groups` lists them",
    )


def _redraw(settings: RunFile, recorded: RecordedGroup, run: RecordedRun, interrupts: Interrupts) -> Redrawn:
    # Read once, when torch is imported for the engine: sums on a CPU follow how they are shared out.
    os.environ.update(thread_environment(settings.generator.threads))
    _, build = prepare(settings.generator)
    engine = build(settings.generation, interrupts.stop.is_set)
    _check_content(engine, recorded, run)
    [images_NHWC] = engine.draw([recorded.ticket], interrupts.stop.is_set)
    return Redrawn(
        recorded=recorded, images_NHWC=images_NHWC, engine=engine.engine_hash, summary=engine.summary
    )


def _check_content(engine: Engine, recorded: RecordedGroup, run: RecordedRun) -> None:
    """Raises UserError for a model or a generation spec that was not this group's."""
    if engine.content_hash != recorded.content:
        raise UserError(
            "the group was drawn with another model, or as another [generation] asks",
            expected=f"content hash {recorded.content}",
            got=engine.content_hash,
            where=str(run.run_json),
            mend="give the model that the run's workers had with --generator.model",
        )


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="streamrep regenerate",
        description="Draws a group of a run again, with the engine of the run's settings, compares it with"
        " what the ledger has, and writes its images as PNG. Exit code 1 where they differ.",
        epilog="Workers that were started with other settings than the run's need the same again, for example"
        " --generator.model DIR --generator.batch_images 96 --generator.precision float32.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, or the name of one in runs/")
    parser.add_argument("--group", type=int, required=True, metavar="ID", help="as the ledger has it")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the images are written")
    return parser
