"""Fills a pool: the first l views of every caption, drawn by the workers of a run.

ids that are not in the pool → feed ⇄ workers
                                └─groups→ recorder → segments
"""

import secrets
import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from protocol.keys import TrainerKeys, read_trainer_keys
from trainer import limits
from trainer.captions import load_captions
from trainer.config import TrainerConfig
from trainer.done import DoneIds
from trainer.errors import StopRequestedError
from trainer.feed.desk import Desk
from trainer.feed.desk_settings import DeskSettings
from trainer.feed.feed import Feed
from trainer.feed.leases import Leases
from trainer.plan import Plan
from trainer.pool.about import describe
from trainer.pool.recorder import Recorder
from trainer.pool.writer import PoolWriter
from trainer.progress import Progress
from trainer.run_folder import write_json
from trainer.sources.wait import Wait
from trainer.stall import Want
from trainer.stall_watch import StallWatch

ENCODERS = 2


def fill(config: TrainerConfig, folder: Path, stop: threading.Event, resolved: dict[str, Any]) -> bool:
    """True when the pool is full, False when asked to stop before; the same call goes on from there.

    Raises UserError for what a person can mend, FeedFailedError.
    """
    limits.check(config)
    keys = read_trainer_keys(config.stream.keys)
    try:
        captions = load_captions(config.captions, say=_say, stopped=stop.is_set)
    except StopRequestedError:
        return False
    plan = Plan(captions, config.run.seed, config.generation)
    per_caption = config.pool.images_per_caption
    target = len(plan.captions) * -(-per_caption // config.generation.views)
    with ExitStack() as stack:
        writer = PoolWriter(folder, describe(config, plan, per_caption))
        recorder = Recorder(
            writer,
            config.pool.picture,
            shard_images=config.pool.shard_images,
            threads=ENCODERS,
            below=per_caption,
        )
        stack.callback(recorder.close)
        done = _done(config, plan, writer)
        leases = Leases(done, target=target - len(done), window=limits.window_groups(config))
        write_json(folder / "run.json", resolved)
        progress = stack.enter_context(closing(Progress(target, sys.stderr, unit="group")))
        feed = _feed(config, plan, leases, writer.content, keys)
        stack.callback(feed.stop, "the pool is being closed")
        progress.say(
            f"pool {folder}: {plan.captions.counts} x {per_caption} images, {len(done)} of {target}"
            f" groups are there; listening at {feed.endpoint}"
        )
        feed.start()
        filling = _Filling(feed, recorder, progress, target, len(done), stop)
        try:
            filling.run()
        except StopRequestedError:
            recorder.seal()
            progress.say("stopped; the same command goes on from there")
            return False
        dead = feed.dead_letters()
        progress.say(f"full: {folder}" + (f", without {len(dead)} groups that failed" if dead else ""))
        feed.linger(stop)
        return True


class _Filling:
    """Takes groups from a feed until all have come."""

    def __init__(
        self,
        feed: Feed,
        recorder: Recorder,
        progress: Progress,
        target: int,
        done: int,
        stop: threading.Event,
    ) -> None:
        self._feed = feed
        self._recorder = recorder
        self._progress = progress
        self._target = target
        self._done = done
        watch = StallWatch(feed.status, lambda: feed.endpoint, progress, lambda row: None)
        self._wait = Wait(feed, stop, watch)

    def run(self) -> None:
        """Raises StopRequestedError, FeedFailedError."""
        while not self._complete():
            self._wait.until(self._lacks)
            groups = self._feed.take(64)
            for group in groups:
                if group.group_id < self._target:  # ids beyond it are issued in the place of dead letters
                    self._recorder.add(group)
                    self._done += 1
            self._feed.trained([group.group_id for group in groups])
            self._progress.update({"step": self._done, "workers": self._feed.status().workers})
        self._recorder.seal()

    def _complete(self) -> bool:
        dead = sum(group_id < self._target for group_id in self._feed.dead_letters())
        return self._done + dead >= self._target

    def _lacks(self) -> Want | None:
        if self._feed.status().buffered or self._complete():
            return None
        return Want(step=self._done + 1, needed=1, fresh=0)


def _done(config: TrainerConfig, plan: Plan, writer: PoolWriter) -> DoneIds:
    """Groups of which the pool has every image that is asked for."""
    views, wanted, captions = config.generation.views, config.pool.images_per_caption, len(plan.captions)
    done = []
    for group_id, images in sorted(writer.groups.items()):
        first_view = group_id // captions * views
        if first_view < wanted and images >= min(views, wanted - first_view):
            done.append(group_id)
    return DoneIds(0, done)


def _feed(config: TrainerConfig, plan: Plan, leases: Leases, content: str, keys: TrainerKeys | None) -> Feed:
    def make_desk(bound: str) -> Desk:
        settings = DeskSettings(
            session=secrets.token_hex(8),
            endpoints=(config.stream.advertise or bound,),
            content=content,
            lease_seconds=config.stream.lease_seconds,
        )
        return Desk(plan, leases, settings)

    return Feed(make_desk, config.stream.bind, keys)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
