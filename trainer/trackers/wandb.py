"""Weights & Biases: the same curves, sample groups and run file, in one of its projects."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from protocol.errors import UserError
from trainer.metrics import Row
from trainer.samples import Strip
from trainer.trackers.scalars import scalars_of


class WandbTracker:
    """One run there for one run folder: a resumed one goes on under the id that the folder keeps."""

    def __init__(
        self,
        project: str,
        folder: Path,
        resolved: dict[str, Any],
        resume: Literal["allow", "must"] = "allow",
    ) -> None:
        """Raises UserError where the package is missing or can't begin a run; with `resume = "must"` it can't
        where Weights & Biases no longer has the folder's."""
        try:
            import wandb  # type: ignore[import-not-found, unused-ignore]  # an extra
        except ImportError as error:
            raise UserError(
                "Weights & Biases is not installed",
                expected="the package wandb",
                got=str(error),
                where="log.wandb",
                mend="pip install 'streamrep[wandb]', or leave log.wandb empty",
            ) from error
        self._image = wandb.Image
        try:
            self._run = wandb.init(
                project=project,
                name=folder.name,
                id=_id_of(folder),
                resume=resume,
                dir=folder,
                config=resolved,
            )
        except wandb.Error as error:
            raise UserError(
                "Weights & Biases can't begin a run",
                expected="an account (`wandb login`), or WANDB_MODE=offline",
                got=str(error).splitlines()[0],
                where="log.wandb",
                mend="log in, or leave log.wandb empty",
            ) from error
        # A resumed run goes back to its checkpoint, which Weights & Biases' own counter can't.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def row(self, row: Row) -> None:
        """A point on each curve."""
        self._run.log({"step": row["step"], **scalars_of(row)})

    def strips(self, strips: Sequence[Strip]) -> None:
        """A picture with its caption for each."""
        pictures = [self._image(strip.image_HWC, caption=strip.caption) for strip in strips]
        self._run.log({"step": strips[0].step, "samples": pictures})

    def scores(self, step: int, scores: Mapping[str, float]) -> None:
        """A point each."""
        self._run.log({"step": step, **scores})

    def finished(self) -> None:
        """Nothing: a run that is closed has finished for Weights & Biases, until it goes on."""

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()


def id_path(folder: Path) -> Path:
    """Where a run folder keeps its id there, once it has one."""
    return folder / "wandb_id"


def _id_of(folder: Path) -> str:
    path = id_path(folder)
    if not path.exists():
        path.write_text(secrets.token_hex(8) + "\n", encoding="utf-8")
    return path.read_text("utf-8").strip()
