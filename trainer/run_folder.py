"""The folder of one run: its paths, its lock, and files written whole or not at all."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from protocol.errors import UserError
from trainer.config import RunConfig


class RunFolder:
    """`runs/NAME`, locked by the trainer that writes it until `close` or the end of its process."""

    def __init__(self, config: RunConfig) -> None:
        """Makes the folder and takes its lock. Raises UserError where another trainer holds it."""
        self.path = Path(config.dir) / config.name
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "a+")  # noqa: SIM115 - held as long as the run
        except OSError as error:
            raise UserError(
                "cannot write the run folder",
                expected="a folder that can be written",
                got=error.strerror or str(error),
                where=str(self.path),
                mend="choose another with --run.dir",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise UserError(
                "run is in use",
                expected="a run folder that no trainer is writing",
                got="one locked by another trainer",
                where=str(self.path),
                mend="wait for it, stop it, or choose another --run.name",
            ) from error
        self.samples.mkdir(exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)

    @property
    def run_json(self) -> Path:
        """The resolved run file."""
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def ledger(self) -> Path:
        """Every use of every group."""
        return self.path / "ledger.sqlite"

    @property
    def checkpoints(self) -> Path:
        """Whole checkpoints, one folder each."""
        return self.path / "checkpoints"

    @property
    def encoder(self) -> Path:
        """The encoder, for `AutoModel.from_pretrained`."""
        return self.path / "encoder"

    @property
    def samples(self) -> Path:
        """Strips of sample groups."""
        return self.path / "samples"

    @property
    def evaluation(self) -> Path:
        """The encoder's retrieval beside its baselines."""
        return self.path / "evaluation.json"

    @property
    def summary(self) -> Path:
        """What the run came to."""
        return self.path / "summary.json"

    def close(self) -> None:
        """Gives up the lock."""
        self._lock.close()


def is_in_use(folder: Path) -> bool:
    """Whether a trainer writes the run in `folder` at this moment."""
    path = folder / ".lock"
    if not path.exists():
        return False
    with open(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def write_json(path: Path, value: Any) -> None:
    """Writes through a temporary file in the same folder, so that readers never see half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
