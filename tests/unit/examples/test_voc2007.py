"""VOC 2007 from its own files: the set that `streamrep eval` opens is the one that they describe."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.evaluation.open_set import open_set

SCRIPT = Path(__file__).resolve().parents[3] / "examples" / "sets" / "voc2007.py"
MARKS = {
    "train": {"000012": {"car": 1, "dog": -1}, "000017": {"car": 1, "dog": 1}},
    "val": {"000005": {"car": -1, "dog": 0}},
    "test": {"000001": {"car": 0, "dog": 1}, "000002": {"car": -1, "dog": -1}},
}


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    folder = tmp_path / "VOC2007"
    (folder / "JPEGImages").mkdir(parents=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for split, pictures in MARKS.items():
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in pictures))
        for label in ("car", "dog"):
            lines = "".join(f"{name} {marks[label]:2d}\n" for name, marks in pictures.items())
            (folder / "ImageSets" / "Main" / f"{label}_{split}.txt").write_text(lines)
        for name in pictures:
            Image.fromarray(np.full((8, 8, 3), int(name), np.uint8)).save(
                folder / "JPEGImages" / f"{name}.jpg"
            )
    # Neither of these is a split of the protocol.
    (folder / "ImageSets" / "Main" / "car_trainval.txt").write_text("000099  1\n")
    (folder / "ImageSets" / "Main" / "trainval.txt").write_text("000099\n")
    return folder


def make(devkit: Path, out: Path) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, str(SCRIPT), str(devkit), str(out)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def test_the_set_is_what_its_files_say(devkit: Path, tmp_path: Path) -> None:
    """Marks of 1 alone are classes; a picture of none stays; a second call changes nothing."""
    for _ in range(2):
        assert make(devkit, tmp_path / "set").returncode == 0
        data = open_set(str(tmp_path / "set"), tmp_path / "cache")
        assert list(data.classes) == ["car", "dog"]
        for split, some in (("train", data.train), ("val", data.validation), ("test", data.test)):
            assert some is not None
            assert some.classes_NC is not None
            expected = [[mark == 1 for mark in marks.values()] for marks in MARKS[split].values()]
            assert some.classes_NC.tolist() == expected
            numbers = [int(some.read(row).mean().round()) for row in range(len(some))]
            assert numbers == [int(name) for name in MARKS[split]]


def test_a_devkit_without_its_test_archive_is_one_line(devkit: Path, tmp_path: Path) -> None:
    """And leaves no table, which would be a smaller set."""
    (devkit / "JPEGImages" / "000002.jpg").unlink()
    made = make(devkit, tmp_path / "set")
    assert made.returncode == 1
    assert "000002.jpg: No such file" in made.stderr
    assert made.stderr.count("\n") == 1
    assert not (tmp_path / "set" / "labels.csv").exists()
