"""The controller of reuse against simulated generators: finds what each needs, follows, does not swing."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from trainer.sources.auto_reuse import AutoReuse

BATCH, WINDOW, BURST = 32, 128, 12
REUSE_MAX, TARGET = 24.0, 0.02


@dataclass
class Step:
    reuse: float
    fresh: int
    waited: float
    worked: float


def _simulate(rate: Callable[[float], float], steps: int, noise: float = 0.2) -> list[Step]:
    """A trainer that takes a second a step, more or less, and a generator that brings `rate` groups a second,
    12 at a time, while fewer than a window are at hand."""
    random = np.random.default_rng(0)
    auto = AutoReuse(reuse_max=REUSE_MAX, waiting_target=TARGET)
    now = begun = 0.0
    groups = 0
    done: list[Step] = []

    def pass_time(seconds: float) -> None:
        nonlocal now, begun, groups
        end = now + seconds
        while now < end:
            if groups + BURST > WINDOW:
                now = end
                return
            used = min((BURST - begun) / rate(now), end - now)
            begun, now = begun + used * rate(now), max(now + used, np.nextafter(now, end))
            if begun >= BURST - 1e-6:
                begun, groups = 0.0, groups + BURST

    for _ in range(steps):
        fresh, asked_at = auto.fresh_groups(BATCH), now
        while groups < fresh:
            pass_time((BURST - begun) / rate(now) + 1e-9)
        waited, worked = now - asked_at, max(0.1, 1 + noise * float(random.standard_normal()))
        groups -= fresh
        backlog = groups
        pass_time(worked)
        auto.stepped(BATCH, wait_seconds=waited, work_seconds=worked, backlog=backlog)
        done.append(Step(auto.reuse, fresh, waited, worked))
    return done


def _waiting_share(steps: list[Step]) -> float:
    waited = sum(step.waited for step in steps)
    return waited / (waited + sum(step.worked for step in steps))


def test_a_fast_generator_needs_no_reuse() -> None:
    """All groups are fresh, once the first waits are forgotten."""
    steps = _simulate(lambda now: 45.0, 400)
    assert max(step.reuse for step in steps) < 1.1
    assert {step.reuse for step in steps[250:]} == {1.0}
    assert {step.fresh for step in steps[250:]} == {BATCH}


@pytest.mark.parametrize("rate", [26.0, 16.0, 4.0, 1.5])
def test_a_slow_generator_is_waited_for_no_longer_than_the_target(rate: float) -> None:
    """And reuse stays near what its speed asks for: batch / rate. No swinging once it is found."""
    steps = _simulate(lambda now: rate, 1000)[200:]
    assert _waiting_share(steps) < TARGET
    needed = BATCH / rate
    assert min(step.reuse for step in steps) > 0.75 * needed
    assert max(step.reuse for step in steps) < min(1.25 * needed, REUSE_MAX + 1e-9)
    assert np.mean([step.fresh for step in steps]) == pytest.approx(rate, rel=0.05)


def test_a_generator_that_is_too_slow_is_waited_for_at_the_bound() -> None:
    """Reuse goes to its bound and stays there."""
    steps = _simulate(lambda now: 0.5, 300)[60:]
    assert {step.reuse for step in steps} == {REUSE_MAX}
    assert _waiting_share(steps) > 0.5


def test_a_change_of_speed_is_followed() -> None:
    """Within a window where it falls, since the trainer stands still; within hundreds of steps else."""
    falling = _simulate(lambda now: 45.0 if now < 300 else 4.0, 600)
    at = next(i for i, step in enumerate(falling) if i > 250 and step.waited > 1)
    assert falling[at - 1].reuse == 1.0
    assert 6 < falling[at + 20].reuse < 11
    rising = _simulate(lambda now: 4.0 if now < 300 else 45.0, 900)
    assert 6 < rising[280].reuse < 11
    assert rising[-1].reuse < 1.05


@pytest.mark.parametrize(("begins_at", "reuse"), [(7.5, 7.5), (100.0, REUSE_MAX), (0.5, 1.0)])
def test_a_run_that_goes_on_begins_where_its_checkpoint_was(begins_at: float, reuse: float) -> None:
    """Within the bounds of the settings that it goes on with."""
    auto = AutoReuse(reuse_max=REUSE_MAX, waiting_target=TARGET, begins_at=begins_at)
    assert auto.reuse == reuse
    assert auto.fresh_groups(BATCH) == int(BATCH / reuse)


def test_fractions_of_a_group_are_not_lost() -> None:
    """A reuse of 3 asks for 32 / 3 groups a batch: 10, 11, 11."""
    auto = AutoReuse(reuse_max=3.0, waiting_target=TARGET)
    auto.stepped(BATCH, wait_seconds=1000.0, work_seconds=1.0, backlog=0)
    assert auto.reuse == 3.0
    asked = []
    for _ in range(9):
        asked.append(auto.fresh_groups(BATCH))
        auto.stepped(BATCH, wait_seconds=0.0, work_seconds=1.0, backlog=0)
    assert sum(asked) == 96
    assert set(asked) == {10, 11}
