"""`streamrep generate`: one generator process."""

from launcher.interrupts import Interrupts
from launcher.run_file import RunFile


def generate(run_file: RunFile, interrupts: Interrupts) -> int:
    """Draws for the trainer until it says stop or a signal comes; returns the exit code."""
    from generator_service.worker import run_worker

    if not interrupts.stop.is_set():
        run_worker(run_file.generator, interrupts.stop, say=_say)
    return interrupts.exit_code


def _say(text: str) -> None:
    # Flushed, since the other end of stdout is a log file that `up` reads when a generator ends.
    print(text, flush=True)
