"""`streamrep generate --gpus`: one generator process a GPU, told of together.

GPUs ─→ supervise ─→ generator cuda:0 → log ─┐
                     generator cuda:1 → log ─┴ Reports ─→ every line with its GPU, and the rate of all
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from generator_service.status_line import rate_of
from launcher.errors import RunFileError
from launcher.interrupts import Interrupts
from launcher.processes import Child
from launcher.run_file import RunFile
from launcher.up import monitor_words, supervise, thread_environment

REPORT_SECONDS = 30.0


def devices_of(gpus: str) -> list[str]:
    """`all` or `0,2` as torch's names of devices. Raises UserError."""
    if gpus == "all":
        import torch

        count = torch.cuda.device_count()
        if count == 0:
            raise _refusal("a machine with CUDA devices", "none", "leave --gpus out to draw on the CPU")
        return [f"cuda:{i}" for i in range(count)]
    parts = gpus.split(",")
    if not all(part.isdecimal() for part in parts) or len({int(part) for part in parts}) < len(parts):
        raise _refusal("`all`, or numbers such as 0,2, each once", gpus, "correct it")
    return [f"cuda:{int(part)}" for part in parts]


def generate_on(
    devices: list[str], run_words: list[str], run_file: RunFile, logs: Path, interrupts: Interrupts
) -> int:
    """Draws on all of them until the trainer says stop or a signal comes; returns the exit code. A process
    that crashes is started again, as by `streamrep up`. Raises ChildFailedError with the reason, UserError.
    """
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFileError(
            "cannot make the folder of logs",
            expected="a folder that can be written",
            got=error.strerror or str(error),
            where=str(logs),
            mend="choose another with --logs",
        ) from error
    paths = {device: logs / f"{device.replace(':', '-')}.log" for device in devices}

    def spawn(device: str) -> Child:
        argv = [sys.executable, "-m", "launcher", "generate", *run_words, "--end-with-stdin"]
        argv += ["--generator.device", device, *monitor_words(run_file, devices.index(device))]
        return Child(argv, thread_environment(run_file.generator.threads), paths[device])

    reports = Reports(paths, lambda text: print(text, flush=True))
    try:
        return supervise(devices, spawn, interrupts, trainers=(), each_turn=reports.turn)
    finally:
        reports.turn()
        reports.close()


class Reports:
    """Follows the logs: what is new in them is said under its device, and the rate of all now and then."""

    def __init__(
        self,
        paths: dict[str, Path],
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """What an earlier process left in a log is not told again."""
        self._say = say
        self._clock = clock
        self._files: dict[str, BinaryIO] = {}
        for device, path in paths.items():
            path.touch()
            self._files[device] = path.open("rb")
            self._files[device].seek(0, 2)
        self._halves = dict.fromkeys(paths, b"")
        self._rates: dict[str, float] = {}
        self._said_at = clock()

    def turn(self) -> None:
        """To be called several times a second."""
        for device, file in self._files.items():
            *lines, self._halves[device] = (self._halves[device] + file.read()).split(b"\n")
            for line in lines:
                self._hear(device, line.decode("utf-8", "replace"))
        if self._rates and self._clock() - self._said_at >= REPORT_SECONDS:
            self._said_at = self._clock()
            self._say(f"together {sum(self._rates.values()):.1f} images/s on {len(self._rates)} GPUs")

    def _hear(self, device: str, line: str) -> None:
        rate = rate_of(line)
        if rate is not None:
            self._rates[device] = rate
        self._say(f"{device}: {line}")

    def close(self) -> None:
        """Closes the logs."""
        for file in self._files.values():
            file.close()


def _refusal(expected: str, got: str, mend: str) -> RunFileError:
    return RunFileError("no such GPUs", expected=expected, got=got, where="--gpus", mend=mend)
