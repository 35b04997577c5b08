"""Impossible settings are refused with the inequality they break."""

from typing import Any

import msgspec
import pytest

from protocol.errors import UserError
from trainer import limits
from trainer.config import TrainerConfig


def _config(**sections: Any) -> TrainerConfig:
    return msgspec.convert(sections, TrainerConfig)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"stream": {"window_groups": 63}}, "window_groups >= train.batch_groups = 64, got 63"),
        ({"stream": {"ring_groups": 64, "max_reuse": 2}}, "16 x train.batch_groups = 1024, got 64"),
        ({"stream": {"reuse_gap": 16, "max_reuse": 2}}, r"(16 + 1) x 64 = 1088"),
        (
            {"stream": {"order": "ticket", "max_reuse": 24}},
            "stream.max_reuse: impossible setting: expected train.batch_groups = 64 to be a multiple",
        ),
        (
            {"stream": {"order": "ticket", "max_reuse": 4, "min_fresh": 0.3}},
            "min_fresh <= 1 / max_reuse = 0.25, the fresh share in ticket order, got 0.3",
        ),
        ({"stream": {"order": "ticket", "max_reuse": 4, "ring_groups": 64}}, "= 1024, got 64"),
        ({"stream": {"reuse": "auto", "order": "ticket", "max_reuse": 4}}, "expected eager, since"),
        ({"stream": {"reuse": "auto"}}, "which stream.reuse = auto moves, got max_reuse = 1, min_fresh = 0"),
        ({"stream": {"reuse": "auto", "max_reuse": 9, "min_fresh": 1.0}}, "max_reuse = 9, min_fresh = 1"),
        ({"generation": {"views": 1}}, "at least 2 views, since a group's images are each other's positives"),
        ({"generation": {"views": 1}, "train": {"objective": "stablerep+"}}, "at least 2 views"),
        (
            {"train": {"objective": "simclr"}},
            "at most 1 view, since its positives are two augmentations of one image, got 6; lower it",
        ),
        ({"train": {"objective": "clip"}}, "since it pairs each caption with one image, got 6"),
        (
            {"train": {"objective": "supcon"}},
            "captions.classes: impossible setting: expected a list of class names",
        ),
        (
            {"train": {"objective": "mae"}},
            "model.encoder: impossible setting: expected model_type vit, since train.objective = mae",
        ),
        ({"train": {"export": "ema"}}, "train.export: impossible setting: expected train.ema_decay > 0"),
        ({"run": {"mode": "offline"}}, "a folder, since run.mode = offline and pool.write = false, got none"),
        ({"run": {"mode": "mixed"}}, "a folder, since run.mode = mixed"),
        ({"pool": {"write": True}}, "pool.write = true, got none"),
        ({"run": {"max_steps": 50}}, "warmup_steps < run.max_steps = 50"),
        ({"stream": {"bind": "tcp://0.0.0.0:5755"}}, "keys or a loopback address"),
        ({"stream": {"bind": "tcp://*:5755"}}, "keys or a loopback address"),
        ({"monitor": {"bind": "here"}}, "monitor.bind: not an address: expected PORT or HOST:PORT, got here"),
        ({"stream": {"bind": "tcp://example.org:5755"}}, "keys or a loopback address"),
    ],
)
def test_impossible_settings_are_refused(sections: dict[str, Any], words: str) -> None:
    """One line with both sides of the inequality."""
    with pytest.raises(UserError) as caught:
        limits.check(_config(**sections))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"stream": {"bind": "tcp://[::1]:5755"}},
        {"stream": {"bind": "ipc:///tmp/x"}},
        {"stream": {"bind": "tcp://localhost:*"}},
        {"stream": {"bind": "tcp://0.0.0.0:5755", "insecure_bind": True}},
        {"stream": {"bind": "tcp://0.0.0.0:5755", "keys": "keys"}},
        {"stream": {"window_groups": 64}},
        {"stream": {"order": "ticket"}},
        {"stream": {"reuse": "auto", "max_reuse": 2}},
        {"train": {"export": "ema", "ema_decay": 0.999}},
        {"train": {"objective": "simclr"}, "generation": {"views": 1}},
        {"train": {"objective": "clip"}, "generation": {"views": 1}},
        {"train": {"objective": "supcon"}, "captions": {"classes": "classes.txt"}},
        {
            "train": {"objective": "mae"},
            "generation": {"views": 1},
            "model": {"encoder": {"model_type": "vit"}},
        },
        {"train": {"objective": "mae"}, "model": {"encoder": {"folder": "runs/a/encoder"}}},
        {"stream": {"order": "ticket", "max_reuse": 64, "reuse_gap": 15, "min_fresh": 0.01}},
    ],
)
def test_possible_settings_pass(sections: dict[str, Any]) -> None:
    """The bounds themselves are allowed."""
    limits.check(_config(**sections))


def test_derived_sizes() -> None:
    """Zero means the rule."""
    assert limits.window_groups(_config()) == 256
    assert limits.ring_groups(_config()) == 1024
    assert limits.min_fresh_groups(_config()) == 64, "reuse 1 trains fresh groups only"
    assert limits.min_fresh_groups(_config(stream={"max_reuse": 2, "min_fresh": 0.01})) == 1
    assert limits.min_fresh_groups(_config(stream={"max_reuse": 2})) == 0


def test_the_learning_rate_follows_the_images_that_the_encoder_sees() -> None:
    """SimCLR's two augmentations count as two images, as in the papers' rule."""
    assert _config().batch_images == 64 * 6
    simclr = _config(train={"objective": "simclr", "batch_groups": 192}, generation={"views": 1})
    assert simclr.batch_images == 384
    assert simclr.peak_lr == _config().peak_lr


@pytest.mark.parametrize(
    ("sections", "ranks", "words"),
    [
        ({}, 3, "batch_groups = 64 to be a multiple of the 3 ranks, each of which trains on its part, got"),
        (
            {"stream": {"order": "ticket", "max_reuse": 32}},
            4,
            "64 / stream.max_reuse = 2 to be a multiple of the 4 ranks",
        ),
        ({"stream": {"reuse": "auto", "max_reuse": 4}}, 2, "expected eager with several ranks"),
        ({"pool": {"dir": "p", "write": True}}, 2, "pool.write: impossible setting: expected one rank"),
        ({"run": {"mode": "offline"}, "pool": {"dir": "p", "replay": "r"}}, 2, "pool.replay: impossible"),
        (
            {"run": {"mode": "mixed"}, "pool": {"dir": "p", "share": 1 / 64}},
            2,
            "share x train.batch_groups / 2 ranks = share x 32",
        ),
        (
            {
                "run": {"mode": "mixed"},
                "pool": {"dir": "p", "share": 3 / 16},
                "stream": {"order": "ticket", "max_reuse": 4},
            },
            4,
            "share x train.batch_groups / stream.max_reuse / 4 ranks = share x 4",
        ),
    ],
)
def test_what_several_ranks_can_not_do_is_refused(sections: dict[str, Any], ranks: int, words: str) -> None:
    """And one rank can."""
    limits.check(_config(**sections))
    with pytest.raises(UserError) as caught:
        limits.check(_config(**sections), ranks)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"stream": {"order": "ticket", "max_reuse": 16}},
        {"run": {"mode": "mixed"}, "pool": {"dir": "p", "share": 1 / 16}, "stream": {"order": "ticket"}},
        {"run": {"mode": "mixed"}, "pool": {"dir": "p", "share": 1 / 16}},
    ],
)
def test_what_several_ranks_can_do_passes(sections: dict[str, Any]) -> None:
    """The bounds themselves are allowed."""
    limits.check(_config(**sections), 4)
