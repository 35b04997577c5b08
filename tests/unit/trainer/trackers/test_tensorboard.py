"""Event files for TensorBoard, read back record by record as TensorFlow's format has them."""

import io
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX.proto.api_pb2 import Status
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from trainer.samples import Strip
from trainer.trackers.config import LogConfig
from trainer.trackers.open import open_trackers
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
    tracker = TensorBoardTracker(tmp_path, "a")
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
    tracker = TensorBoardTracker(tmp_path, "a")
    tracker.begin({"run": {"name": "r"}}, resumed=False)
    tracker.strips([Strip(group_id=5, caption="a red heart", uses=1, step=40, image_HWC=image_HWC)])
    tracker.close()
    values = values_of(tmp_path)
    texts = [value.tensor.string_val[0].decode() for _, value in values if value.tensor.string_val]
    assert '"name": "r"' in texts[0]
    assert texts[1] == "a red heart"
    (picture,) = [value.image.encoded_image_string for _, value in values if value.image.height]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture))), image_HWC)


def _session(folder: Path, resolved: dict[str, Any], step: int, *, finished: bool = False) -> list[Any]:
    """A session of a run that goes on after `step`; what its own event file holds."""
    before = set(folder.rglob("*"))
    with ExitStack() as stack:
        [tracker] = open_trackers(stack, LogConfig(), folder, resolved, step)
        if finished:
            tracker.finished()
    [new] = [path for path in folder.rglob("*") if path.is_file() and path not in before]
    assert new.parent == folder / "tensorboard", "any other folder is another run for TensorBoard"
    new.rename(folder / "moved")
    (folder / "alone").mkdir(exist_ok=True)
    (folder / "moved").rename(folder / "alone" / new.name)
    events = list(events_of(folder / "alone"))
    (folder / "alone" / new.name).rename(new)
    return events


def _plugin_data(events: list[Any]) -> dict[str, Any]:
    """What the HParams plugin reads: messages in the metadata of summaries, by their tags."""
    return {
        value.tag: HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for event in events
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "hparams"
    }


def test_a_resumed_run_takes_back_the_points_after_its_checkpoint(tmp_path: Path) -> None:
    """TensorBoard hides what lies after the step that a new file's start names."""
    assert [event for event in _session(tmp_path, {}, 0) if event.session_log.status == 1] == []
    starts = [event.step for event in _session(tmp_path, {}, 30) if event.session_log.status == 1]
    assert starts == [31]


def test_the_run_file_is_hyperparameters_of_the_runs_own_folder(tmp_path: Path) -> None:
    """As a session of the HParams plugin, whose metrics are the curves of the folder that it lies in.

    An experiment would hold for all runs, whatever keys theirs have.
    """
    resolved = {
        "run": {"name": "r", "max_steps": 20},
        "model": {"encoder": {"model_type": "vit", "depths": [1, 2]}},
        "train": {"lr": 1e-3, "compile": False},
        "log": {"tensorboard": True},
    }
    data = _plugin_data(_session(tmp_path, resolved, 0))
    assert list(data) == ["_hparams_/session_start_info"]
    found = data["_hparams_/session_start_info"].session_start_info.hparams
    kinds = {
        name: (value.WhichOneof("kind"), getattr(value, value.WhichOneof("kind")))
        for name, value in found.items()
    }
    assert kinds == {
        "run.name": ("string_value", "r"),
        "run.max_steps": ("number_value", 20.0),
        "model.encoder.model_type": ("string_value", "vit"),
        "model.encoder.depths": ("string_value", "[1, 2]"),
        "train.lr": ("number_value", 1e-3),
        "train.compile": ("bool_value", False),
    }


def test_only_a_finished_run_is_a_session_with_success(tmp_path: Path) -> None:
    """One that was stopped goes on some day."""
    assert "_hparams_/session_end_info" not in _plugin_data(_session(tmp_path, {}, 0))
    end = _plugin_data(_session(tmp_path, {}, 30, finished=True))["_hparams_/session_end_info"]
    assert end.session_end_info.status == Status.Value("STATUS_SUCCESS")
