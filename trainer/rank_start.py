"""Where a session begins, and that all its ranks begin with the same."""

import msgspec
from msgspec import Struct

from protocol.errors import UserError
from protocol.identity import digest_of
from trainer.checkpoint import TrainedState
from trainer.config import CaptionsConfig, EvalConfig, TrainerConfig
from trainer.monitor.config import MonitorConfig
from trainer.plan import Plan
from trainer.rank_group import RankGroup
from trainer.trackers.config import LogConfig


class Start(Struct, frozen=True, kw_only=True):
    """What the first rank read from the run folder."""

    state: TrainedState
    is_new: bool
    """Whether there is no checkpoint yet."""

    def share(self, ranks: RankGroup) -> None:
        """To be called by the first rank, as the others call `of_first`."""
        ranks.from_first(msgspec.json.encode(self))

    @staticmethod
    def of_first(ranks: RankGroup) -> "Start":
        """What the first rank shares."""
        return msgspec.json.decode(ranks.from_first(b""), type=Start, strict=False)


def fresh_state(plan: Plan) -> TrainedState:
    """Before the first step."""
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


def check_same_run(state: TrainedState, plan: Plan, where: str) -> None:
    """Raises UserError where the checkpoint is of another plan."""
    if state.plan != plan.digest:
        raise UserError(
            "run was begun with another plan",
            expected=f"captions, seed and [generation] of digest {state.plan}",
            got=plan.digest,
            where=where,
            mend="restore them, or choose another --run.name",
        )


def check_same_run_file(config: TrainerConfig, plan: Plan, ranks: RankGroup) -> None:
    """Raises UserError where ranks differ in what decides batches, weights or the number of steps.

    Addresses, folders, devices and what the first rank alone does may differ.
    """
    replace = msgspec.structs.replace
    compared = replace(
        config,
        run=replace(config.run, dir=""),
        captions=CaptionsConfig(),  # the plan's digest is of the captions themselves
        stream=replace(config.stream, bind="", advertise="", keys="", insecure_bind=False),
        pool=replace(config.pool, dir="", processes=1),
        train=replace(config.train, device="", threads=0),
        eval=EvalConfig(),
        monitor=MonitorConfig(),
        log=LogConfig(),
    )
    own = digest_of({"plan": plan.digest, "config": msgspec.to_builtins(compared)})
    told = [digest.decode() for digest in ranks.share(own.encode())]
    other = next((rank for rank, digest in enumerate(told) if digest != told[0]), None)
    if other is not None:
        raise UserError(
            "ranks have different runs",
            expected=f"the first rank's run file and captions, digest {told[0]}",
            got=f"digest {told[other]} on rank {other}",
            where=f"rank {other}",
            mend="start every rank with the same run file, overrides and captions",
        )
