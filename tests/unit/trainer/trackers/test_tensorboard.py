"""Event files for TensorBoard, read back record by record as TensorFlow's format has them."""

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from trainer.samples import Strip
from trainer.trackers.tensorboard import TensorBoardTracker


def events_of(folder: Path) -> Iterator[Any]:
    """A record is its length in 8 bytes, 4 of checksum, the event, 4 of checksum."""
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4


def values_of(folder: Path) -> list[tuple[int, Any]]:
    return [(event.step, value) for event in events_of(folder) for value in event.summary.value]


def test_rows_are_points_of_curves(tmp_path: Path) -> None:
    """Step, wall time and value of each are as logged."""
    tracker = TensorBoardTracker(tmp_path, {"run": {"name": "r"}}, 0)
    tracker.row({"step": 10, "time": 1000.5, "loss": 3.25, "mode": "online"})
    tracker.row({"step": 20, "time": 1001.5, "loss": 1.5})
    tracker.close()
    points = [(step, value.simple_value) for step, value in values_of(tmp_path) if value.tag == "train/loss"]
    assert points == [(10, 3.25), (20, 1.5)]
    times = [event.wall_time for event in events_of(tmp_path) if event.step == 10]
    assert times == [1000.5]


def test_the_run_file_and_the_samples_can_be_looked_at(tmp_path: Path) -> None:
    """The picture is the strip, bit for bit, and the caption lies beside it."""
    image_HWC = np.random.default_rng(0).integers(0, 256, (8, 24, 3), dtype=np.uint8)
    tracker = TensorBoardTracker(tmp_path, {"run": {"name": "r"}}, 0)
    tracker.strips([Strip(group_id=5, caption="a red heart", uses=1, step=40, image_HWC=image_HWC)])
    tracker.close()
    values = values_of(tmp_path)
    texts = [value.tensor.string_val[0].decode() for _, value in values if value.tensor.string_val]
    assert '"name": "r"' in texts[0]
    assert texts[1] == "a red heart"
    (picture,) = [value.image.encoded_image_string for _, value in values if value.image.height]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture))), image_HWC)


def test_a_resumed_run_takes_back_the_points_after_its_checkpoint(tmp_path: Path) -> None:
    """TensorBoard hides what lies after the step that a new file's start names."""
    TensorBoardTracker(tmp_path, {}, 0).close()
    first = {path.name for path in tmp_path.iterdir()}
    TensorBoardTracker(tmp_path, {}, 30).close()
    (new,) = [path for path in tmp_path.iterdir() if path.name not in first]
    folder = tmp_path / "new"
    folder.mkdir()
    new.rename(folder / new.name)
    starts = [event.step for event in events_of(folder) if event.session_log.status == 1]
    assert starts == [31]
