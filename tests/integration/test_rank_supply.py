"""Two trainer ranks of which one has plenty and the other little: still in step, each group trained once."""

import sqlite3
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from generator_service.fake import WEIGHTS, FakeEngine
from protocol import PROTOCOL_VERSION
from protocol.frames import decode_from_trainer, encode
from protocol.generation import GenerationSpec
from protocol.messages import (
    Equipped,
    Hello,
    Ready,
    Reject,
    Stop,
    Tickets,
    Welcome,
    WorkerHeartbeat,
    WorkerMessage,
)
from protocol.payload import describe_images
from protocol.tickets import Ticket
from trainer.checkpoint import Checkpoints

BATCH, STEPS, VIEWS, SIZE = 8, 16, 3, 32
CREDIT = 8
START_SECONDS = 200.0


class OneRankWorker(threading.Thread):
    """A fast worker that reaches one rank alone, as behind a firewall: it draws for that one only."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self.endpoint = endpoint
        self.ended = threading.Event()
        self.drawn: list[int] = []
        self.told: str | None = None
        """Why it was sent away."""
        self.stamp: dict[str, Any] = {"run": "", "session": ""}
        self.engine = FakeEngine(GenerationSpec(views=VIEWS, size=SIZE), batch_images=VIEWS)

    def run(self) -> None:
        """Until it is told to stop, or the test ends."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        with context, context.socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.connect(self.endpoint)
            hello = Hello(
                protocol=PROTOCOL_VERSION, worker="one rank's", device="test", weights=WEIGHTS, **self.stamp
            )
            dealer.send(encode(hello))
            beat_at = time.monotonic()
            while self.told is None and not self.ended.is_set():
                if dealer.poll(100):
                    self._hear(dealer)
                if self.stamp["run"] and time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + 1
                    self._say(dealer, WorkerHeartbeat(idle_seconds=0.0, batch_seconds=0.1, **self.stamp))

    def _say(self, dealer: "zmq.Socket[bytes]", *messages: WorkerMessage) -> None:
        for message in messages:
            dealer.send(encode(message))

    def _hear(self, dealer: "zmq.Socket[bytes]") -> None:
        match decode_from_trainer(dealer.recv_multipart(copy=False)):
            case Welcome() as welcome:
                self.stamp = {"run": welcome.run, "session": welcome.session}
                assert len(welcome.endpoints) == 2
                engine = self.engine
                equipped = Equipped(
                    content=engine.content_hash, engine=engine.engine_hash, batch_images=VIEWS, **self.stamp
                )
                self._say(dealer, equipped, Ready(credit=CREDIT, **self.stamp))
            case Tickets(tickets=tickets):
                for ticket in tickets:
                    self._draw(dealer, ticket)
                self._say(dealer, Ready(credit=CREDIT, **self.stamp))
            case Stop(reason=reason):
                self.told = reason
            case Reject(reason=reason):
                self.told = f"rejected: {reason}"

    def _draw(self, dealer: "zmq.Socket[bytes]", ticket: Ticket) -> None:
        [images] = self.engine.draw([ticket], lambda: False)
        header = describe_images(images, group_id=ticket.group_id, draw_seconds=0.1, **self.stamp)
        dealer.send_multipart([encode(header), images.tobytes()])
        self.drawn.append(ticket.group_id)


@pytest.fixture
def one_rank_worker() -> Iterator[Callable[[str], OneRankWorker]]:
    """Starts such workers, and ends them with the test."""
    started: list[OneRankWorker] = []

    def begin(endpoint: str) -> OneRankWorker:
        started.append(OneRankWorker(endpoint))
        started[-1].start()
        return started[-1]

    yield begin
    for worker in started:
        worker.ended.set()
        worker.join(10)


def _query(run: Any, query: str) -> list[Any]:
    db = sqlite3.connect(run.folder / "ledger.sqlite")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


@pytest.mark.timeout(400)
def test_ranks_with_unequal_supply_stay_in_step(
    small_run: Callable[..., Any],
    start: Callable[..., Any],
    start_ranks: Callable[..., Any],
    one_rank_worker: Callable[[str], OneRankWorker],
) -> None:
    """A fast worker fills the first rank's window and serves nobody else; the second rank has nothing, then
    what a slow one has left for it. The run ends by itself, and its workers with it."""
    run = small_run(
        run__max_steps=STEPS,
        generator__fake_images_per_second=72.0,
        generator__batch_images=VIEWS,
        stream__window_groups=4 * BATCH,
    )
    endpoint = tomllib.loads(run.path.read_text("utf-8"))["stream"]["bind"]
    fast, ranks = one_rank_worker(endpoint), start_ranks(run, 2)
    first_checkpoint = run.folder / "checkpoints" / "step-000000000"
    deadline = time.monotonic() + START_SECONDS
    while not first_checkpoint.is_dir() or len(fast.drawn) < 2 * BATCH:
        assert time.monotonic() < deadline
        assert [rank.poll() for rank in ranks] == [None, None]
        time.sleep(0.05)
    slow = start("generate", str(run.path))
    for rank in ranks:
        assert rank.wait(START_SECONDS) == 0, rank.communicate()[1]
    assert slow.wait(30) == 0
    fast.join(10)
    assert fast.told == "the trainer has ended"

    uses = _query(run, "SELECT group_id, step, rank, use FROM uses")
    assert sorted(group_id for group_id, _, _, _ in uses) == list(range(STEPS * BATCH))
    assert {use for _, _, _, use in uses} == {1}
    assert all(group_id % 2 == rank for group_id, _, rank, _ in uses), "dealt round robin"
    parts = _query(run, "SELECT step, rank, count(*) FROM uses GROUP BY step, rank ORDER BY step, rank")
    assert parts == [(step, rank, BATCH // 2) for step in range(1, STEPS + 1) for rank in (0, 1)]
    drawn_by = "SELECT group_id FROM groups WHERE worker = 'one rank''s'"
    by_fast = {group_id for (group_id,) in _query(run, drawn_by)}
    assert by_fast <= set(fast.drawn)
    assert len(by_fast) > STEPS * BATCH // 4, "most of the first rank's"
    assert not any(group_id % 2 for group_id in fast.drawn)
    losses = [row for row in run.rows() if "loss" in row]
    assert [row["step"] for row in losses] == list(range(1, STEPS + 1))
    assert losses[-1]["stalls"]["other_ranks"] > 0, "the first rank had its part and waited"
    latest = Checkpoints(run.folder / "checkpoints", keep=2).latest()
    assert latest is not None
    assert (latest[0].step, latest[0].done_low, latest[0].done_above) == (STEPS, STEPS * BATCH, ())
