"""Ranks begin with the same run, or not at all."""

from typing import Any

import msgspec
import pytest

from protocol.errors import UserError
from trainer.captions import Captions
from trainer.config import TrainerConfig
from trainer.plan import Plan
from trainer.rank_group import RankGroup
from trainer.rank_start import Start, check_same_run_file, fresh_state


class Recorded(RankGroup):
    """Every rank of two says what the test had one of them say before."""

    messages: list[bytes] = []  # noqa: RUF012 - of the test that sets it

    def share(self, own: bytes) -> list[bytes]:
        self.messages.append(own)
        return [self.messages[0], own]


def _check(*runs: tuple[list[str], dict[str, Any]]) -> None:
    Recorded.messages = []
    for rank, (captions, sections) in enumerate(runs):
        config = msgspec.convert(sections, TrainerConfig)
        plan = Plan(Captions(captions), config.run.seed, config.generation)
        check_same_run_file(config, plan, Recorded(rank=rank, world=2))


def test_machines_may_differ_in_addresses_folders_and_threads() -> None:
    """Nothing of that decides what is trained."""
    other = {
        "run": {"dir": "/elsewhere"},
        "stream": {"bind": "tcp://*:9", "advertise": "tcp://b:9", "keys": "k"},
        "captions": {"source": "copy.txt"},
        "train": {"device": "cpu", "threads": 4},
        "monitor": {"bind": "9464"},
    }
    _check((["a", "b"], {}), (["a", "b"], other))


@pytest.mark.parametrize(
    ("captions", "sections"),
    [
        (["a", "c"], {}),
        (["a", "b"], {"run": {"seed": 1}}),
        (["a", "b"], {"run": {"max_steps": 7}}),
        (["a", "b"], {"train": {"checkpoint_every": 7}}),
        (["a", "b"], {"stream": {"max_reuse": 3}}),
        (["a", "b"], {"augment": {"flip": 0.1}}),
    ],
)
def test_another_run_on_another_rank_is_refused(captions: list[str], sections: dict[str, Any]) -> None:
    """By name of the rank."""
    with pytest.raises(UserError, match=r"ranks have different runs.* on rank 1"):
        _check((["a", "b"], {}), (captions, sections))


def test_every_rank_begins_where_the_first_one_does() -> None:
    """Whatever is in its own folder."""
    plan = Plan(Captions(["a"]), 0, TrainerConfig().generation)
    Recorded.messages = []
    start = Start(state=fresh_state(plan), is_new=True)
    start.share(Recorded(rank=0, world=2))
    assert Start.of_first(Recorded(rank=1, world=2)) == start
