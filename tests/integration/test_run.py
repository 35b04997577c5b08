"""Whole runs of the `streamrep` command with the fake engine: what is typed, and what is left on disk."""

import json
import math
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from generator_service.fake import FakeEngine
from launcher.key_folder import KeyFolder
from protocol.generation import GenerationSpec
from protocol.payload import checksum
from trainer.captions import load_captions
from trainer.checkpoint import Checkpoints
from trainer.config import CaptionsConfig
from trainer.plan import Plan

STEPS, BATCH, VIEWS = 12, 8, 3
SPEC = GenerationSpec(views=VIEWS, size=32)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _run_file(tmp_path: Path, **values: Any) -> Path:
    endpoint = f"tcp://127.0.0.1:{_free_port()}"
    tables: dict[str, dict[str, Any]] = {
        "run": {"name": "r", "dir": str(tmp_path / "runs"), "max_steps": STEPS},
        "generation": {"views": VIEWS, "size": 32},
        "stream": {"bind": endpoint},
        "model": {"head_hidden": 32, "head_out": 16},
        "train": {"batch_groups": BATCH, "warmup_steps": 2, "log_every": 2, "checkpoint_every": 5},
        "augment": {"crop_size": 32},
        "generator": {"engine": "fake", "connect": endpoint, "batch_images": 12},
    }
    for key, value in values.items():
        section, name = key.split("__")
        tables.setdefault(section, {})[name] = value
    lines = ["eval.sets = []"]
    for section, fields in tables.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
        if section == "model":
            shape = "embedding_size = 8, hidden_sizes = [8, 16], depths = [1, 1]"
            lines.append(f'encoder = {{ model_type = "resnet", {shape} }}')
    path = tmp_path / "run.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "launcher", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _rows(run: Path) -> list[dict[str, Any]]:
    """The rows of trained steps; those that only tell of a wait stay out."""
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    return [row for row in rows if "loss" in row]


def _query(run: Path, query: str) -> list[Any]:
    db = sqlite3.connect(run / "ledger.sqlite")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def _has_ended(run: Path) -> bool:
    """Whether an event file of TensorBoard has the end of the session."""
    return any(b"_hparams_/session_end_info" in path.read_bytes() for path in (run / "tensorboard").iterdir())


def _wait_for_steps(run: Path, steps: int, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if any(row["step"] >= steps for row in _rows(run)):
            return
        time.sleep(0.1)
    raise AssertionError(f"step {steps} was not reached in {seconds} s")


def _assert_promised_ids(run: Path, steps: int) -> None:
    uses = _query(run, "SELECT group_id, step, use FROM uses")
    assert sorted(group_id for group_id, _, _ in uses) == list(range(steps * BATCH))
    assert {use for _, _, use in uses} == {1}
    assert sorted({step for _, step, _ in uses}) == list(range(1, steps + 1))


def test_up_trains_and_leaves_a_whole_run_folder(tmp_path: Path) -> None:
    """Metrics, ledger, checkpoint, encoder, samples, report; each promised group trained exactly once."""
    process = _start("up", str(_run_file(tmp_path)), "--workers", "2")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    run = tmp_path / "runs" / "r"
    rows = _rows(run)
    assert [row["step"] for row in rows] == list(range(2, STEPS + 1, 2))
    needed = {"time", "loss", "loss_excess", "lr", "images_received", "images_trained", "images_per_second"}
    needed |= {"fresh_fraction", "wait_seconds", "step_seconds"}
    assert all(needed <= row.keys() for row in rows)
    assert rows[-1]["images_trained"] == rows[-1]["images_received"] == STEPS * BATCH * VIEWS
    _assert_promised_ids(run, STEPS)
    _assert_digests_can_be_redrawn(run)
    _assert_commands_redraw(run, tmp_path / "redrawn")
    from transformers import AutoModel

    assert AutoModel.from_pretrained(run / "encoder").config.hidden_sizes == [8, 16]
    assert json.loads((run / "run.json").read_text())["train"]["batch_groups"] == BATCH
    page = (run / "report.html").read_text("utf-8")
    assert "data:image/png;base64," in page
    assert json.loads((run / "summary.json").read_text())["images_generated"] == STEPS * BATCH * VIEWS
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-000000010", "step-000000012"]


def _assert_digests_can_be_redrawn(run: Path) -> None:
    plan = Plan(load_captions(CaptionsConfig()), 0, SPEC)
    engine = FakeEngine(SPEC, batch_images=12, images_per_second=0.0)
    for group_id, digest in _query(run, "SELECT group_id, digest FROM groups WHERE group_id % 17 = 0"):
        [images] = engine.draw([plan.ticket(group_id)], lambda: False)
        assert checksum(images) == digest


def _assert_commands_redraw(run: Path, out: Path) -> None:
    """From the folder alone, by the commands that people type."""
    asked = _start("ledger", str(run), "summary", "--format", "json")
    printed, errors = asked.communicate(timeout=60)
    assert asked.returncode == 0, errors
    assert {row["name"]: row["value"] for row in json.loads(printed)}["groups"] == STEPS * BATCH
    redrawn = _start("regenerate", str(run), "--group", "17", "--out", str(out))
    _, errors = redrawn.communicate(timeout=60)
    assert redrawn.returncode == 0, errors
    assert len(list(out.glob("*.png"))) == VIEWS


def test_up_trains_over_an_encrypted_connection(tmp_path: Path) -> None:
    """With keys for its own generators; no handshake fails, and the promised groups are trained."""
    keys = KeyFolder(tmp_path / "keys")
    keys.make_trainer()
    local = keys.make_worker("local")
    path = _run_file(tmp_path, stream__keys=str(keys.path), generator__keys=str(local), run__max_steps=4)
    process = _start("up", str(path), "--workers", "2")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    run = tmp_path / "runs" / "r"
    assert [reason for row in _rows(run) for reason in row["refused"] if "handshake" in reason] == []
    _assert_promised_ids(run, 4)
    assert json.loads((run / "run.json").read_text("utf-8"))["stream"]["keys"] == str(keys.path)


def test_ctrl_c_ends_both_within_ten_seconds_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """The resumed run completes, and every promised group was trained once over both sessions.

    Only then TensorBoard is told that it ended.
    """
    words = ["up", str(_run_file(tmp_path, generator__fake_images_per_second=60.0))]
    run = tmp_path / "runs" / "r"
    process = _start(*words)
    _wait_for_steps(run, 4)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert process.returncode == 130
    assert not _processes_of(tmp_path)
    stopped_at = max(step for (step,) in _query(run, "SELECT DISTINCT step FROM uses"))
    assert stopped_at < STEPS
    _assert_promised_ids_subset(run, stopped_at)
    assert not _has_ended(run)
    again = _start(*words)
    _, errors = again.communicate(timeout=100)
    assert again.returncode == 0, errors
    _assert_promised_ids(run, STEPS)
    assert _has_ended(run)
    assert [row["step"] for row in _rows(run)] == sorted({row["step"] for row in _rows(run)})


@pytest.mark.parametrize("seconds", [0.3, 1.5, 4.0])
def test_ctrl_c_while_starting_leaves_nothing_behind(tmp_path: Path, seconds: float) -> None:
    """During imports, while the model is built, before the first batch: 130 within 10 s, and no process."""
    process = _start("up", str(_run_file(tmp_path)), "--generator.engine", "eager")
    time.sleep(seconds)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not _processes_of(tmp_path)


def _assert_promised_ids_subset(run: Path, steps: int) -> None:
    ids = [group_id for (group_id,) in _query(run, "SELECT group_id FROM uses")]
    assert len(ids) == len(set(ids)) == steps * BATCH


def _processes_of(tmp_path: Path) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(tmp_path) in line:
                found.append(line)
    return found


def test_a_killed_trainer_resumes_from_its_last_checkpoint(tmp_path: Path) -> None:
    """SIGKILL at any moment; a generator that outlives it goes on with the resumed trainer."""
    path = _run_file(tmp_path, generator__fake_images_per_second=60.0)
    run = tmp_path / "runs" / "r"
    generator = _start("generate", str(path))
    trainer = _start("train", str(path))
    _wait_for_steps(run, 6)
    trainer.kill()
    trainer.communicate(timeout=10)
    trainer = _start("train", str(path))
    _, errors = trainer.communicate(timeout=100)
    assert trainer.returncode == 0, errors
    _assert_promised_ids(run, STEPS)
    _, errors = generator.communicate(timeout=15)
    assert generator.returncode == 0, errors


def _fails_in_one_line(words: list[str]) -> str:
    process = _start(*words)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    lines = [line for line in errors.splitlines() if line.startswith("streamrep: ")]
    assert len(lines) == 1, errors
    assert "Traceback" not in errors
    assert "expected" in lines[0]
    assert "got" in lines[0]
    return lines[0]


@pytest.mark.timeout(300)
def test_a_finished_run_sends_home_generators_that_wait(tmp_path: Path) -> None:
    """The same command again has nothing to do; who waited for it ends with it, instead of minutes later."""
    run_file = _run_file(tmp_path, run__max_steps=3, generator__wait_seconds=240.0)
    process = _start("up", str(run_file))
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    generator = _start("generate", str(run_file))
    assert generator.stdout
    generator.stdout.readline()
    time.sleep(4)  # by now it tries to connect as rarely as it ever does
    trainer = _start("train", str(run_file))
    trainer.communicate(timeout=100)
    try:
        generator.communicate(timeout=15)
    finally:
        generator.kill()
    assert (trainer.returncode, generator.returncode) == (0, 0)
    assert _query(tmp_path / "runs" / "r", "SELECT MAX(step) FROM uses") == [(3,)]


def test_bad_input_is_one_line_and_exit_code_two(tmp_path: Path) -> None:
    """Captions missing, empty, not UTF-8; an unknown key; a model folder that isn't one; a port in use."""
    empty, latin = tmp_path / "empty.txt", tmp_path / "latin.txt"
    empty.write_text("")
    latin.write_bytes(b"caf\xe9\n")
    path = str(_run_file(tmp_path))
    assert "no such file" in _fails_in_one_line(
        ["train", path, "--captions.source", str(tmp_path / "no.txt")]
    )
    assert "an empty file" in _fails_in_one_line(["train", path, "--captions.source", str(empty)])
    assert "0xe9 in line 1" in _fails_in_one_line(["train", path, "--captions.source", str(latin)])
    assert "train.lrr" in _fails_in_one_line(["train", path, "--train.lrr", "1"])
    wrong = ["generate", path, "--generator.engine", "eager", "--generator.model", str(tmp_path)]
    assert str(tmp_path) in _fails_in_one_line(wrong)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        assert endpoint in _fails_in_one_line(["train", path, "--stream.bind", endpoint])


@pytest.mark.timeout(180)
def test_supcon_takes_its_labels_from_the_class_names_in_captions(tmp_path: Path) -> None:
    """Groups of one class are each other's positives; a caption without a class is refused at the door."""
    captions, classes = tmp_path / "captions.txt", tmp_path / "classes.txt"
    captions.write_text("".join(f"a {'fish' if i % 2 else 'rose'} of kind {i}\n" for i in range(40)))
    classes.write_text("rose\nfish\n")
    path = str(_run_file(tmp_path, run__max_steps=4, train__objective="supcon"))
    words = [path, "--captions.source", str(captions), "--captions.classes", str(classes)]
    process = _start("up", *words)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    # The loss less its excess is the mean log of the number of positives: log(2) with captions as labels.
    floors = [row["loss"] - row["loss_excess"] for row in _rows(tmp_path / "runs" / "r")]
    assert len(floors) == 2
    assert min(floors) > math.log(8)
    captions.write_text("a fish\na dog\n")
    line = _fails_in_one_line(["train", *words])
    assert "one of the 2 class names in 'a dog', got none" in line


@pytest.mark.timeout(180)
def test_a_worker_with_another_model_is_turned_away(tmp_path: Path) -> None:
    """Its content hash differs from the run's: exit code 2, one line that names both."""
    path = str(_run_file(tmp_path, run__max_steps=5000))
    trainer, good = _start("train", path), _start("generate", path)
    try:
        _wait_for_steps(tmp_path / "runs" / "r", 2)
        line = _fails_in_one_line(["generate", path, "--generator.engine", "eager"])
        assert "content hash" in line
    finally:
        for process in (trainer, good):
            process.send_signal(signal.SIGTERM)
        assert [process.wait(15) for process in (trainer, good)] == [0, 0]
        for process in (trainer, good):
            process.communicate()


def test_a_loss_that_is_no_number_keeps_the_last_good_weights(tmp_path: Path) -> None:
    """The run ends with its reason and code 1; its checkpoint is of the last whole step, and can be read."""
    path = str(_run_file(tmp_path, train__lr=1e30, train__checkpoint_every=1000))
    generator = _start("generate", path)
    trainer = _start("train", path)
    _, errors = trainer.communicate(timeout=90)
    generator.communicate(timeout=20)
    assert trainer.returncode == 1, errors
    [line] = [line for line in errors.splitlines() if line.startswith("streamrep: ")]
    run = tmp_path / "runs" / "r"
    assert re.match(r"streamrep: NonFiniteLoss: the (loss|gradient) of step \d+ is not finite", line), line
    assert re.search(r"at a learning rate of [\d.e+]+; lower train\.lr; the last good checkpoint is", line), (
        line
    )
    steps = max(step for (step,) in _query(run, "SELECT DISTINCT step FROM uses"))
    latest = Checkpoints(run / "checkpoints", keep=2).latest()
    assert latest is not None
    assert latest[0].step == steps
    assert line.endswith(str(run / "checkpoints" / f"step-{steps:09d}"))
    assert all(torch.isfinite(tensor).all() for tensor in latest[1].values())
