"""A run folder that is only read, by its path or by its name."""

from dataclasses import dataclass
from pathlib import Path

from launcher.errors import RunFileError
from launcher.run_file import RunFile, load
from trainer.config import RunConfig


@dataclass(frozen=True)
class RecordedRun:
    """What a run left behind, or leaves behind as it goes on."""

    folder: Path

    @property
    def ledger(self) -> Path:
        """The record of every use."""
        return self.folder / "ledger.sqlite"

    @property
    def run_json(self) -> Path:
        """The run file as resolved."""
        return self.folder / "run.json"

    def settings(self, overrides: list[str]) -> RunFile:
        """The run file it was started with, changed by `--section.key value` words. Raises UserError."""
        return load(self.run_json, overrides)


def find_run(words: str) -> RecordedRun:
    """The run of that folder, or of that name in the default place. Raises UserError where there is none."""
    named = Path(RunConfig().dir) / words
    for folder in (Path(words), named):
        if (folder / "run.json").is_file():
            return RecordedRun(folder)
    raise RunFileError(
        "no such run",
        expected=f"a run folder, or the name of one in {named.parent}",
        got="a folder without run.json" if Path(words).is_dir() else "no such folder",
        where=words,
        mend="give the folder that `streamrep up` or `train` made",
    )
