"""`streamrep up`: one trainer and its generators as processes of this machine, and no process left behind.

signals ─stop→ ┐
exit codes ──→ supervisor ─actions→ children (start, SIGTERM, SIGKILL)
clock ───────→ ┘
"""

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from launcher.command_line import Command
from launcher.errors import ChildFailedError, RunFileError
from launcher.interrupts import Interrupts
from launcher.processes import Child
from launcher.rank_environment import rank_environments, trainer_names
from launcher.run_file import RunFile
from launcher.summary import summary_table
from launcher.supervisor import TRAINER, Action, Kill, ReportFailure, Say, Start, Supervisor, Terminate
from monitoring.address import parse_address

POLL_SECONDS = 0.1


def up(command: Command, run_file: RunFile, interrupts: Interrupts) -> int:
    """Runs until the trainer has finished; returns the exit code. Raises ChildFailedError with the reason."""
    check_keys(run_file)
    if not _captions_are_ready(run_file, interrupts):
        return interrupts.exit_code
    folder = _run_folder(run_file)
    trainers = trainer_names(command.ranks)
    spawn = spawner(command.run_words, run_file, folder, rank_environments(trainers))
    workers = 0 if run_file.run.mode == "offline" else command.workers
    generators = [f"generator-{index}" for index in range(workers)]
    code = supervise(generators, spawn, interrupts, trainers)
    if interrupts.stop.is_set():
        ranks = ["--ranks", str(command.ranks)] if command.ranks > 1 else []
        _say(f"stopped; to resume: {shlex.join(['streamrep', 'up', *command.run_words, *ranks])}")
        return code
    summary = folder / "summary.json"
    if summary.exists():
        _say(summary_table(json.loads(summary.read_text("utf-8"))))
    return code


def _captions_are_ready(run_file: RunFile, interrupts: Interrupts) -> bool:
    """Indexed here if they have to be: generators that wait for a trainer meanwhile would give up. Raises
    UserError for captions that can't be read, before anything is started; False after a stop."""
    from trainer.captions import load_captions
    from trainer.errors import StopRequestedError

    try:
        load_captions(run_file.captions, say=_say, stopped=interrupts.stop.is_set)
    except StopRequestedError:
        return False
    return True


def check_keys(run_file: RunFile) -> None:
    """The trainer and its local generators use keys together or not at all. Raises UserError."""
    if bool(run_file.stream.keys) == bool(run_file.generator.keys):
        return
    raise RunFileError(
        "keys on one side only",
        expected="stream.keys and generator.keys, or neither",
        got=f"stream.keys = {run_file.stream.keys!r}, generator.keys = {run_file.generator.keys!r}",
        where="streamrep up",
        mend="make keys for this machine's generators with `streamrep keys worker local` and set"
        " generator.keys = keys/workers/local",
    )


def _run_folder(run_file: RunFile) -> Path:
    """Made here, since the generators' logs may be opened before the trainer is up."""
    folder = Path(run_file.run.dir) / run_file.run.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFileError(
            "cannot make the run folder",
            expected="a folder that can be written",
            got=error.strerror or str(error),
            where=str(folder),
            mend="choose another with --run.dir",
        ) from error
    return folder


def supervise(
    generators: list[str],
    spawn: Callable[[str], Child],
    interrupts: Interrupts,
    trainers: Sequence[str] = (TRAINER,),
    each_turn: Callable[[], None] = lambda: None,
) -> int:
    """Starts every process and carries out the supervisor's actions until none is left; `each_turn` is called
    ten times a second meanwhile."""
    supervisor = Supervisor(generators, trainers)
    children: dict[str, Child] = {}
    failures: list[ReportFailure] = []
    reasons: dict[str, str] = {}

    def carry_out(actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Start(name):
                    children[name] = spawn(name)
                case Terminate(name):
                    children[name].terminate()
                case Kill(name):
                    children[name].kill()
                case Say(text):
                    _say(text)
                case ReportFailure():
                    failures.append(action)

    try:
        carry_out([Start(name) for name in [*trainers, *generators]])
        while supervisor.phase != "over":
            if interrupts.stop.is_set():
                carry_out(supervisor.on_stop(time.monotonic()))
            for name, child in list(children.items()):
                code = child.poll()
                if code is not None:
                    reasons[name] = child.reason()
                    children.pop(name).close()
                    carry_out(supervisor.on_exit(name, code, time.monotonic()))
            carry_out(supervisor.tick(time.monotonic()))
            each_turn()
            time.sleep(POLL_SECONDS)
    finally:
        # Empty unless this very loop failed: nothing may outlive the command.
        for child in children.values():
            child.kill()
            child.close()
    if failures:
        raise ChildFailedError(_reason(failures[0], reasons), supervisor.exit_code)
    return supervisor.exit_code or interrupts.exit_code


def spawner(
    run_words: list[str], run_file: RunFile, folder: Path, trainers: Mapping[str, Mapping[str, str]]
) -> Callable[[str], Child]:
    """A function that starts a process of this run by its name. `trainers`: each with its environment."""
    connect = local_endpoint(run_file)

    def spawn(name: str) -> Child:
        python = [sys.executable, "-m", "launcher"]
        if name in trainers:
            argv = [*python, "train", *run_words, "--end-with-stdin"]
            environment = {**thread_environment(run_file.train.threads), **trainers[name]}
            return Child(argv, environment, None if name == TRAINER else folder / f"{name}.log")
        argv = [*python, "generate", *run_words, "--generator.connect", connect, "--end-with-stdin"]
        argv += monitor_words(run_file, int(name.rpartition("-")[2]))
        return Child(argv, thread_environment(run_file.generator.threads), folder / f"{name}.log")

    return spawn


def monitor_words(run_file: RunFile, index: int) -> list[str]:
    """Gives each generator of this machine a port of its own, counted up from the run file's."""
    bind = run_file.generator.monitor_bind
    if not bind:
        return []
    address = parse_address(bind, "generator.monitor_bind").shifted(index)
    return ["--generator.monitor_bind", str(address)]


def local_endpoint(run_file: RunFile) -> str:
    """Where generators of this machine find the trainer: its bind address, any-address read as loopback."""
    bind = run_file.stream.bind
    host, _, port = bind.removeprefix("tcp://").rpartition(":")
    if bind.startswith("tcp://") and not port.isdigit():
        raise RunFileError(
            "no fixed port",
            expected="tcp://ADDRESS:PORT",
            got=bind,
            where="stream.bind",
            mend="`up` tells generators the port before the trainer has it, so give a number",
        )
    return f"tcp://127.0.0.1:{port}" if host in ("*", "0.0.0.0") else bind


def thread_environment(threads: int) -> Mapping[str, str]:
    """Set before the child imports torch, which reads it once; 0 leaves the choice to the libraries."""
    return {"OMP_NUM_THREADS": str(threads)} if threads else {}


def _reason(failure: ReportFailure, reasons: Mapping[str, str]) -> str:
    how = f"was ended by signal {-failure.code}" if failure.code < 0 else f"ended with code {failure.code}"
    return f"{failure.name} {how}{reasons[failure.name]}"


def _say(text: str) -> None:
    print(text, flush=True)
