"""`streamrep bench NAME`: a benchmark that is told to stop stops."""

import importlib
import os
import signal
import time
from types import SimpleNamespace

import pytest

from launcher.bench import bench


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_benchmark_where_it_stands(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cleans up, the exit code is that of an interrupt, and signals mean what they meant before."""
    cleaned: list[bool] = []

    def measure(words: list[str]) -> int:
        try:
            os.kill(os.getpid(), number)
            time.sleep(30)
        finally:
            cleaned.append(True)
        return 0

    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(main=measure))
    before = signal.getsignal(number)
    began = time.monotonic()
    assert bench(["wire", "--rounds", "1"]) == 130
    assert time.monotonic() - began < 10
    assert cleaned == [True]
    assert signal.getsignal(number) == before
