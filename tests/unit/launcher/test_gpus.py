"""Several generators told of together: which devices, and what people read."""

from pathlib import Path

import pytest
import torch

from generator_service.status_line import rate_of, status_line
from launcher.gpus import REPORT_SECONDS, Reports, devices_of
from protocol.errors import UserError


def test_devices_are_all_or_those_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """In torch's names, in the order given."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices_of("all") == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices_of("2,0") == ["cuda:2", "cuda:0"]


@pytest.mark.parametrize("gpus", ["0,0", "one", "", "-1", "0,,1", "1,01"])
def test_what_names_no_devices_is_refused(gpus: str) -> None:
    """In one line."""
    with pytest.raises(UserError, match="--gpus: no such GPUs: expected `all`, or numbers"):
        devices_of(gpus)


def test_all_of_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without CUDA draws without the option."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="leave --gpus out"):
        devices_of("all")


def test_a_status_line_is_read_back_and_no_other() -> None:
    """With what was dropped, and without."""
    assert rate_of(status_line(12.34, 5, {})) == 12.3
    assert rate_of(status_line(0.0, 0, {"header": 2})) == 0.0
    assert rate_of("streamrep: 12.3 images/s, 4 groups sent") is None
    assert rate_of("eager engine, static batch of 48 images") is None


def test_lines_come_with_their_gpu_and_rates_are_added_up(tmp_path: Path) -> None:
    """Whole lines alone, new ones alone, and the sum of the newest rates every 30 seconds."""
    paths = {device: tmp_path / device for device in ("cuda:0", "cuda:1")}
    paths["cuda:0"].write_text("of an earlier run\n", "utf-8")
    said: list[str] = []
    now = [0.0]
    reports = Reports(paths, said.append, clock=lambda: now[0])
    with paths["cuda:0"].open("a", encoding="utf-8") as first, paths["cuda:1"].open("a") as second:
        first.write("looking for a trainer\n10.0 images/s, 3 gro")
        first.flush()
        reports.turn()
        assert said == ["cuda:0: looking for a trainer"]
        first.write("ups sent\n")
        second.write("20.5 images/s, 6 groups sent\n21.5 images/s, 9 groups sent\n")
        first.flush()
        second.flush()
    reports.turn()
    assert said[1:] == [
        "cuda:0: 10.0 images/s, 3 groups sent",
        "cuda:1: 20.5 images/s, 6 groups sent",
        "cuda:1: 21.5 images/s, 9 groups sent",
    ]
    now[0] = REPORT_SECONDS
    reports.turn()
    reports.turn()
    assert said[4:] == ["together 31.5 images/s on 2 GPUs"]
    reports.close()
