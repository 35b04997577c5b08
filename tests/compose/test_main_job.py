"""`docker compose up` as it is typed: keys, the embedded model, an encoder, and an end by itself."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from launcher.run_file import load

pytestmark = [pytest.mark.compose, pytest.mark.timeout(400)]

STEPS, GROUPS = 6, 8
TRAINS_WITHIN_SECONDS = 180


def test_up_trains_on_images_of_the_embedded_model_and_ends(
    project: Any, tmp_path: Path, uses_of: Callable[[Path], list[Any]]
) -> None:
    """Within 3 minutes it has trained on fresh images. Every container ends with 0 by itself; a second `up`
    finds nothing to do, and makes no new keys.
    """
    project.environ(STREAMREP_RUN_FILE="")
    project.set(
        run__name="r",
        run__max_steps=STEPS,
        stream__max_reuse=1,
        train__batch_groups=GROUPS,
        train__warmup_steps=2,
        eval__sets=[],
    )
    project.compose("up", seconds=TRAINS_WITHIN_SECONDS)
    project.assert_ended({"keys-1": 0, "trainer-1": 0, "generator-1": 0})
    run = project.take_run(tmp_path / "first")
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    assert (summary["steps"], summary["groups_trained"], summary["fresh_share"]) == (STEPS, STEPS * GROUPS, 1)
    assert (run / "encoder" / "model.safetensors").exists()
    assert (run / "report.html").exists()
    uses = uses_of(run)
    assert sorted(group_id for _, group_id in uses) == list(range(STEPS * GROUPS))
    with closing(sqlite3.connect(run / "ledger.sqlite")) as db:
        assert db.execute("SELECT COUNT(DISTINCT digest) FROM groups").fetchone() == (STEPS * GROUPS,)
    keys = _keys(project, tmp_path / "keys")

    project.compose("up", seconds=300)
    project.assert_ended({"keys-1": 0, "trainer-1": 0, "generator-1": 0})
    assert uses_of(project.take_run(tmp_path / "second")) == uses
    assert _keys(project, tmp_path / "keys again") == keys


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_default_run_ends_as_make_up_does(project: Any, tmp_path: Path) -> None:
    """Nothing set but its name: all steps, an encoder that finds drawings at least twice as often as it did
    untrained, and a report.
    """
    project.environ(STREAMREP_RUN_FILE="")
    project.set(run__name="r")
    project.compose("up", seconds=1700)
    project.assert_ended({"keys-1": 0, "trainer-1": 0, "generator-1": 0})
    run = project.take_run(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    print(json.dumps(summary, indent=2))
    assert summary["steps"] == load(None, []).run.max_steps
    assert summary["recall_at_10"] >= 2 * summary["recall_at_10_untrained"]
    assert (run / "encoder" / "model.safetensors").exists()
    assert (run / "report.html").exists()


def _keys(project: Any, folder: Path) -> dict[str, bytes]:
    project.compose("cp", "trainer:/keys/trainer", str(folder))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_image_runs_as_nobody_with_a_cpu_build_and_no_tools(project: Any, image: str) -> None:
    """Neither compiler nor CUDA nor pip in what is installed, and the code can't be changed from within."""
    script = """
import importlib.util, json, os, shutil, torch
print(json.dumps({
    "user": os.getuid(),
    "cuda": torch.version.cuda,
    "tools": [name for name in ("cc", "gcc", "g++", "clang", "make", "git") if shutil.which(name)],
    "pip": importlib.util.find_spec("pip") is not None,
    "writable": [path for path in ("/app", "/opt/streamrep", "/", "/etc") if os.access(path, os.W_OK)],
    "volumes": [p for p in ("/runs", "/engines", "/pools", "/keys/trainer") if not os.access(p, os.W_OK)],
}))
"""
    told = json.loads(
        project.docker(
            *("run", "--rm", "--name", f"{project.name}-beside", "--network", "none"),
            *("--entrypoint", "python", image, "-c", script),
        )
    )
    assert told == {"user": 10001, "cuda": None, "tools": [], "pip": False, "writable": [], "volumes": []}
