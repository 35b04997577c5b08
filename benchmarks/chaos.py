"""What is left of a run's promise when its processes are killed, stopped and started at random.

    every 2 s    SIGKILL to one of the workers, and a new one in its place
    meanwhile    SIGSTOP to another, SIGCONT some seconds later
    5 times      SIGKILL to the trainer, a moment after it has made progress, and the same command again

With `max_reuse = 1` exactly the first max_steps x batch_groups ids are promised, each once. The ledger of the
finished run is held to that, its digests to groups drawn here, and its last step to the checkpoint's.

Usage: streamrep bench chaos [--seconds 600] [--seed 0] [--keep DIR]
"""

import argparse
import json
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environment import environment
from generator_service.fake import FakeEngine
from protocol.generation import GenerationSpec
from protocol.payload import checksum
from trainer.captions import load_captions
from trainer.checkpoint import Checkpoints
from trainer.config import CaptionsConfig
from trainer.plan import Plan

RESULT = Path("benchmarks/results/chaos.json")
WORKERS = 3
TRAINER_KILLS = 5
KILL_SECONDS = 2.0
PAUSE_SECONDS = (0.5, 8.0)
"""Up to more than the silence after which a worker counts as gone."""
BATCH_GROUPS, VIEWS, SIZE = 8, 3, 32
IMAGES_PER_SECOND = 32.0
"""Of each worker: slow enough that a kill finds groups half drawn, and that the run outlasts the chaos."""
STEPS_PER_SECOND = 2.0
"""Steps that the run is given for each second of chaos: half of what unharmed workers would draw."""
PATIENCE_SECONDS = 240.0
"""For the run to end once nothing is broken any more."""


def main(argv: Sequence[str]) -> int:
    """Breaks a run, lets it finish, and counts; exit code 1 if anything was lost, doubled or wrong."""
    parser = argparse.ArgumentParser(
        prog="streamrep bench chaos", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="of breaking things")
    parser.add_argument("--seed", type=int, default=0, help="of what is broken when")
    parser.add_argument("--keep", type=Path, help="folder for the run; by default a temporary one")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        chaos = Chaos(folder, options.seconds, random.Random(options.seed))
        try:
            chaos.run()
        finally:
            chaos.kill_all()
        result = chaos.verdict()
    result["environment"] = environment()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in result.items() if key != "environment"}))
    print(f"written to {options.out}")
    kept = not (result["lost"] or result["doubled"] or result["unpromised"] or result["wrong_pixels"])
    return 0 if kept and result["checkpoint_step"] == result["steps"] else 1


@dataclass(kw_only=True)
class Child:
    """A process that was started."""

    process: "subprocess.Popen[bytes]"
    goes_on_at: float = 0.0
    """When a stopped one gets its SIGCONT; 0 for one that runs."""


@dataclass
class Chaos:
    """One run, and what is done to it."""

    folder: Path
    seconds: float
    random: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    trainer: Child | None = None
    workers: list[Child] = field(default_factory=list)

    def run(self) -> None:
        """Until the run has ended. Raises TimeoutError if it does not, RuntimeError if it fails."""
        self.steps = max(20, round(self.seconds * STEPS_PER_SECOND))
        self._write_run_file()
        self.trainer = self._start("train")
        self.workers = [self._start("generate") for _ in range(WORKERS)]
        began = shown = time.monotonic()
        next_kill, seen, kill_trainer_at = began + KILL_SECONDS, 0, 0.0
        while self.trainer.process.poll() is None:
            now, step = time.monotonic(), self._step()
            if now - began < self.seconds or self.counts["trainer_kills"] < TRAINER_KILLS:
                if now >= next_kill:
                    next_kill = now + KILL_SECONDS
                    self._kill_a_worker()
                    self._stop_a_worker(now)
                due = self.counts["trainer_kills"] * self.seconds / TRAINER_KILLS
                if step > seen and not kill_trainer_at and now - began >= due:
                    kill_trainer_at = now + self.random.uniform(0.0, 1.0)
                if (
                    kill_trainer_at
                    and now >= kill_trainer_at
                    and self.counts["trainer_kills"] < TRAINER_KILLS
                ):
                    self._kill_the_trainer()
                    seen, kill_trainer_at = self._step(), 0.0
            elif now - began > self.seconds + PATIENCE_SECONDS:
                raise TimeoutError(
                    f"step {step} of {self.steps} after {now - began:.0f} s; see {self.folder}"
                )
            self._wake(now)
            if now - shown >= 5:
                shown = now
                print(f"{now - began:.0f} s, step {step} of {self.steps}, {dict(self.counts)}", flush=True)
            time.sleep(0.02)
        if self.trainer.process.returncode != 0:
            raise RuntimeError(
                f"the trainer ended with code {self.trainer.process.returncode}:\n{self._log()}"
            )
        self.seconds_taken = time.monotonic() - began

    def kill_all(self) -> None:
        """Leaves no process behind."""
        for child in [*self.workers, *([self.trainer] if self.trainer else [])]:
            child.process.send_signal(signal.SIGCONT)
            child.process.kill()
            child.process.wait()

    def verdict(self) -> dict[str, Any]:
        """What the ledger says of the promise."""
        run = self.folder / "runs" / "chaos"
        db = sqlite3.connect(run / "ledger.sqlite")
        uses = Counter(group_id for (group_id,) in db.execute("SELECT group_id FROM uses"))
        digests = dict(db.execute("SELECT group_id, digest FROM groups"))
        steps = db.execute("SELECT COUNT(DISTINCT step) FROM uses").fetchone()[0]
        db.close()
        promised = set(range(self.steps * BATCH_GROUPS))
        plan = Plan(load_captions(CaptionsConfig()), 0, GenerationSpec(views=VIEWS, size=SIZE))
        engine = FakeEngine(plan.spec, batch_images=VIEWS, images_per_second=0.0)
        wrong = [
            group_id
            for group_id, digest in digests.items()
            if checksum(engine.draw([plan.ticket(group_id)], lambda: False)[0]) != digest
        ]
        latest = Checkpoints(run / "checkpoints", keep=2).latest()
        return {
            "question": "groups lost, doubled or wrong after kills, pauses and resumes",
            "steps": steps,
            "promised": len(promised),
            "lost": len(promised - uses.keys()),
            "doubled": sum(1 for count in uses.values() if count > 1),
            "unpromised": len(uses.keys() - promised),
            "wrong_pixels": len(wrong),
            "checkpoint_step": latest[0].step if latest else None,
            "seconds": self.seconds_taken,
            **self.counts,
        }

    def _write_run_file(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            endpoint = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        shape = "embedding_size = 8, hidden_sizes = [8, 16], depths = [1, 1]"
        runs = json.dumps(str(self.folder / "runs"))
        (self.folder / "run.toml").write_text(
            f"""eval.sets = []
            run = {{ name = "chaos", dir = {runs}, max_steps = {self.steps} }}
            generation = {{ views = {VIEWS}, size = {SIZE} }}
            stream = {{ bind = "{endpoint}", max_reuse = 1 }}
            model = {{ head_hidden = 32, head_out = 16, encoder = {{ model_type = "resnet", {shape} }} }}
            train = {{ batch_groups = {BATCH_GROUPS}, warmup_steps = 2, log_every = 1, checkpoint_every = 5 }}
            augment = {{ crop_size = {SIZE} }}
            [generator]
            engine = "fake"
            connect = "{endpoint}"
            batch_images = {4 * VIEWS}
            fake_images_per_second = {IMAGES_PER_SECOND}
            wait_seconds = 600
            """,
            encoding="utf-8",
        )

    def _start(self, command: str) -> Child:
        self.counts[f"{command}_starts"] += 1
        with open(self.folder / f"{command}.log", "ab") as log:
            words = [sys.executable, "-m", "launcher", command, str(self.folder / "run.toml")]
            return Child(process=subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _kill_a_worker(self) -> None:
        place = self.random.randrange(len(self.workers))
        worker = self.workers[place].process
        self.counts["worker_kills"] += worker.poll() is None
        worker.kill()
        worker.wait()
        self.workers[place] = self._start("generate")

    def _stop_a_worker(self, now: float) -> None:
        running = [worker for worker in self.workers if not worker.goes_on_at]
        worker = self.random.choice(running) if running else None
        if worker is not None and worker.process.poll() is None:
            worker.process.send_signal(signal.SIGSTOP)
            worker.goes_on_at = now + self.random.uniform(*PAUSE_SECONDS)
            self.counts["worker_pauses"] += 1

    def _wake(self, now: float) -> None:
        for worker in self.workers:
            if worker.goes_on_at and now >= worker.goes_on_at:
                worker.process.send_signal(signal.SIGCONT)
                worker.goes_on_at = 0.0

    def _kill_the_trainer(self) -> None:
        assert self.trainer is not None
        self.trainer.process.kill()
        self.trainer.process.wait()
        self.counts["trainer_kills"] += 1
        self.trainer = self._start("train")

    def _step(self) -> int:
        """The last step that metrics.jsonl tells of."""
        path = self.folder / "runs" / "chaos" / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return int(json.loads(lines[-1])["step"]) if lines else 0

    def _log(self) -> str:
        return (self.folder / "train.log").read_text("utf-8", errors="replace")[-2000:]
