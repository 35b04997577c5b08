"""One trainer process, from its configuration to a finished run folder. This file only wires.

run folder ─ checkpoint? ─→ learner, done ids ─→ feed (listening) ─→ source ─→ loop
                                                          encoder, summary, report ←─┘
"""

import shutil
import sys
import threading
import time
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from protocol.errors import UserError
from protocol.keys import read_trainer_keys
from trainer import limits
from trainer.captions import load_captions
from trainer.checkpoint import Checkpoints, TrainedState
from trainer.config import TrainerConfig
from trainer.done import DoneIds
from trainer.errors import StopRequestedError
from trainer.evaluation.evaluate import Evaluation
from trainer.feed.feed import Feed
from trainer.learner import Learner
from trainer.ledger import Ledger
from trainer.loop import Loop
from trainer.metrics import Meter, MetricsLog
from trainer.monitor.board import Board
from trainer.monitor.pages import show
from trainer.monitor.reading import Observer
from trainer.plan import Plan
from trainer.progress import Progress
from trainer.report import write_report
from trainer.run_folder import RunFolder, write_json
from trainer.scores import Scores
from trainer.stall_watch import StallWatch
from trainer.stream import check_order, open_feed, open_source


def train(config: TrainerConfig, stop: threading.Event, resolved: dict[str, Any]) -> None:
    """Runs or resumes the run that `config` names, until its last step or until `stop` is set.

    `resolved` is the whole run file, for run.json. Raises UserError for what a person can mend.
    """
    limits.check(config)
    keys = read_trainer_keys(config.stream.keys)
    plan = Plan(load_captions(config.captions), config.run.seed, config.generation)
    with ExitStack() as stack:
        folder = stack.enter_context(closing(RunFolder(config.run)))
        checkpoints = Checkpoints(folder.checkpoints, config.train.keep_checkpoints)
        state, tensors = checkpoints.latest() or (_fresh_state(plan), None)
        _check_same_run(state, plan, folder)
        check_order(config, state, str(folder.path))
        progress = stack.enter_context(closing(Progress(config.run.max_steps, sys.stderr)))
        feed = open_feed(config, plan, state, keys)
        stack.callback(feed.stop, "the trainer has ended")
        write_json(folder.run_json, resolved)
        progress.say(_opening(config, plan, feed, state))
        feed.start()
        learner = Learner(config)
        if tensors is not None:
            learner.load(tensors)
        ledger = stack.enter_context(closing(Ledger(folder.ledger)))
        ledger.trim(state.step, state.dead_letters)
        metrics = stack.enter_context(closing(MetricsLog(folder.metrics, state.step)))
        evaluation = (
            Evaluation(config.eval, config.augment.crop_size, learner.device) if config.eval.sets else None
        )
        scores = Scores(evaluation, learner, folder.evaluation, stop)
        stalls = StallWatch(feed.status, feed.endpoint, progress, metrics.append)
        observer = Observer(config, state, Board(), feed, stalls, checkpoints, folder.path)
        stack.enter_context(show(observer))
        source = open_source(config, feed, state, stop, stalls)
        loop = Loop(
            config=config,
            samples=folder.samples,
            feed=feed,
            source=source,
            learner=learner,
            ledger=ledger,
            checkpoints=checkpoints,
            metrics=metrics,
            meter=_meter(state),
            progress=progress,
            stalls=stalls,
            board=observer.board,
            evaluate=scores.judge_trained,
            write_report=partial(write_report, folder.path),
            done=DoneIds(state.done_low, state.done_above),
            dead_letters=dict(state.dead_letters),
            plan_digest=plan.digest,
            stop=stop,
            step=state.step,
        )
        _train(loop, scores, folder, is_new=tensors is None)


def _train(loop: Loop, scores: Scores, folder: RunFolder, *, is_new: bool) -> None:
    began = time.monotonic()
    try:
        if is_new:
            loop.save()
        if loop.config.eval.sets and loop.step == 0:
            loop.progress.say("judging the untrained encoder, raw pixels and colour histograms")
            scores.judge_untrained()
        loop.run()
    except StopRequestedError:
        loop.stop.set()
    if loop.step < loop.config.run.max_steps:
        loop.progress.say(f"stopped after step {loop.step}; the same command goes on from there")
        return
    _save_encoder(loop.learner, folder)
    write_json(folder.summary, _summary(loop, scores, folder, time.monotonic() - began))
    loop.progress.say(f"finished; see {loop.write_report()}")


def _fresh_state(plan: Plan) -> TrainedState:
    return TrainedState(
        step=0,
        plan=plan.digest,
        content="",
        done_low=0,
        done_above=(),
        dead_letters={},
        ring=(),
        groups_trained=0,
        uses=0,
        images_received=0,
        wait_seconds=0.0,
        train_seconds=0.0,
    )


def _check_same_run(state: TrainedState, plan: Plan, folder: RunFolder) -> None:
    if state.plan != plan.digest:
        raise UserError(
            "run was begun with another plan",
            expected=f"captions, seed and [generation] of digest {state.plan}",
            got=plan.digest,
            where=str(folder.path),
            mend="restore them, or choose another --run.name",
        )


def _meter(state: TrainedState) -> Meter:
    return Meter(
        groups_trained=state.groups_trained,
        uses=state.uses,
        images_received=state.images_received,
        wait_seconds=state.wait_seconds,
        train_seconds=state.train_seconds,
    )


def _opening(config: TrainerConfig, plan: Plan, feed: Feed, state: TrainedState) -> str:
    origin = f"goes on after step {state.step}" if state.step else "begins"
    return (
        f"run {config.run.name} {origin}: {len(plan.captions)} captions, batches of"
        f" {config.train.batch_groups} groups x {config.generation.views} views, peak learning rate"
        f" {config.peak_lr:.3g}; listening at {feed.endpoint}"
        + (", for admitted keys only" if config.stream.keys else "")
    )


def _save_encoder(learner: Learner, folder: RunFolder) -> None:
    """Through a temporary folder, so that a reader never sees half an encoder."""
    temporary = folder.encoder.with_name(".encoder")
    shutil.rmtree(temporary, ignore_errors=True)
    learner.save_encoder(temporary)
    shutil.rmtree(folder.encoder, ignore_errors=True)
    temporary.rename(folder.encoder)


def _summary(loop: Loop, scores: Scores, folder: RunFolder, seconds: float) -> dict[str, Any]:
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
