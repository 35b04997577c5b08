"""`streamrep ctl`: asks a running trainer how it is doing, to pause or go on, or for another mode."""

import argparse
import sys

import msgspec

from launcher.command_line import OneLineParser
from launcher.recorded_run import find_run
from trainer.control.call import call
from trainer.control.messages import Request, Status

TEXTS = {
    "status": "step, mode, shares, workers, and why it stands still",
    "pause": "stop training at the next step; workers stay",
    "resume": "go on after a pause",
    "mode": "train from generators, from the pool, or from both, from the next step on",
}
REFUSED = 2


def ctl(argv: list[str]) -> int:
    """Carries out the words after `ctl`; returns the exit code. Raises UserError."""
    words = _parser().parse_args(argv)
    request = Request(command=words.command, mode=getattr(words, "mode", None))
    reply = call(find_run(words.run).folder, request)
    if not reply.ok:
        print(f"streamrep: {reply.text}", file=sys.stderr)
        return REFUSED
    if reply.status is None:
        print(reply.text)
    elif words.json:
        print(msgspec.json.format(msgspec.json.encode(reply.status)).decode())
    else:
        print("\n".join(f"{name:<14} {value}" for name, value in status_rows(reply.status)))
    return 0


def status_rows(status: Status) -> list[tuple[str, str]]:
    """What people are shown."""
    stall = f"{status.stall}, for {status.stall_seconds:.0f} s" if status.stall else "none"
    return [
        ("run", status.run),
        ("step", f"{status.step} of {status.max_steps}"),
        ("mode", status.mode),
        ("paused", "yes" if status.paused else "no"),
        ("fresh share", _shown(status.fresh_share, ".0%")),
        ("waiting share", _shown(status.waiting_share, ".1%")),
        ("mean uses", _shown(status.mean_uses, ".2f")),
        *([("reuse", _shown(status.reuse, ".2f"))] if status.reuse is not None else []),
        ("workers", str(status.workers)),
        ("stall", stall),
    ]


def _shown(value: float | None, form: str) -> str:
    return "not known yet" if value is None else format(value, form)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="streamrep ctl",
        description="Asks something of the trainer that is running a run on this machine.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder, or its name")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in TEXTS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name == "mode":
            command.add_argument("mode", choices=("offline", "online", "mixed"))
        if name == "status":
            command.add_argument("--json", action="store_true", help="as JSON")
    return parser
