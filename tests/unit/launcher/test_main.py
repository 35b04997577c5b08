"""Signals of the command itself, in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import launcher.main as main_module
from launcher.summary import summary_table
from protocol.errors import MalformedMessageError

SLOW_IMPORT = """
import sys, types
class SlowTrainer(types.ModuleType):
    def __getattr__(self, name):
        import time
        print("importing", flush=True)
        time.sleep(1.0)
        def train(config, stop, resolved):
            sys.exit("must not train after a stop")
        return train
sys.modules["trainer.trainer"] = SlowTrainer("trainer.trainer")
sys.modules["trainer.trainer"].__path__ = []
from launcher.main import main
sys.exit(main(["train"]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signal_while_libraries_load_ends_without_traceback(repository: Path, number: int, code: int) -> None:
    """Training does not even begin, and a second signal changes nothing."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_IMPORT],
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (code, "")


def test_module_and_command_are_the_same(repository: Path) -> None:
    """`python -m launcher` answers as `streamrep` does."""
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "train", "--train.lr", "x"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("streamrep: --train.lr: bad value")


def test_summary_is_a_plain_table() -> None:
    """Known keys first and formatted, unknown ones as they are, missing ones left out."""
    table = summary_table(
        {"extra_key": 3, "images_generated": 12345, "recall_at_10": 0.1234, "mean_uses": None}
    )
    assert table.split("\n") == [
        "  images generated       12,345",
        "  mean uses of an image  not measured",
        "  R@10, trained encoder  12.3%",
        "  extra key              3",
    ]


def test_a_failure_with_a_known_reason_is_one_line_and_exit_code_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither bad input nor a defect: the name of the error and its reason, no traceback."""

    def fail(argv: list[str], interrupts: object) -> int:
        raise MalformedMessageError("header", "truncated")

    monkeypatch.setattr(main_module, "_dispatch", fail)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert main_module.main(["train"]) == 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == "streamrep: MalformedMessage: header: truncated\n"
