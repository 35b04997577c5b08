"""Groups of a pool come in order, the same whatever the number of processes, and damage is dealt with."""

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.errors import UserError
from protocol.generation import GenerationSpec
from protocol.payload import checksum
from trainer.batch import DrawnGroup
from trainer.captions import Captions
from trainer.config import PoolConfig, RunConfig, TrainerConfig
from trainer.done import Deal, DoneIds
from trainer.errors import FeedFailedError, PoolDamagedError, StopRequestedError
from trainer.plan import Plan
from trainer.pool.feed import PoolFeed
from trainer.pool.pool import open_pool
from trainer.pool.reading import open_sampled_pool
from trainer.pool.sampling import draw_order, replay, sample
from trainer.sources.pool_order import PoolOrderSource

CAPTIONS = [f"caption {chr(97 + i)}" for i in range(6)]
PLAN = Plan(Captions(CAPTIONS), 0, GenerationSpec(views=2, size=16))

OpenFeed = Callable[..., PoolFeed]


@pytest.fixture
def open_feed(tmp_path: Path, write_pool: Callable[..., Path]) -> Iterator[OpenFeed]:
    """Feeds on a pool of 6 captions with 4 images, written where it is not there yet."""
    feeds: list[PoolFeed] = []

    def make(ids: Iterator[int] | None = None, max_damaged: int = 10, **values: Any) -> PoolFeed:
        folder = tmp_path / "pool"
        if not folder.exists():
            write_pool(folder, CAPTIONS)
        pool = open_pool(folder, max_damaged=max_damaged)
        select = replay(pool.index) if values.pop("exact", False) else sample(pool.index, 0, 4)
        fields: dict[str, Any] = {"window": 8, "processes": 1}
        feeds.append(PoolFeed(PLAN, pool, select, ids or itertools.count(), **fields | values))
        return feeds[-1]

    yield make
    for feed in feeds:
        feed.close()


def _take(feed: PoolFeed, count: int) -> list[DrawnGroup]:
    groups: list[DrawnGroup] = []
    deadline = time.monotonic() + 40
    while len(groups) < count:
        assert time.monotonic() < deadline
        taken = feed.take(count - len(groups))
        groups += taken
        feed.trained([group.group_id for group in taken])
        feed.wait(0.1)
    return groups


def test_groups_are_those_of_their_tickets_in_order(
    open_feed: OpenFeed, picture_of: Callable[..., Any]
) -> None:
    """Pixels against a plain choice, seeds and guidance those of the images, the ticket's place kept."""
    for group_id, group in enumerate(_take(open_feed(), 20)):
        ticket = PLAN.ticket(group_id)
        assert group.ticket == ticket
        numbers = draw_order(0, group_id, 4)[:2]
        expected = np.stack([picture_of(ticket.caption, number) for number in numbers])
        assert np.array_equal(group.images_NHWC, expected)
        assert group.digest == checksum(expected)
        assert group.seeds == tuple(1000 + number for number in numbers)
        assert group.guidance == (2.5, 2.5)
        assert (group.source, group.content, group.engine) == ("pool", "c", "e")


def test_the_number_of_processes_changes_nothing(open_feed: OpenFeed) -> None:
    """One against three, which finish in any order."""
    one, three = _take(open_feed(), 30), _take(open_feed(processes=3), 30)
    assert [group.digest for group in one] == [group.digest for group in three]
    assert [group.group_id for group in three] == list(range(30))


def test_no_more_than_the_window_is_decoded_ahead(open_feed: OpenFeed) -> None:
    """Trained groups make room, which the next look at the feed fills."""
    asked: list[int] = []

    def ids() -> Iterator[int]:
        for group_id in itertools.count():
            asked.append(group_id)
            yield group_id

    feed = open_feed(ids())
    feed.take(0)
    assert asked == list(range(8))
    while not feed.take(1):
        feed.wait(0.1)
    assert asked == list(range(8))
    feed.trained([0])
    feed.take(0)
    assert asked == list(range(9))


def test_a_damaged_image_is_replaced_by_the_next_of_its_caption(
    open_feed: OpenFeed, tmp_path: Path, picture_of: Callable[..., Any]
) -> None:
    """Counted once, though several groups wanted it."""
    open_feed()
    place = open_pool(tmp_path / "pool", max_damaged=0).index.image(0).place
    shard = tmp_path / "pool" / place.file
    data = bytearray(shard.read_bytes())
    data[place.offset + place.size // 2] ^= 255
    shard.write_bytes(data)
    feed = open_feed()
    damaged = open_pool(tmp_path / "pool", max_damaged=0).index.image(0)
    for group_id, group in enumerate(_take(feed, 30)):
        wanted = [
            number
            for number in draw_order(0, group_id, 4)
            if (group.ticket.caption_id, number) != (damaged.caption_id, damaged.image)
        ]
        expected = np.stack([picture_of(group.ticket.caption, number) for number in wanted[:2]])
        assert np.array_equal(group.images_NHWC, expected)
    assert feed.damage == {"pool_checksum": 1}
    assert feed.dead_letters() == {}


def test_beyond_its_limit_damage_stops_the_run(open_feed: OpenFeed, tmp_path: Path) -> None:
    """A lost shard of 12 images, of which 10 may be damaged; named with the pool."""
    open_feed()
    (tmp_path / "pool" / "shard-000001.tar").unlink()
    with pytest.raises(PoolDamagedError, match=r"max_damaged = 10 .* got 11 \(11 missing\)"):
        _take(open_feed(), 100)


def test_a_caption_without_images_is_left_out(tmp_path: Path, write_pool: Callable[..., Path]) -> None:
    """A dead letter each time, and the groups after it come."""
    pool = open_pool(write_pool(tmp_path, CAPTIONS[:5]), max_damaged=10)
    feed = PoolFeed(PLAN, pool, sample(pool.index, 0, 4), itertools.count(), window=8, processes=1)
    try:
        groups = _take(feed, 20)
    finally:
        feed.close()
    lacking = [i for i in range(40) if PLAN.ticket(i).caption == CAPTIONS[5]]
    assert [group.group_id for group in groups] == [i for i in range(40) if i not in lacking][:20]
    assert set(feed.dead_letters()) <= set(lacking)
    assert len(feed.dead_letters()) >= 3


def test_fewer_images_than_views_are_repeated_in_turn(
    tmp_path: Path, write_pool: Callable[..., Path]
) -> None:
    """l = 1: the views of a group are one image, augmented apart."""
    pool = open_pool(write_pool(tmp_path, CAPTIONS), max_damaged=0)
    feed = PoolFeed(PLAN, pool, sample(pool.index, 0, 1), itertools.count(), window=8, processes=1)
    try:
        for group in _take(feed, 6):
            assert np.array_equal(group.images_NHWC[0], group.images_NHWC[1])
            assert [image.image for image in group.images] == [0, 0]
    finally:
        feed.close()


def test_a_replay_holds_a_group_to_its_digest(open_feed: OpenFeed, picture_of: Callable[..., Any]) -> None:
    """The views of the ticket, or an error that names the group."""
    [group] = _take(open_feed(exact=True), 1)
    assert [image.image for image in group.images] == [0, 1]
    with pytest.raises(UserError, match="digest 0 for group 0"):
        _take(open_feed(exact=True, expected=lambda group_id: "0"), 1)


def test_a_dead_process_ends_the_feed_with_its_reason(open_feed: OpenFeed) -> None:
    """Killed from outside; nothing waits for ever."""
    feed = open_feed()
    _take(feed, 1)
    os.kill(feed._decoders._decoders[0].process.pid or 0, signal.SIGKILL)
    with pytest.raises(FeedFailedError, match=r"ended with code -9|is gone"):
        _take(feed, 1000)


@pytest.mark.parametrize("worlds", [(1, 1, 1), (1, 2, 4), (4, 1, 2)])
def test_the_number_of_ranks_may_change_between_sessions(
    open_feed: OpenFeed, worlds: tuple[int, ...]
) -> None:
    """Each session deals the undone ids anew: the batches of all ranks together are the same groups."""
    batch_groups, done, digests = 4, DoneIds(), {}
    for world in worlds:
        sources = [
            PoolOrderSource(
                open_feed(iter(Deal(done, rank, world)), window=6),
                batch_groups=batch_groups // world,
                stop=threading.Event(),
            )
            for rank in range(world)
        ]
        for step in range(2):
            before = len(done)
            for source in sources:
                batch = source.next_batch(step)
                digests |= {group.group_id: group.digest for group in batch.groups}
                source.trained(batch)
                for group in batch.groups:
                    done.add(group.group_id)
            assert (done.low, done.above) == (before + batch_groups, ())
    assert digests == {group.group_id: group.digest for group in _take(open_feed(), 24)}


def test_a_batch_is_kept_until_it_was_trained(open_feed: OpenFeed) -> None:
    """Asked again it is the same; a stop ends the wait."""
    stop = threading.Event()
    source = PoolOrderSource(open_feed(), batch_groups=4, stop=stop)
    batch = source.next_batch(1)
    assert source.next_batch(1) == batch
    assert batch.uses == (1, 1, 1, 1)
    source.trained(batch)
    assert [group.group_id for group in source.next_batch(2).groups] == [4, 5, 6, 7]
    assert (source.ring_groups, source.ring_contents()) == (0, [])
    stop.set()
    far = PoolOrderSource(open_feed(iter(())), batch_groups=4, stop=stop)
    with pytest.raises(StopRequestedError):
        far.next_batch(1)


def test_a_pool_that_cannot_serve_the_run_is_refused(tmp_path: Path, write_pool: Callable[..., Path]) -> None:
    """Other captions, or fewer images than are asked for."""
    write_pool(tmp_path, ["something else"])
    config = TrainerConfig(
        run=RunConfig(mode="offline"), pool=PoolConfig(dir=str(tmp_path), images_per_caption=5)
    )
    with pytest.raises(UserError, match="pool of other captions"):
        open_sampled_pool(config, PLAN)
    plan = Plan(Captions(["something else", *CAPTIONS]), 0, PLAN.spec)
    with pytest.raises(UserError, match="images_per_caption = 5 of a caption, got at most 4"):
        open_sampled_pool(config, plan)
