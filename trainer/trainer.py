"""One trainer process, from its configuration to a finished run folder. This file only wires.

run folder ─ checkpoint? ─→ learner, done ids ─→ supply (listening, reading) ─→ source ─→ loop
                                                          encoder, summary, report ←─┘
"""

import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from protocol.errors import UserError
from protocol.keys import read_trainer_keys
from trainer import limits
from trainer.captions import load_captions
from trainer.checkpoint import Checkpoints, TrainedState
from trainer.class_names import load_class_names
from trainer.config import Mode, TrainerConfig
from trainer.control.control import Control
from trainer.control.door import Door
from trainer.control.modes import modes_so_far, with_mode
from trainer.control.status import status_of
from trainer.control.steering import Steering, check_mode
from trainer.done import DoneIds
from trainer.errors import StopRequestedError
from trainer.evaluation.evaluate import Evaluation
from trainer.learner import Learner
from trainer.ledger import Ledger
from trainer.loop import Loop
from trainer.metrics import Meter, MetricsLog
from trainer.monitor.board import Board
from trainer.monitor.pages import show
from trainer.monitor.reading import Observer
from trainer.objectives.needs import NEEDS
from trainer.plan import Plan
from trainer.pool.recorder import Recorder, open_recorder
from trainer.progress import Progress
from trainer.report import write_report
from trainer.run_folder import RunFolder, write_json
from trainer.scores import Scores
from trainer.sources.share import Modes
from trainer.stall_watch import StallWatch
from trainer.stream import check_order
from trainer.supply import Supply


def train(config: TrainerConfig, stop: threading.Event, resolved: dict[str, Any]) -> None:
    """Runs or resumes the run that `config` names, until its last step or until `stop` is set.

    `resolved` is the whole run file, for run.json. Raises UserError for what a person can mend.
    """
    limits.check(config)
    plan = _plan(config, stop)
    if plan is None:
        return
    with ExitStack() as stack:
        folder = stack.enter_context(closing(RunFolder(config.run)))
        checkpoints = Checkpoints(folder.checkpoints, config.train.keep_checkpoints)
        state, tensors = checkpoints.latest() or (_fresh_state(plan), None)
        modes, now = _modes(config, plan, state, folder)
        progress = stack.enter_context(closing(Progress(config.run.max_steps, sys.stderr)))
        supply = Supply(now, plan, state, modes)
        stack.callback(supply.stop, "the trainer has ended")
        write_json(folder.run_json, resolved)
        progress.say(_opening(now, plan, supply, state))
        supply.start()
        learner = Learner(config, _class_of(config, plan))
        if tensors is not None:
            learner.load(tensors)
        ledger = stack.enter_context(closing(_ledger(config, folder, state)))
        recorder = _recorder(stack, now, plan, folder, state)
        metrics = stack.enter_context(closing(MetricsLog(folder.metrics, state.step)))
        scores = Scores(_evaluation(config, learner), learner, folder.evaluation, stop)
        stalls = StallWatch(supply.status, lambda: supply.endpoint, progress, metrics.append)
        meter = _meter(state)
        observer = Observer(config, state, Board(), supply, stalls, checkpoints, folder.path, meter)
        stack.enter_context(show(observer))
        control = _control(config, now.run.mode, observer, recorder)
        stack.callback(Door(folder.path, control.answer).close)
        again = ledger.modes_after(state.step)
        steering = Steering(now, modes, again, control, supply, ledger, recorder, stalls, progress, stop)
        loop = Loop(
            config=config,
            samples=folder.samples,
            supply=supply,
            source=steering.open_source(),
            learner=learner,
            ledger=ledger,
            recorder=recorder,
            checkpoints=checkpoints,
            metrics=metrics,
            meter=meter,
            progress=progress,
            stalls=stalls,
            board=observer.board,
            evaluate=scores.judge_trained,
            write_report=partial(write_report, folder.path),
            done=DoneIds(state.done_low, state.done_above),
            dead_letters=dict(state.dead_letters),
            plan_digest=plan.digest,
            steering=steering,
            stop=stop,
            step=state.step,
        )
        _train(loop, scores, folder, is_new=tensors is None)


def _modes(
    config: TrainerConfig, plan: Plan, state: TrainedState, folder: RunFolder
) -> tuple[Modes, TrainerConfig]:
    """The run's modes so far, and its settings with the last of them. Raises UserError where the run can't go
    on so."""
    _check_same_run(state, plan, folder)
    if config.run.mode != "offline" or not config.pool.replay:
        check_order(config, state, str(folder.path))
    modes = modes_so_far(config.run.mode, state)
    now = with_mode(config, modes[-1][1])
    limits.check(now)
    return modes, now


def _ledger(config: TrainerConfig, folder: RunFolder, state: TrainedState) -> Ledger:
    """Of the trainings behind the weights, and of the mode that a changed run file brings."""
    ledger = Ledger(folder.ledger)
    ledger.trim(state.step, state.dead_letters)
    if state.file_mode != config.run.mode:
        ledger.record_switch(state.step + 1, config.run.mode, "run file")
    return ledger


def _recorder(
    stack: ExitStack, config: TrainerConfig, plan: Plan, folder: RunFolder, state: TrainedState
) -> Recorder | None:
    recorder = open_recorder(config, plan, folder.path, state.step)
    if recorder is not None:
        stack.callback(recorder.close)
    return recorder


def _control(config: TrainerConfig, mode: Mode, observer: Observer, recorder: Recorder | None) -> Control:
    return Control(
        mode,
        lambda mode: check_mode(with_mode(config, mode), recorder),
        lambda mode, paused: status_of(observer.read(), mode, paused=paused),
    )


def _plan(config: TrainerConfig, stop: threading.Event) -> Plan | None:
    """None where the run was stopped while captions were indexed."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if config.run.mode != "offline":
        read_trainer_keys(config.stream.keys)  # what is wrong with them is told before captions are read
    try:
        captions = load_captions(config.captions, say=say, stopped=stop.is_set)
    except StopRequestedError:
        return None
    return Plan(captions, config.run.seed, config.generation)


def _evaluation(config: TrainerConfig, learner: Learner) -> Evaluation | None:
    return Evaluation(config.eval, config.augment.crop_size, learner.device) if config.eval.sets else None


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


def _class_of(config: TrainerConfig, plan: Plan) -> Callable[[str], int] | None:
    """The class of a caption, where the objective asks; every caption of the run was found to have one."""
    if not NEEDS[config.train.objective].classes:
        return None
    names = load_class_names(config.captions.classes)
    for caption in plan.captions.texts:
        names.class_of(caption)
    return names.class_of


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


def _opening(config: TrainerConfig, plan: Plan, supply: Supply, state: TrainedState) -> str:
    origin = f"goes on after step {state.step}" if state.step else "begins"
    if state.file_mode and config.run.mode != state.file_mode:
        origin += f" in mode {config.run.mode}, to which it was switched"
    places = [f"reading {config.pool.dir}"] if config.run.mode != "online" else []
    if supply.endpoint:
        admitted = ", for admitted keys only" if config.stream.keys else ""
        places.append(f"listening at {supply.endpoint}{admitted}")
    return (
        f"run {config.run.name} {origin}: {plan.captions.counts}, batches of"
        f" {config.train.batch_groups} groups x {config.generation.views} views, peak learning rate"
        f" {config.peak_lr:.3g}; {' and '.join(places)}"
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
