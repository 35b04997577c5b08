"""Local runs with real processes: small scripts stand in for trainer and generators."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.command_line import parse
from launcher.errors import ChildFailedError
from launcher.interrupts import Interrupts
from launcher.processes import Child
from launcher.run_file import load
from launcher.up import check_keys, local_endpoint, monitor_words, supervise, thread_environment, up
from protocol.errors import UserError

WELL = "pass"
UNTIL_TERM = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: exit(0))
print('up', flush=True)
time.sleep(60)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('up', flush=True)
time.sleep(60)
"""


def spawner(scripts: dict[str, str], folder: Path, started: dict[str, list[Child]]) -> Callable[[str], Child]:
    def spawn(name: str) -> Child:
        child = Child([sys.executable, "-c", scripts[name]], {}, folder / f"{name}.log")
        started.setdefault(name, []).append(child)
        return child

    return spawn


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Zombies don't count: their parent may be gone with nobody to collect them."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_run_ends_well_when_the_trainer_does(tmp_path: Path) -> None:
    """Every process is collected, with nothing to report."""
    started: dict[str, list[Child]] = {}
    spawn = spawner({"trainer": WELL, "generator-0": WELL}, tmp_path, started)
    assert supervise(["generator-0"], spawn, Interrupts()) == 0
    assert [child.poll() for children in started.values() for child in children] == [0, 0]


def test_bad_input_of_a_generator_ends_the_run_with_its_line(tmp_path: Path) -> None:
    """And the trainer gets its SIGTERM."""
    started: dict[str, list[Child]] = {}
    bad = "import sys; print('noise'); print('streamrep: generator.model: no such folder'); sys.exit(2)"
    spawn = spawner({"trainer": UNTIL_TERM, "generator-0": bad}, tmp_path, started)
    with pytest.raises(
        ChildFailedError, match=r"generator-0 ended with code 2: generator\.model: no such"
    ) as caught:
        supervise(["generator-0"], spawn, Interrupts())
    assert caught.value.code == 2
    assert started["trainer"][0].poll() is not None


def test_crashed_generator_is_started_again(tmp_path: Path) -> None:
    """Its second life ends well, and so does the run; both lives are in one log."""
    started: dict[str, list[Child]] = {}
    mark = tmp_path / "crashed"
    crash_once = (
        f"import os, pathlib; mark = pathlib.Path({str(mark)!r}); print('life', flush=True)\n"
        "if not mark.exists():\n    mark.touch(); os.abort()\n"
        f"pathlib.Path({str(tmp_path / 'done')!r}).touch()"
    )
    waits = (
        f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'done')!r}).exists(): time.sleep(0.05)"
    )
    spawn = spawner({"trainer": waits, "generator-0": crash_once}, tmp_path, started)
    assert supervise(["generator-0"], spawn, Interrupts()) == 0
    assert [child.poll() for child in started["generator-0"]] == [-signal.SIGABRT, 0]
    assert (tmp_path / "generator-0.log").read_text().count("life") == 2


def test_stop_ends_listening_and_deaf_processes(tmp_path: Path) -> None:
    """One goes at SIGTERM, one is killed after its grace, within 10 s in all."""
    started: dict[str, list[Child]] = {}
    interrupts = Interrupts()
    spawn = spawner({"trainer": UNTIL_TERM, "generator-0": DEAF}, tmp_path, started)

    def stop_when_up() -> None:
        wait_for(lambda: len(list(tmp_path.glob("*.log"))) == 2)
        wait_for(lambda: all("up" in path.read_text() for path in tmp_path.glob("*.log")))
        interrupts.stop.set()
        began.append(time.monotonic())

    began: list[float] = []
    thread = threading.Thread(target=stop_when_up)
    thread.start()
    assert supervise(["generator-0"], spawn, interrupts) == 0
    thread.join()
    assert time.monotonic() - began[0] < 10
    assert started["trainer"][0].poll() == 0
    assert started["generator-0"][0].poll() == -signal.SIGKILL


LAUNCHER = """
import sys
from pathlib import Path
from launcher.interrupts import Interrupts
from launcher.processes import Child
from launcher.up import supervise
folder, script = Path(sys.argv[1]), sys.argv[2]
interrupts = Interrupts()
interrupts.install()
def spawn(name):
    return Child([sys.executable, "-c", script, str(folder / f"{name}.pid")], {}, folder / f"{name}.log")
sys.exit(supervise(["generator-0"], spawn, interrupts))
"""
WATCHES_STDIN = """
import os, sys, time
from launcher.interrupts import Interrupts
interrupts = Interrupts()
interrupts.install()
interrupts.end_with_stdin()
open(sys.argv[1] + ".part", "w").write(str(os.getpid()))
os.rename(sys.argv[1] + ".part", sys.argv[1])
interrupts.stop.wait(60)
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGKILL, -9)]
)
def test_no_process_outlives_the_launcher(tmp_path: Path, repository: Path, number: int, code: int) -> None:
    """Ctrl-C, SIGTERM, and even SIGKILL: its children see their stdin end."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path), WATCHES_STDIN],
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdin=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
        assert all(is_alive(pid) for pid in pids)
        launcher.send_signal(number)
        assert launcher.wait(10) == code
        wait_for(lambda: not any(is_alive(pid) for pid in pids), 10)
    finally:
        launcher.kill()
        launcher.wait()


def test_generators_of_this_machine_are_told_the_bound_port() -> None:
    """Every-address binds are reached over loopback; a port chosen later can't be told."""
    assert local_endpoint(load(None, ["--stream.bind", "tcp://127.0.0.1:6000"])) == "tcp://127.0.0.1:6000"
    opened = load(None, ["--stream.bind", "tcp://0.0.0.0:6000", "--stream.insecure_bind", "true"])
    assert local_endpoint(opened) == "tcp://127.0.0.1:6000"
    with pytest.raises(UserError, match=r"stream\.bind: no fixed port"):
        local_endpoint(load(None, ["--stream.bind", "tcp://127.0.0.1:*"]))


def test_threads_reach_a_child_before_it_imports_torch() -> None:
    """0 leaves the environment as it is."""
    assert thread_environment(2) == {"OMP_NUM_THREADS": "2"}
    assert thread_environment(0) == {}


@pytest.mark.parametrize("side", ["stream", "generator"])
def test_keys_on_one_side_only_are_refused_before_anything_starts(side: str) -> None:
    """Its own generators could never connect."""
    check_keys(load(None))
    check_keys(load(None, ["--stream.keys", "keys", "--generator.keys", "keys/workers/local"]))
    with pytest.raises(UserError, match="streamrep keys worker local"):
        check_keys(load(None, [f"--{side}.keys", "keys"]))


def test_bad_captions_are_told_before_anything_starts(tmp_path: Path) -> None:
    """No folder, no process."""
    captions = tmp_path / "captions.csv"
    captions.write_bytes(b"caption,n\na,1\nb\n")
    words = ["up", "--run.dir", str(tmp_path / "runs"), "--captions.source", str(captions)]
    command = parse(words)
    with pytest.raises(UserError, match="1 in line 3"):
        up(command, command.load(), Interrupts())
    assert not (tmp_path / "runs").exists()


def test_a_stop_while_captions_are_indexed_ends_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder, no process, no index."""
    monkeypatch.setattr("trainer.captions.INDEX_BYTES", 0)
    captions = tmp_path / "captions.txt"
    captions.write_text("one\ntwo\n")
    index = tmp_path / "index"
    words = ["up", "--run.dir", str(tmp_path / "runs"), f"--captions.index={index}"]
    command = parse([*words, "--captions.source", str(captions)])
    interrupts = Interrupts()
    interrupts.stop.set()
    assert up(command, command.load(), interrupts) == 0
    assert not (tmp_path / "runs").exists()
    assert [path for path in index.iterdir() if path.is_dir()] == []


def test_generators_of_one_machine_show_themselves_at_ports_of_their_own() -> None:
    """Counted up from the run file's; none where it names none."""
    run_file = load(None, ["--generator.monitor_bind", "9470"])
    words = [monitor_words(run_file, index) for index in range(3)]
    assert words == [["--generator.monitor_bind", f"127.0.0.1:{port}"] for port in (9470, 9471, 9472)]
    assert monitor_words(load(None, []), 0) == []
    with pytest.raises(UserError, match=r"generator\.monitor_bind: not an address"):
        load(None, ["--generator.monitor_bind", "here"])
