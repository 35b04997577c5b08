"""The `streamrep` command: parses, wires, and turns errors into exit codes.

0    finished, or stopped by SIGTERM after a checkpoint
1    failure: one line where its reason is known, else a traceback
2    bad input, in one line
130  stopped by Ctrl-C
"""

import importlib
import sys
from collections.abc import Sequence

from launcher.interrupts import Interrupts


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    interrupts = Interrupts()
    interrupts.install()
    # Imported after the handlers are in place: from here on Ctrl-C is an orderly end.
    from launcher.errors import ChildFailedError
    from launcher.freed_memory import keep_freed_memory
    from protocol.errors import StreamrepError, UserError

    keep_freed_memory()
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


WITH_OWN_WORDS = ("bench", "keys", "eval", "ledger", "regenerate", "pool", "ctl", "engine", "plan")
"""Commands that parse their words themselves: `launcher.NAME.NAME`, but for one."""


def _dispatch(argv: list[str], interrupts: Interrupts) -> int:
    if argv[:1] and argv[0] in WITH_OWN_WORDS:
        return _dispatch_words(argv[0], argv[1:], interrupts)
    from launcher import command_line

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


def _dispatch_words(name: str, words: list[str], interrupts: Interrupts) -> int:
    function = "evaluate" if name == "eval" else name
    carry_out = getattr(importlib.import_module(f"launcher.{function}"), function)
    arguments = (words,) if name in ("bench", "keys", "ctl", "plan") else (words, interrupts)
    code: int = carry_out(*arguments)
    return code
