"""Words after `streamrep`: commands, options, overrides, exit codes."""

from pathlib import Path

import pytest

from launcher.command_line import parse, split
from launcher.main import main
from protocol.errors import UserError


def test_override_values_are_never_taken_for_the_run_file() -> None:
    """Wherever the run file stands between them."""
    command = parse(["up", "--train.lr", "1e-3", "my.toml", "--run.name=x", "--workers", "2"])
    assert command.run_path == Path("my.toml")
    assert command.overrides == ["--train.lr", "1e-3", "--run.name=x"]
    assert command.workers == 2
    assert command.run_words == ["my.toml", "--train.lr", "1e-3", "--run.name=x"]


def test_last_override_without_value_is_kept_for_the_loader_to_refuse() -> None:
    """Splitting judges nothing."""
    assert split(["up", "--train.lr"]) == (["up"], ["--train.lr"])


def test_run_words_parse_to_the_same_run_again() -> None:
    """The trainer of a local run is started with them."""
    command = parse(["up", "a.toml", "--train.lr", "-1"])
    assert parse(["train", *command.run_words]).overrides == command.overrides


@pytest.mark.parametrize(
    "argv", [[], ["train", "--nonsense"], ["up", "--workers", "0"], ["sing"], ["up", "a", "b"]]
)
def test_unreadable_words_are_one_line(argv: list[str]) -> None:
    """As every other bad input, not a page of usage."""
    with pytest.raises(UserError) as caught:
        parse(argv)
    assert "\n" not in str(caught.value)


def test_bad_input_is_one_line_on_stderr_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback, nothing on stdout."""
    assert main(["train", "--train.lr", "fast"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("streamrep: --train.lr: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["up", "train", "generate", "captions"])
def test_help_lists_the_keys_a_command_reads(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own sections only, and no internal option."""
    with pytest.raises(SystemExit) as caught:
        parse([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert ("--train.temperature" in text) == (command in ("up", "train"))
    assert ("--generator.batch_images" in text) == (command in ("up", "generate"))
    assert ("--captions.source" in text) == (command != "generate")
    assert "end-with-stdin" not in text


def test_bench_alone_lists_the_benchmarks(capsys: pytest.CaptureFixture[str]) -> None:
    """And an unknown one is refused with the known ones."""
    assert main(["bench"]) == 0
    assert "retrieval" in capsys.readouterr().out
    assert main(["bench", "speed"]) == 2
    assert "stream, wire, crowd, chaos, fuzz, retrieval, step" in capsys.readouterr().err
