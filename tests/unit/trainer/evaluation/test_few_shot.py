"""Few-shot episodes: what is drawn, and the interval."""

import math

import pytest
import torch

from protocol.errors import UserError
from trainer.evaluation.few_shot import draw_episodes, few_shot

TRAIN, TEST = torch.arange(8).repeat_interleave(9), torch.arange(8).repeat_interleave(6)


def test_an_episode_has_5_shots_and_equal_queries_of_5_classes() -> None:
    """None twice; classes and pictures vary by episode, and by the seed alone."""
    episodes = draw_episodes(TRAIN, TEST, seed=3, episodes=30)
    assert episodes.support_EWS.shape == (30, 5, 5)
    assert episodes.queries_EWQ.shape == (30, 5, 6)
    for support, queries in zip(episodes.support_EWS, episodes.queries_EWQ, strict=True):
        classes = TRAIN[support]
        assert (classes == classes[:, :1]).all()
        assert (TEST[queries] == classes[:, :1]).all()
        assert len(set(classes[:, 0].tolist())) == 5
        assert len(set(support.flatten().tolist())) == 25
        assert len(set(queries.flatten().tolist())) == 30
    assert len({tuple(sorted(TRAIN[s[:, 0]].tolist())) for s in episodes.support_EWS}) > 5
    again = draw_episodes(TRAIN, TEST, seed=3, episodes=30)
    assert torch.equal(episodes.support_EWS, again.support_EWS)
    assert not torch.equal(episodes.support_EWS, draw_episodes(TRAIN, TEST, seed=4, episodes=30).support_EWS)


def test_small_classes_are_left_out() -> None:
    """Under 5 shots, or fewer queries than the fifth largest class has."""
    train = torch.tensor([0] * 4 + [1] * 5 + [2] * 5 + [3] * 5 + [4] * 5 + [5] * 5 + [6] * 5)
    test = torch.tensor([0] * 20 + [1] * 20 + [2] * 20 + [3] * 4 + [4] * 20 + [5] * 20 + [6] * 3)
    episodes = draw_episodes(train, test, seed=0, episodes=20)
    assert episodes.queries_EWQ.shape[2] == 4
    assert set(train[episodes.support_EWS].flatten().tolist()) == {1, 2, 3, 4, 5}
    with pytest.raises(UserError, match="expected 5 classes"):
        draw_episodes(train[:20], test, seed=0, episodes=1)


def test_the_interval_is_that_of_the_episodes_shares() -> None:
    """Pictures of their classes' directions are all found; random features are at chance of one in five."""
    episodes = draw_episodes(TRAIN, TEST, seed=0, episodes=60)
    directions = torch.eye(8)
    perfect = few_shot(directions[TRAIN], directions[TEST], episodes)
    assert perfect == (1.0, 0.0, 60)
    generator = torch.Generator().manual_seed(0)
    noise = few_shot(
        torch.randn(len(TRAIN), 8, generator=generator),
        torch.randn(len(TEST), 8, generator=generator),
        episodes,
    )
    assert abs(noise.accuracy - 0.2) < 0.06
    # A share of 30 questions at chance deviates by 0.073 or, the questions being alike, somewhat more.
    assert 0.8 * 1.96 * 0.073 / math.sqrt(60) < noise.interval < 2.5 * 1.96 * 0.073 / math.sqrt(60)
