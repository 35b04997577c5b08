"""`streamrep train`: the trainer alone."""

from launcher.interrupts import Interrupts
from launcher.run_file import RunFile, to_tables


def train(run_file: RunFile, interrupts: Interrupts) -> int:
    """Trains until max_steps or a stop; returns the exit code."""
    from trainer.trainer import train as run_trainer

    # A stop during the import: nothing has been written yet, so there is nothing to save.
    if not interrupts.stop.is_set():
        run_trainer(run_file, interrupts.stop, to_tables(run_file))
    return interrupts.exit_code
