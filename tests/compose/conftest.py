"""Compose projects of the repository's own files: a random name, a short run, and nothing left behind."""

import json
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

PREFIX = "streamrep-test"
RUN_FILE = """
eval.sets = []
[run]
name = "r"
[generation]
views = 3
size = 32
[model]
head_hidden = 32
head_out = 16
encoder = { model_type = "resnet", embedding_size = 8, hidden_sizes = [8, 16], depths = [1, 1] }
[train]
batch_groups = 8
warmup_steps = 2
log_every = 1
checkpoint_every = 10
[augment]
crop_size = 32
[generator]
engine = "fake"
batch_images = 12
"""
KILL_THE_COMMAND = """
import os, pathlib, signal
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    words = (folder / "cmdline").read_bytes().split(b"\\0")
    if words[:3] == [b"python", b"-m", b"launcher"]:
        os.kill(int(folder.name), signal.SIGKILL)
"""
GET = "import sys, urllib.request; sys.stdout.write(urllib.request.urlopen(sys.argv[1]).read().decode())"


class Project:
    """One project of `docker compose` with its containers, networks and volumes."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.name = f"{PREFIX}-{secrets.token_hex(4)}"
        self.files = folder / "files"
        self.files.mkdir()
        self.files.chmod(0o755)  # the containers' user is another one
        (self.files / "run.toml").write_text(RUN_FILE, "utf-8")
        self._repository = repository
        self._settings = folder / "settings.env"
        self._overrides: tuple[str, ...] = ()
        foreign = ("STREAMREP_", "COMPOSE_", "PROMETHEUS_", "GRAFANA_")
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
            "COMPOSE_ANSI": "never",
            "COMPOSE_PROGRESS": "quiet",
            "STREAMREP_FILES": str(self.files),
            "STREAMREP_RUN_FILE": "run.toml",
            "STREAMREP_ENV_FILE": str(self._settings),
        }

    def set(self, **values: Any) -> None:
        """Keys of the run, for every container started from now on: `run__max_steps=4`."""
        lines = [f"STREAMREP_{key.upper()}={_text(value)}" for key, value in values.items()]
        self._settings.write_text("\n".join(lines) + "\n", "utf-8")

    def environ(self, **variables: str) -> None:
        """Variables of `docker compose` itself."""
        self._environment |= variables

    def layer(self, *overrides: str) -> None:
        """The files on top of docker-compose.yml from now on."""
        self._overrides = overrides

    def compose(self, *words: str, seconds: float = 120.0, check: bool = True) -> str:
        """stdout of `docker compose WORDS`; AssertionError with all of its output where it fails."""
        files = [part for name in ("docker-compose.yml", *self._overrides) for part in ("-f", name)]
        return self._docker("compose", "-p", self.name, *files, *words, seconds=seconds, check=check)

    def docker(self, *words: str, seconds: float = 60.0, check: bool = True) -> str:
        """The same of `docker WORDS`."""
        return self._docker(*words, seconds=seconds, check=check)

    def python(self, service: str, *words: str, check: bool = True) -> str:
        """stdout of `python -c WORDS` in the first container of a service."""
        return self.compose("exec", "-T", service, "python", "-c", *words, check=check)

    def kill_command(self, service: str) -> None:
        """SIGKILL from within, which Docker takes for a crash, as it does not a `docker kill`."""
        self.python(service, KILL_THE_COMMAND, check=False)

    def containers(self) -> list[dict[str, Any]]:
        """`docker inspect` of every container of the project, ended ones included."""
        ids = self.docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={self.name}").split()
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", *ids)) if ids else []
        return found

    def of_service(self, service: str) -> list[dict[str, Any]]:
        """Those of one service, by number."""
        label = "com.docker.compose.container-number"
        return sorted(
            (one for one in self.containers() if _labels(one)["com.docker.compose.service"] == service),
            key=lambda one: int(_labels(one)[label]),
        )

    def exit_codes(self) -> dict[str, int]:
        """Of containers that have ended, by name without the project's."""
        return {
            one["Name"].removeprefix(f"/{self.name}-"): one["State"]["ExitCode"]
            for one in self.containers()
            if one["State"]["Status"] == "exited"
        }

    def assert_ended(self, codes: dict[str, int]) -> None:
        """That these containers there are, and that all of them ended with these codes."""
        assert len(self.containers()) == len(codes)
        assert self.exit_codes() == codes, self.compose("logs", "--tail", "20")

    def get(self, service: str, page: str) -> str:
        """A page of a service, asked for from within."""
        return self.python(service, GET, f"http://127.0.0.1:9464/{page}")

    def rows(self) -> list[dict[str, Any]]:
        """All whole rows of the running trainer's metrics.jsonl so far; none while it is down."""
        text = self.compose("exec", "-T", "trainer", "cat", "/runs/r/metrics.jsonl", check=False)
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def wait_for(self, holds: Callable[[dict[str, Any]], bool], seconds: float = 120.0) -> dict[str, Any]:
        """The newest row, as soon as it holds; an AssertionError with logs after so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            rows = self.rows()
            if rows and holds(rows[-1]):
                return rows[-1]
            time.sleep(0.3)
        raise AssertionError(f"no such row in {seconds} s:\n{self.compose('logs', '--tail', '20')}")

    def take_run(self, folder: Path) -> Path:
        """A copy of the run's folder; to be taken while no trainer writes it."""
        self.compose("cp", "trainer:/runs/r", str(folder))
        return folder

    def remove(self) -> None:
        """Containers, networks and volumes, those that were only run beside the project included."""
        beside = self.docker("ps", "-aq", "--filter", f"name=^{self.name}-beside").split()
        if beside:
            self.docker("rm", "-f", *beside)
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "1")

    def _docker(self, *words: str, seconds: float, check: bool) -> str:
        done = subprocess.run(
            ["docker", *words],
            cwd=self._repository,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _labels(container: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = container["Config"]["Labels"]
    return labels


@pytest.fixture(scope="session")
def image(repository: Path) -> str:
    """The image of this checkout. `make test-compose` has built it, so that here it comes from the cache."""
    if shutil.which("docker") is None or not _answers("docker", "info"):
        pytest.skip("no container engine answers `docker info`")
    subprocess.run(
        ["docker", "compose", "build", "--quiet", "trainer"],
        cwd=repository,
        stdin=subprocess.DEVNULL,
        timeout=280,
        check=True,
    )
    return "streamrep:cpu"


def _answers(*words: str) -> bool:
    return subprocess.run(words, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.fixture(scope="module")
def make_project(
    image: str, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Project]]:
    """Makes projects that are gone when the module's tests are over."""
    made: list[Project] = []

    def make() -> Project:
        made.append(Project(repository, tmp_path_factory.mktemp("project")))
        return made[-1]

    yield make
    for project in made:
        project.remove()


@pytest.fixture
def project(make_project: Callable[[], Project]) -> Iterator[Project]:
    """One for this test alone."""
    made = make_project()
    yield made
    made.remove()


Use = tuple[int, int]


@pytest.fixture(scope="session")
def uses_of() -> Callable[[Path], list[Use]]:
    """(step, group_id) of each training in a run folder's ledger, by step; read with sqlite3 alone."""

    def read(folder: Path) -> list[Use]:
        with closing(sqlite3.connect(folder / "ledger.sqlite")) as db:
            return db.execute("SELECT step, group_id FROM uses ORDER BY step, group_id").fetchall()

    return read


@pytest.fixture
def free_port() -> str:
    """A port of this machine's loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
