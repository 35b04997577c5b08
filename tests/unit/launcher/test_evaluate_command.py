"""`streamrep eval`: from the words to a table and files, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launcher.main import main
from trainer.encoder import build_encoder

ENCODER = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}


@pytest.fixture(name="run")
def finished_run(tmp_path: Path) -> Path:
    """A run folder with its encoder, and beside it a set of two plain colours."""
    build_encoder(ENCODER, 16, 0).save(tmp_path / "run" / "encoder")
    (tmp_path / "run" / "run.json").write_text(json.dumps({"augment": {"crop_size": 16}}))
    for split in ("train", "test"):
        for name, colour in (("dark", 20), ("light", 230)):
            for number in range(12):
                path = tmp_path / "set" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.full((20, 20, 3), colour + number, np.uint8)
                Image.fromarray(pixels).save(path)
    return tmp_path / "run"


def test_a_run_is_judged_on_a_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results lie in the run's folder, with the size of the run's crops; the table is printed.

    Without --kind it is what can be done: two classes are too few for few-shot, and there is no text tower.
    """
    words = ["eval", str(run), "--data", str(run.parent / "set"), "--cache", str(run.parent / "cache")]
    words += [
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--threads",
        "1",
        "--k",
        "3",
    ]
    assert main(words) == 0
    told = json.loads((run / "evaluations" / "set" / "results.json").read_text("utf-8"))
    assert [row["kind"] for row in told["results"]] == ["retrieval", "knn", "linear"]
    assert [row["scores"]["accuracy"] for row in told["results"][1:]] == [1.0, 1.0]
    assert told["pictures"] == {"train": 24, "test": 24}
    printed = capsys.readouterr().out
    assert "worst_class 100.0%" in printed
    assert "chosen on a tenth of train" in printed


def test_a_second_set_makes_a_table_of_both(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each judged when it was asked for; the means are over both, and lie beside the sets."""
    (run.parent / "set").rename(run.parent / "first")
    shutil.copytree(run.parent / "first", run.parent / "second")
    words = ["--kind", "knn", "--cache", str(run.parent / "cache"), "--device", "cpu", "--threads", "1"]
    assert main(["eval", str(run), "--data", str(run.parent / "first"), *words]) == 0
    assert not (run / "evaluations" / "sets.json").exists()
    assert main(["eval", str(run), "--data", str(run.parent / "second"), *words]) == 0
    told = json.loads((run / "evaluations" / "sets.json").read_text("utf-8"))
    assert told["rows"] == [{"name": "knn", "by_set": {"first": 1.0, "second": 1.0}, "mean": 1.0}]
    elsewhere = str(run.parent / "elsewhere" / "out")
    assert main(["eval", str(run), "--data", str(run.parent / "first"), "--out", elsewhere, *words]) == 0
    assert [path.name for path in (run.parent / "elsewhere").iterdir()] == ["out"]
    assert "knn  first 100.0%  second 100.0%  mean 100.0%" in capsys.readouterr().out


def test_scores_reach_the_trackers_of_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that can't be reached is told, and ends nothing; an encoder's folder alone has none."""
    tables = {"augment": {"crop_size": 16}, "log": {"tensorboard": True}}
    (run / "run.json").write_text(json.dumps(tables))
    (run / "tensorboard").mkdir()
    words = ["--data", str(run.parent / "set"), "--kind", "knn", "--cache", str(run.parent / "cache")]
    words += ["--device", "cpu", "--threads", "1"]
    assert main(["eval", str(run), *words]) == 0
    assert "step is not known" in capsys.readouterr().err
    (run / "summary.json").write_text(json.dumps({"steps": 30}))
    assert main(["eval", str(run / "encoder"), *words]) == 0
    assert list((run / "tensorboard").iterdir()) == []
    assert main(["eval", str(run), *words]) == 0
    [file] = (run / "tensorboard").iterdir()
    assert b"evaluation/set/knn/accuracy" in file.read_bytes()
    assert capsys.readouterr().err.count("step is not known") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no such run"),
        (["RUN", "--kind", "knn,magic"], "got magic"),
        (["RUN", "--variant", "dirty"], "got dirty"),
        (["RUN", "--templates", "nowhere"], "no templates"),
        (["RUN", "--data", "nowhere"], "no such set"),
        (["RUN", "--k", "0"], "expected an integer >= 1"),
        (["RUN", "--temperature", "0"], "expected a number > 0"),
    ],
)
def test_bad_words_are_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """And exit code 2."""
    cache = ["--cache", str(run.parent / "cache")]
    try:
        code = main(["eval", *(str(run) if word == "RUN" else word for word in words), *cache])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_run_without_an_encoder_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has not finished yet."""
    (run / "encoder" / "config.json").unlink()
    assert main(["eval", str(run)]) == 2
    assert "finish the run first" in capsys.readouterr().err
