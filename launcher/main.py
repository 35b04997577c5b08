"""The `streamrep` command: parses, wires, and turns errors into exit codes.

0    finished, or stopped by SIGTERM after a checkpoint
1    failure: one line where its reason is known, else a traceback
2    bad input, in one line
130  stopped by Ctrl-C
"""

import sys
from collections.abc import Sequence

from launcher.interrupts import Interrupts


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    interrupts = Interrupts()
    interrupts.install()
    # Imported after the handlers are in place: from here on Ctrl-C is an orderly end.
    from launcher.errors import ChildFailedError
    from protocol.errors import StreamrepError, UserError

    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv), interrupts)
    except UserError as error:
        print(f"streamrep: {error}", file=sys.stderr)
        return 2
    except ChildFailedError as error:
        print(f"streamrep: {error}", file=sys.stderr)
        return error.code
    except StreamrepError as error:
        print(f"streamrep: {type(error).__name__.removesuffix('Error')}: {error}", file=sys.stderr)
        return 1


def _dispatch(argv: list[str], interrupts: Interrupts) -> int:
    from launcher import command_line

    if argv[:1] == ["bench"]:
        from launcher.bench import bench

        return bench(argv[1:])
    if argv[:1] == ["keys"]:
        from launcher.keys import keys

        return keys(argv[1:])
    if argv[:1] == ["eval"]:
        from launcher.evaluate import evaluate

        return evaluate(argv[1:], interrupts)
    if argv[:1] == ["ledger"]:
        from launcher.ledger import ledger

        return ledger(argv[1:], interrupts)
    if argv[:1] == ["regenerate"]:
        from launcher.regenerate import regenerate

        return regenerate(argv[1:], interrupts)
    if argv[:1] == ["pool"]:
        from launcher.pool import pool

        return pool(argv[1:], interrupts)
    if argv[:1] == ["ctl"]:
        from launcher.ctl import ctl

        return ctl(argv[1:])
    if argv[:1] == ["engine"]:
        from launcher.engine import engine

        return engine(argv[1:], interrupts)
    if argv[:1] == ["plan"]:
        from launcher.plan import plan

        return plan(argv[1:])
    command = command_line.parse(argv)
    if command.end_with_stdin:
        interrupts.end_with_stdin()
    run_file = command.load()
    match command.name:
        case "up":
            from launcher.up import up

            return up(command, run_file, interrupts)
        case "train":
            from launcher.train import train

            return train(run_file, interrupts)
        case "captions":
            from launcher.captions import captions

            return captions(run_file, interrupts)
        case _:
            if command.gpus:
                from launcher.gpus import devices_of, generate_on

                devices = devices_of(command.gpus)
                return generate_on(devices, command.run_words, run_file, command.logs, interrupts)
            from launcher.generate import generate

            return generate(run_file, interrupts)
