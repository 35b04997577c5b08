"""The policy of a local run, without processes: who is started, ended, and with which exit code."""

import pytest

from launcher.supervisor import (
    DRAIN_SECONDS,
    TERM_SECONDS,
    TRAINER,
    Kill,
    ReportFailure,
    Say,
    Start,
    Supervisor,
    Terminate,
)

FIRST, SECOND = "generator-0", "generator-1"


def test_finished_trainer_gives_generators_time_then_term_then_kill() -> None:
    """The trainer has told them to stop; only those that do not listen are ended."""
    run = Supervisor([FIRST, SECOND])
    assert run.on_exit(TRAINER, 0, 100.0) == []
    assert run.on_exit(FIRST, 0, 101.0) == []
    assert run.tick(100.0 + DRAIN_SECONDS - 0.1) == []
    assert run.tick(100.0 + DRAIN_SECONDS) == [Terminate(SECOND)]
    assert run.tick(100.0 + DRAIN_SECONDS + TERM_SECONDS - 0.1) == []
    assert Kill(SECOND) in run.tick(100.0 + DRAIN_SECONDS + TERM_SECONDS)
    assert run.phase == "draining"
    run.on_exit(SECOND, -9, 119.0)
    assert (run.phase, run.exit_code) == ("over", 0)


def test_stop_reaches_all_at_once_and_kills_once() -> None:
    """Ctrl-C: SIGTERM to both, 8 s, SIGKILL; asking again changes nothing."""
    run = Supervisor([FIRST])
    assert run.on_stop(5.0) == [Terminate(FIRST), Terminate(TRAINER)]
    assert run.on_stop(6.0) == []
    assert run.tick(5.0 + TERM_SECONDS - 0.1) == []
    killed = [action for action in run.tick(5.0 + TERM_SECONDS) if isinstance(action, Kill)]
    assert killed == [Kill(FIRST), Kill(TRAINER)]
    assert run.tick(99.0) == []
    run.on_exit(TRAINER, -9, 13.1)
    run.on_exit(FIRST, -9, 13.1)
    assert (run.phase, run.exit_code) == ("over", 0)


def test_stop_while_generators_drain_does_not_wait_for_them() -> None:
    """A person's wish comes before the ten seconds."""
    run = Supervisor([FIRST])
    run.on_exit(TRAINER, 0, 0.0)
    assert run.on_stop(1.0) == [Terminate(FIRST)]


def test_crashed_generator_is_started_again_three_times_with_growing_waits() -> None:
    """The fourth crash ends the run; a restart is never earlier than announced."""
    run = Supervisor([FIRST])
    now = 0.0
    for wait in (1.0, 2.0, 4.0):
        (said,) = run.on_exit(FIRST, -11, now)
        assert isinstance(said, Say)
        assert run.tick(now + wait - 0.01) == []
        assert run.tick(now + wait) == [Start(FIRST)]
        now += wait
    assert run.on_exit(FIRST, 1, now) == [ReportFailure(FIRST, 1), Terminate(TRAINER)]
    run.on_exit(TRAINER, 0, now)
    assert (run.phase, run.exit_code) == ("over", 1)


def test_restarts_are_counted_over_the_run_not_over_each_generator() -> None:
    """Three in a run, whoever crashes."""
    run = Supervisor([FIRST, SECOND])
    for name in (FIRST, SECOND, FIRST):
        run.on_exit(name, 1, 0.0)
        run.tick(100.0)
    assert run.on_exit(SECOND, 1, 200.0)[0] == ReportFailure(SECOND, 1)


def test_generator_with_bad_input_ends_the_run_with_2() -> None:
    """Starting it again would change nothing."""
    run = Supervisor([FIRST])
    assert run.on_exit(FIRST, 2, 0.0) == [ReportFailure(FIRST, 2), Terminate(TRAINER)]
    run.on_exit(TRAINER, 0, 1.0)
    assert (run.phase, run.exit_code) == ("over", 2)


@pytest.mark.parametrize(("code", "expected"), [(1, 1), (2, 2), (-9, 137)])
def test_failed_trainer_ends_everything_with_its_code(code: int, expected: int) -> None:
    """A signal counts as 128 and its number, as shells have it."""
    run = Supervisor([FIRST])
    assert run.on_exit(TRAINER, code, 0.0) == [ReportFailure(TRAINER, code), Terminate(FIRST)]
    run.on_exit(FIRST, 0, 1.0)
    assert (run.phase, run.exit_code) == ("over", expected)


def test_generator_that_ended_well_is_not_started_again() -> None:
    """The trainer says stop before its last evaluation, and goes on alone."""
    run = Supervisor([FIRST])
    assert run.on_exit(FIRST, 0, 0.0) == []
    assert run.tick(1000.0) == []
    assert run.phase == "running"
    run.on_exit(TRAINER, 0, 1000.0)
    assert run.phase == "over"


def test_pending_restart_is_dropped_when_the_trainer_ends() -> None:
    """Nothing is started for a run that is over."""
    run = Supervisor([FIRST])
    run.on_exit(FIRST, 1, 0.0)
    run.on_exit(TRAINER, 0, 0.5)
    assert run.tick(100.0) == []
    assert run.phase == "over"


def test_trainer_that_fails_while_stopping_is_reported() -> None:
    """Its checkpoint may be missing, so Ctrl-C must not look like success."""
    run = Supervisor([])
    run.on_stop(0.0)
    assert run.on_exit(TRAINER, 1, 1.0) == [ReportFailure(TRAINER, 1)]
    assert (run.phase, run.exit_code) == ("over", 1)


def test_several_ranks_end_together() -> None:
    """The run is over when all have ended well, in any order; one that fails ends it under its own name."""
    ranks = [TRAINER, "trainer-1"]
    run = Supervisor([FIRST], ranks)
    assert run.on_exit("trainer-1", 0, 0.0) == []
    assert run.phase == "running"
    assert run.on_exit(TRAINER, 0, 1.0) == []
    assert run.phase == "draining"
    failing = Supervisor([FIRST], ranks)
    assert failing.on_exit("trainer-1", -9, 0.0) == [
        ReportFailure("trainer-1", -9),
        Terminate(FIRST),
        Terminate(TRAINER),
    ]
    assert failing.on_exit(TRAINER, 1, 1.0) == [], "it ended because the other one was gone"
    failing.on_exit(FIRST, 0, 1.0)
    assert (failing.phase, failing.exit_code) == ("over", 137)
