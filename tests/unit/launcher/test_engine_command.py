"""`streamrep engine`, from its words to its lines; the builds themselves are the generator's tests."""

from pathlib import Path

import pytest

from generator_service.engine_cache import EngineCache
from launcher.main import main

RECIPE = {
    "engine": "compile",
    "device": "some CPU",
    "unet": [[[12, 4, 8, 8], [256, 64, 8, 1], "torch.bfloat16"]],
}


def test_engines_are_listed_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the names that the list shows."""
    cache = EngineCache(tmp_path / "engines")
    where = ["--generator.engine_cache", str(cache.root)]
    assert main(["engine", "list", *where]) == 0
    assert capsys.readouterr().out == f"no engines in {cache.root}\n"
    one, _ = cache.make(RECIPE, lambda folder: None, lambda: False)
    two, _ = cache.make(RECIPE | {"threads": 1}, lambda folder: None, lambda: False)
    assert main(["engine", "list", *where]) == 0
    shown = capsys.readouterr().out
    assert one.name in shown
    assert "some CPU, 12x4x8x8, bfloat16" in shown
    assert main(["engine", "clean", *where, "--key", one.name]) == 0
    assert [folder for folder, _ in cache.engines()] == [two]
    assert main(["engine", "clean", *where]) == 0
    assert cache.engines() == []


def test_unknown_words_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 2."""
    assert main(["engine", "destroy"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--engine", "compile", "--compute-capability", "8.9"), "expected --engine tensorrt, got compile"),
        (
            ("--engine", "tensorrt", "--compute-capability", "8"),
            "expected capabilities such as 8.9,12.0, got 8",
        ),
        (("--engine", "xformers"), "invalid choice: 'xformers'"),
    ],
)
def test_a_build_that_makes_no_sense_is_one_line(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], reason: str
) -> None:
    """Before anything is loaded."""
    assert main(["engine", "build", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert reason in err
