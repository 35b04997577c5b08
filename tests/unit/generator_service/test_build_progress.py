"""What is said of a build while it goes on."""

import threading
import time

import pytest

from generator_service.build_progress import BuildProgress


def test_a_long_build_is_told_of_with_its_step() -> None:
    """Until it ends, with its seconds."""
    said: list[str] = []
    heard = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        if "step 2 of 3" in text:
            heard.set()

    with BuildProgress(say, "plan", every_seconds=0.01) as progress:
        progress.at("step 2 of 3")
        assert heard.wait(10)
    ended = len(said)
    assert said[0] == "plan: building"
    assert "plan: 0 s, step 2 of 3" in said
    assert said[-1] == "plan: built in 0 s"
    time.sleep(0.05)
    assert len(said) == ended


def test_a_failed_build_is_not_said_to_be_built() -> None:
    """The error says the rest."""
    said: list[str] = []
    with pytest.raises(RuntimeError), BuildProgress(said.append, "plan"):
        raise RuntimeError
    assert said == ["plan: building"]
