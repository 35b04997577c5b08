"""Ranks go on, wait, stop and fail together, and learn what the first one knows.

Each rank is a process of its own that runs this file: `test_lockstep.py RANK FOLDER`.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from trainer.errors import FeedFailedError, PeerFailedError, SteeredError, StopRequestedError
from trainer.lockstep import Lockstep
from trainer.rank_group import RankGroup
from trainer.stall import Stall, Want

WORLD, TIMEOUT_SECONDS = 3, 240.0
WANT = Want(step=4, needed=8, fresh=2)
Found = dict[str, Any]


class Side:
    """One rank's lockstep and what it was told."""

    def __init__(self, rank: int, content: str = "") -> None:
        self.rank = rank
        self.stop = threading.Event()
        self.content = content
        self.told: list[str] = []
        self.lockstep = Lockstep(
            RankGroup(rank=rank, world=WORLD),
            self.stop,
            diagnose=lambda want: Stall.DRAWING if rank == 1 else Stall.NO_CREDIT,
            content=lambda: self.content,
            settle_content=self.told.append,
        )


def _waits(rank: int) -> Found:
    """Rank 1 lacks groups at the first meeting, ranks 1 and 2 at the second, nobody at the third."""
    side = Side(rank)
    lacking: list[tuple[int, ...]] = [(1,), (1, 2), ()]
    return {"waits": [side.lockstep.meet(WANT if rank in who else None) for who in lacking]}


def _content(rank: int) -> Found:
    """The first rank learns it before the second meeting; rank 2 has another opinion all along."""
    side = Side(rank, content="" if rank < 2 else "theirs")
    told = []
    for meeting in range(3):
        if meeting == 1 and rank == 0:
            side.content = "the run's"
        side.lockstep.meet(None)
        told.append(list(side.told))
    return {"told": told}


def _order(rank: int) -> Found:
    """The first rank's order ends one meeting on all ranks, and is there for whoever asks, once."""
    side = Side(rank)
    side.lockstep.order = 7 if rank == 0 else 5
    with pytest.raises(SteeredError):
        side.lockstep.meet(None)
    side.lockstep.meet(None)
    return {"orders": [side.lockstep.take_order() for _ in range(2)]}


def _stop(rank: int) -> Found:
    """Rank 2 is asked to stop while the others could go on."""
    side = Side(rank)
    side.lockstep.meet(None)
    if rank == 2:
        side.stop.set()
    with pytest.raises(StopRequestedError):
        side.lockstep.meet(None)
    return {"stopped": True}


def _fail(rank: int) -> Found:
    """Rank 1 can't go on, which counts for more than the stop that rank 0 was asked for."""
    side = Side(rank)
    if rank == 0:
        side.stop.set()
    if rank == 1:
        with pytest.raises(FeedFailedError) as failed:
            side.lockstep.fail(FeedFailedError("the feed stopped: ä"))
        return {"error": str(failed.value)}
    with pytest.raises(PeerFailedError) as lost:
        side.lockstep.meet(None)
    return {"error": str(lost.value)}


def _messages(rank: int) -> Found:
    """Of different lengths, empty ones among them; tensors of every kind that a checkpoint has."""
    ranks = RankGroup(rank=rank, world=WORLD)
    tensors = {
        "weight": torch.arange(6, dtype=torch.float32).view(2, 3).T,
        "step": torch.tensor(3.0),
        "tracked": torch.tensor(5),
        "rng": torch.arange(4, dtype=torch.uint8),
    }
    same = ranks.same_tensors(tensors if rank == 0 else {"weight": torch.zeros(1)})
    assert same.keys() == tensors.keys()
    assert all(torch.equal(same[name], tensor) for name, tensor in tensors.items())
    shared = ranks.share(b"x" * rank)
    return {
        "shared": [one.decode() for one in shared],
        "first": ranks.from_first(bytes([65 + rank])).decode(),
    }


CASES: dict[str, tuple[Callable[[int], Found], list[Found]]] = {
    "waits": (
        _waits,
        [{"waits": [[[1, "drawing"]], [[1, "drawing"], [2, "no_credit"]], []]}] * WORLD,
    ),
    "content": (_content, [{"told": [[], ["the run's"], ["the run's"]]}] * WORLD),
    "order": (_order, [{"orders": [7, 0]}] * WORLD),
    "stop": (_stop, [{"stopped": True}] * WORLD),
    "fail": (
        _fail,
        [
            {"error": text}
            for text in (
                "rank 1 has failed: FeedFailed: the feed stopped: ä",
                "the feed stopped: ä",
                "rank 1 has failed: FeedFailed: the feed stopped: ä",
            )
        ],
    ),
    "messages": (_messages, [{"shared": ["", "x", "xx"], "first": "A"}] * WORLD),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> list[dict[str, Found]]:
    """What each rank found in every case, in rank order."""
    folder = tmp_path_factory.mktemp("lockstep")
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(folder)], env=environment)
        for rank in range(WORLD)
    ]
    try:
        assert [rank.wait(TIMEOUT_SECONDS) for rank in ranks] == [0] * WORLD
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return [json.loads((folder / f"{rank}.json").read_text("utf-8")) for rank in range(WORLD)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_ranks_decide_together(case: str, found: list[dict[str, Found]]) -> None:
    """As the case of that name tells."""
    assert [of_rank[case] for of_rank in found] == CASES[case][1]


def test_alone_nothing_is_sent() -> None:
    """Without a process group, a rank group of one answers itself."""
    alone = RankGroup()
    tensors = {"a": torch.ones(2)}
    assert alone.share(b"me") == [b"me"]
    assert alone.from_first(b"me") == b"me"
    assert alone.same_tensors(tensors) is tensors
    alone.wait_for_all()


def _run_rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    results = {case: run(rank) for case, (run, _) in CASES.items()}
    (folder / f"{rank}.json").write_text(json.dumps(results), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    _run_rank(int(sys.argv[1]), Path(sys.argv[2]))
