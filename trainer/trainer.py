"""One trainer process, from its configuration to a finished run folder. This file only wires.

run folder ─ checkpoint? ─→ learner, done ids ─→ supply (listening, reading) ─→ source ─→ loop
                 │                                        encoder, summary, report ←─┘
                 └ with several ranks ─→ the same on each of them, but for the files ─→ follower
"""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import Any

from protocol.errors import StreamrepError
from protocol.keys import read_trainer_keys
from trainer import limits
from trainer.captions import load_captions
from trainer.checkpoint import Checkpoints, TrainedState
from trainer.class_names import load_class_names
from trainer.config import TrainerConfig
from trainer.control.modes import modes_so_far, with_mode
from trainer.control.opening import open_control
from trainer.control.steering import Steering
from trainer.control.turns import Turns
from trainer.device import on_own_device
from trainer.done import DoneIds
from trainer.errors import StopRequestedError
from trainer.evaluation.evaluate import Evaluation
from trainer.follower import Follower
from trainer.journal import open_journal
from trainer.learner import Learner
from trainer.ledger import Ledger
from trainer.lockstep import Lockstep
from trainer.loop import Loop
from trainer.metrics import Meter
from trainer.monitor.board import Board
from trainer.monitor.pages import show
from trainer.monitor.reading import Observer
from trainer.objectives.needs import NEEDS
from trainer.plan import Plan
from trainer.pool.recorder import Recorder, open_recorder
from trainer.process_group import join_ranks
from trainer.progress import Progress
from trainer.rank_group import RankGroup
from trainer.rank_reports import RankReports
from trainer.rank_start import Start, check_same_run, check_same_run_file, fresh_state
from trainer.report import write_report
from trainer.run_folder import RunFolder, write_json
from trainer.scores import Scores
from trainer.sources.share import Modes
from trainer.stall import diagnose
from trainer.stall_watch import StallWatch
from trainer.stream import check_order
from trainer.summary import opening_of, summary_of
from trainer.supply import Supply, open_supply


def train(config: TrainerConfig, stop: threading.Event, resolved: dict[str, Any]) -> None:
    """Runs or resumes the run that `config` names, until its last step or until `stop` is set; as one rank of
    several where the environment says so.

    `resolved` is the whole run file, for run.json. Raises UserError for what a person can mend, and
    PeerFailedError where another rank can't go on.
    """
    try:
        with join_ranks(os.environ, stop) as ranks:
            limits.check(config, ranks.world)
            config = on_own_device(config, ranks)
            plan = _plan(config, stop)
            check_same_run_file(config, plan, ranks)
            if ranks.is_first:
                _lead(config, plan, ranks, stop, resolved)
            else:
                _follow(config, plan, ranks, stop)
    except StopRequestedError:
        return  # before the first step of this session: what was trained before is saved


def _lead(
    config: TrainerConfig, plan: Plan, ranks: RankGroup, stop: threading.Event, resolved: dict[str, Any]
) -> None:
    """The first rank, which writes the run folder; the only one of most runs."""
    class_of = _class_of(config, plan)
    with ExitStack() as stack:
        folder = stack.enter_context(closing(RunFolder(config.run)))
        checkpoints = Checkpoints(folder.checkpoints, config.train.keep_checkpoints)
        state, tensors = checkpoints.latest() or (fresh_state(plan), None)
        ledger = stack.enter_context(closing(Ledger(folder.ledger)))
        modes, now = _modes(config, plan, state, folder, ranks)
        Start(state=state, is_new=tensors is None).share(ranks)
        progress = stack.enter_context(closing(Progress(config.run.max_steps, sys.stderr)))
        supply = open_supply(now, plan, state, modes, ranks)
        stack.push(_end(supply, ranks))
        write_json(folder.run_json, resolved)
        progress.say(opening_of(now, plan, supply, state, ranks))
        supply.start()
        learner = Learner(config, class_of)
        if tensors is not None or ranks.world > 1:
            learner.load(ranks.same_tensors(tensors or learner.tensors()))
        _take_up(ledger, config, state)
        recorder = _recorder(stack, now, plan, folder, state)
        journal = open_journal(stack, config.log, folder, resolved, state.step)
        scores = Scores(_evaluation(config, learner), learner, folder.evaluation, stop)
        stalls = StallWatch(supply.own_status, lambda: supply.endpoint, progress, journal.stall)
        meter = _meter(state)
        observer = Observer(config, state, Board(), supply, stalls, checkpoints, folder.path, meter)
        stack.enter_context(show(observer))
        control = open_control(stack, config, now.run.mode, observer, recorder)
        again, reports = ledger.modes_after(state.step), RankReports(ranks, plan, supply)
        turns = _turns(ranks, supply, stop, reports)
        steering = Steering(
            now, modes, again, control, supply, ledger, recorder, stalls, progress, stop, turns
        )
        loop = Loop(
            config=config,
            supply=supply,
            source=steering.open_source(),
            learner=learner,
            ledger=ledger,
            recorder=recorder,
            checkpoints=checkpoints,
            journal=journal,
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
            ranks=ranks,
            reports=reports,
            step=state.step,
        )
        _train(loop, scores, folder, is_new=tensors is None)


def _modes(
    config: TrainerConfig,
    plan: Plan,
    state: TrainedState,
    folder: RunFolder,
    ranks: RankGroup,
) -> tuple[Modes, TrainerConfig]:
    """The run's modes so far, and its settings with the last of them. Raises UserError where the run can't go
    on so."""
    where = str(folder.path)
    check_same_run(state, plan, where)
    if config.run.mode != "offline" or not config.pool.replay:
        check_order(config, state, where)
    modes = modes_so_far(config.run.mode, state)
    now = with_mode(config, modes[-1][1])
    limits.check(now, ranks.world)
    return modes, now


def _take_up(ledger: Ledger, config: TrainerConfig, state: TrainedState) -> None:
    """Leaves the trainings behind the weights, and notes the mode that a changed run file brings."""
    ledger.trim(state.step, state.dead_letters)
    if state.file_mode != config.run.mode:
        ledger.record_switch(state.step + 1, config.run.mode, "run file")


def _recorder(
    stack: ExitStack, config: TrainerConfig, plan: Plan, folder: RunFolder, state: TrainedState
) -> Recorder | None:
    recorder = open_recorder(config, plan, folder.path, state.step)
    if recorder is not None:
        stack.callback(recorder.close)
    return recorder


def _follow(config: TrainerConfig, plan: Plan, ranks: RankGroup, stop: threading.Event) -> None:
    """Every other rank."""
    class_of = _class_of(config, plan)
    start = Start.of_first(ranks)
    modes = modes_so_far(config.run.mode, start.state)
    config = with_mode(config, modes[-1][1])
    supply = open_supply(config, plan, start.state, modes, ranks)
    with ExitStack() as stack:
        stack.push(_end(supply, ranks))
        supply.start()
        learner = Learner(config, class_of)
        learner.load(ranks.same_tensors({}))
        reports = RankReports(ranks, plan, supply)
        turns = Turns(ranks, _lockstep(ranks, supply, stop), reports)
        open_source = partial(supply.open_source, stop, None, turns.lockstep)
        follower = Follower(
            config=config,
            supply=supply,
            source=open_source(),
            open_source=open_source,
            turns=turns,
            learner=learner,
            ranks=ranks,
            reports=reports,
            step=start.state.step,
        )
        if start.is_new:
            follower.save()
        follower.run()


def _end(supply: Supply, ranks: RankGroup) -> Callable[..., None]:
    """Where a rank is torn out of its run, as by another's death, workers wait for the run to go on."""

    def end(kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        torn_out = ranks.world > 1 and error is not None and not isinstance(error, StreamrepError)
        supply.stop("" if torn_out else "the trainer has ended")

    return end


def _turns(ranks: RankGroup, supply: Supply, stop: threading.Event, reports: RankReports) -> Turns | None:
    return Turns(ranks, _lockstep(ranks, supply, stop), reports) if ranks.world > 1 else None


def _lockstep(ranks: RankGroup, supply: Supply, stop: threading.Event) -> Lockstep:
    return Lockstep(
        ranks,
        stop,
        diagnose=lambda want: diagnose(want, supply.own_status()),
        content=lambda: supply.content,
        settle_content=supply.settle_content,
    )


def _plan(config: TrainerConfig, stop: threading.Event) -> Plan:
    """Raises StopRequestedError where the run was stopped while captions were indexed."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if config.run.mode != "offline":
        read_trainer_keys(config.stream.keys)  # what is wrong with them is told before captions are read
    captions = load_captions(config.captions, say=say, stopped=stop.is_set)
    return Plan(captions, config.run.seed, config.generation)


def _evaluation(config: TrainerConfig, learner: Learner) -> Evaluation | None:
    return Evaluation(config.eval, config.augment.crop_size, learner.device) if config.eval.sets else None


def _train(loop: Loop, scores: Scores, folder: RunFolder, *, is_new: bool) -> None:
    began = time.monotonic()
    if is_new:
        loop.save()
    if loop.config.eval.sets and loop.step == 0:
        loop.progress.say("judging the untrained encoder, raw pixels and colour histograms")
        with suppress(StopRequestedError):  # the loop will see it, where the ranks meet
            scores.judge_untrained()
    loop.run()
    if loop.step < loop.config.run.max_steps:
        loop.progress.say(f"stopped after step {loop.step}; the same command goes on from there")
        return
    _save_encoder(loop.learner, folder)
    write_json(folder.summary, summary_of(loop, scores, folder, time.monotonic() - began))
    loop.journal.finished()
    loop.progress.say(f"finished; see {loop.write_report()}")
    loop.supply.linger(loop.stop)


def _class_of(config: TrainerConfig, plan: Plan) -> Callable[[str], int] | None:
    """The class of a caption, where the objective asks; every caption of the run was found to have one."""
    if not NEEDS[config.train.objective].classes:
        return None
    names = load_class_names(config.captions.classes)
    for caption in plan.captions.texts:
        names.class_of(caption)
    return names.class_of


def _meter(state: TrainedState) -> Meter:
    return Meter(
        groups_trained=state.groups_trained,
        uses=state.uses,
        images_received=state.images_received,
        wait_seconds=state.wait_seconds,
        train_seconds=state.train_seconds,
    )


def _save_encoder(learner: Learner, folder: RunFolder) -> None:
    """Through a temporary folder, so that a reader never sees half an encoder."""
    temporary = folder.encoder.with_name(".encoder")
    shutil.rmtree(temporary, ignore_errors=True)
    learner.save_encoder(temporary)
    shutil.rmtree(folder.encoder, ignore_errors=True)
    temporary.rename(folder.encoder)
