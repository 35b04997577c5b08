"""Scores of `streamrep eval` in the trackers of the run that the encoder is of.

results ─curves_of→ {curve: share} ─ at the step of the encoder ─→ trackers that the run used
"""

import json
from contextlib import closing
from pathlib import Path

from protocol.errors import UserError
from trainer.evaluation.result import Found
from trainer.run_folder import is_in_use
from trainer.trackers.open import openers_of


def curves_of(found: Found) -> dict[str, float]:
    """`evaluation/SET/KIND/SCORE`, the kind with its norm and variant: names that TensorBoard leaves as they
    are, as far as the set's is one."""
    curves: dict[str, float] = {}
    for result in found.results:
        parts = [result.kind, result.settings.get("norm"), result.variant]
        kind = "_".join(part for part in parts if part)
        for score, value in result.scores.items():
            curves[f"evaluation/{found.data}/{kind}/{score}"] = value
    return curves


def track(found: Found, folder: Path) -> list[str]:
    """Adds all of `found` to the trackers that the finished run in `folder` used; what was added before is
    added again, as the same points.

    Returns why, for each that does not get it. That ends nothing: the scores are saved, and the next
    evaluation on that set brings them along.
    """
    failed = []
    for name, open_tracker in openers_of(folder).items():
        try:
            step = _step_of_encoder(folder)
            _check_not_in_use(folder)
            with closing(open_tracker()) as tracker:
                tracker.scores(step, curves_of(found))
        except (OSError, UserError) as error:
            failed.append(f"{name} does not get the scores: {error}")
    return failed


def _step_of_encoder(folder: Path) -> int:
    """The step that encoder/ is of, which is not that of newer checkpoints where a run was prolonged."""
    path = folder / "summary.json"
    if not path.is_file():
        raise UserError(
            "the encoder's step is not known",
            expected="summary.json, which a run writes after its encoder",
            got="none",
            where=str(folder),
            mend="finish the run by the same command, and judge it again",
        )
    return int(json.loads(path.read_text("utf-8"))["steps"])


def _check_not_in_use(folder: Path) -> None:
    """A tracker has one writer: TensorBoard reads a folder's files one after the other."""
    if is_in_use(folder):
        raise UserError(
            "run is in use",
            expected="a run folder that no trainer is writing",
            got="one locked by a trainer",
            where=str(folder),
            mend="judge its encoder when it has finished",
        )
