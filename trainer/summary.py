"""What people are told of a run: one line when it begins, and summary.json when it is finished. Pure."""

from typing import Any

from trainer.checkpoint import TrainedState
from trainer.config import TrainerConfig
from trainer.loop import Loop
from trainer.plan import Plan
from trainer.rank_group import RankGroup
from trainer.run_folder import RunFolder
from trainer.scores import Scores
from trainer.supply import Supply


def opening_of(
    config: TrainerConfig, plan: Plan, supply: Supply, state: TrainedState, ranks: RankGroup
) -> str:
    """The line that a run begins with."""
    origin = f"goes on after step {state.step}" if state.step else "begins"
    if state.file_mode and config.run.mode != state.file_mode:
        origin += f" in mode {config.run.mode}, to which it was switched"
    places = [f"reading {config.pool.dir}"] if config.run.mode != "online" else []
    if supply.endpoint:
        admitted = ", for admitted keys only" if config.stream.keys else ""
        places.append(f"listening at {supply.endpoint}{admitted}")
    if ranks.world > 1:
        places.append(f"on {ranks.world} ranks")
    return (
        f"run {config.run.name} {origin}: {plan.captions.counts}, batches of"
        f" {config.train.batch_groups} groups x {config.generation.views} views, peak learning rate"
        f" {config.peak_lr:.3g}; {' and '.join(places)}"
    )


def summary_of(loop: Loop, scores: Scores, folder: RunFolder, seconds: float) -> dict[str, Any]:
    """Of the run after `seconds` of this session."""
    meter, views = loop.meter, loop.config.generation.views
    return {
        "steps": loop.step,
        "images_generated": meter.images_received,
        "images_trained": meter.uses * views,
        "groups_trained": meter.groups_trained,
        "mean_uses": meter.uses / max(1, meter.groups_trained),
        "fresh_share": meter.groups_trained / max(1, meter.uses),
        "waiting_share": meter.wait_seconds / max(1e-9, meter.wait_seconds + meter.train_seconds),
        "wall_seconds": seconds,
        **{key: value for key, value in scores.table.get("trained", {}).items() if key != "step"},
        **{f"{key}_untrained": value for key, value in scores.table.get("untrained", {}).items()},
        "encoder": str(folder.encoder),
        "report": str(folder.path / "report.html"),
    }
