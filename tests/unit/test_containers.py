"""Dockerfile and compose files: what can be held without an engine. Whether they run is for tests/compose."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.command_line import parse
from launcher.environment import variable_of
from launcher.fields import fields_of
from launcher.keys import keys
from launcher.run_file import RunFile, load
from protocol.keys import read_trainer_keys, read_worker_keys

MAIN = "docker-compose.yml"
OVERRIDES = ("docker-compose.gpu.yml", "docker-compose.offline.yml", "docker-compose.pool.yml")
NEEDS_POOLS = ("docker-compose.offline.yml", "docker-compose.pool.yml")
OURS = ("keys", "trainer", "generator")
USED = re.compile(r"\$\{(\w+)(?::-[^}]*)?\}")


@pytest.fixture(scope="module")
def compose(repository: Path) -> dict[str, dict[str, Any]]:
    """Every compose file as data, by name."""
    names = (MAIN, *OVERRIDES)
    return {name: yaml.safe_load((repository / name).read_text("utf-8")) for name in names}


@pytest.fixture(scope="module")
def services(compose: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose[MAIN]["services"]
    return found


@pytest.fixture(scope="module")
def dockerfile(repository: Path) -> str:
    return (repository / "Dockerfile").read_text("utf-8")


def settings(files: dict[str, dict[str, Any]], name: str) -> dict[str, str]:
    """Run-file variables that a compose file sets, over all its services."""
    found: dict[str, str] = {}
    for service in files[name]["services"].values():
        for key, value in service.get("environment", {}).items():
            if key.startswith("STREAMREP_"):
                found[key] = USED.sub("x", str(value))
    return found


def test_only_loopback_is_published_and_only_for_looking(services: dict[str, dict[str, Any]]) -> None:
    """Trainer and generators have no port outside; their network leads nowhere."""
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"prometheus", "grafana"}
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)
    for name in ("trainer", "generator"):
        assert services[name]["networks"] == ["stream"]
    assert services["keys"]["network_mode"] == "none"


def test_the_stream_network_is_private(compose: dict[str, dict[str, Any]]) -> None:
    """Nothing in it reaches outside, and Grafana is not in it."""
    assert compose[MAIN]["networks"]["stream"]["internal"] is True
    assert compose[MAIN]["services"]["grafana"]["networks"] == ["view"]


def test_keys_are_on_and_each_side_has_its_own(services: dict[str, dict[str, Any]]) -> None:
    """Made before anybody starts; the trainer's secret is in no volume of a generator, none is writable."""
    assert services["trainer"]["environment"]["STREAMREP_STREAM__KEYS"] == "/keys/trainer"
    assert services["generator"]["environment"]["STREAMREP_GENERATOR__KEYS"] == "/keys/generator/compose"
    for name, volume in (("trainer", "trainer-keys"), ("generator", "generator-keys")):
        mounts = [mount for mount in services[name]["volumes"] if "-keys:" in mount]
        assert mounts == [f"{volume}:/keys/{name}:ro"]
        assert services[name]["depends_on"]["keys"] == {"condition": "service_completed_successfully"}


def test_the_key_service_makes_what_both_sides_read(
    services: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Its own commands, in a folder instead of the volumes; a second start changes nothing."""
    [script] = services["keys"]["command"]
    for _ in range(2):
        for line in script.strip().split("\n"):
            assert line.startswith("python -m launcher keys ")
            assert keys(line.replace("/keys/trainer", str(tmp_path)).split()[4:]) == 0
    assert read_trainer_keys(str(tmp_path))
    assert read_worker_keys(str(tmp_path / "workers" / "compose"))
    assert "generator-keys:/keys/trainer/workers" in services["keys"]["volumes"]


def test_processes_are_restarted_bounded_and_stopped_gently(services: dict[str, dict[str, Any]]) -> None:
    """As nobody, without capabilities; a finished run is not begun again, and a stop leaves 10 s and more."""
    for name in OURS:
        service = services[name]
        assert service["user"] == "streamrep"
        assert service["cap_drop"] == ["ALL"]
        assert service["init"] is True
        assert int(service["stop_grace_period"].removesuffix("s")) > 10
        assert service["restart"] == ("no" if name == "keys" else "on-failure:10")


def test_monitoring_is_a_profile_and_reads_what_is_in_the_repository(
    services: dict[str, dict[str, Any]], repository: Path
) -> None:
    """Pinned images; every mounted path is there; the ports are those that the services show."""
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["monitoring"]
        assert re.search(r":-[\w./-]+:v?\d+\.\d+\.\d+\}$", services[name]["image"])
        for mount in services[name]["volumes"]:
            if mount.startswith("./"):
                assert (repository / mount.split(":")[0]).exists(), mount
    scraped = yaml.safe_load((repository / "monitoring" / "prometheus.yml").read_text("utf-8"))
    ports = {re.findall(r":(\d+)$", address)[0] for address in _binds(services)}
    assert ports == {"9464"}
    targets = {job["job_name"]: job for job in scraped["scrape_configs"]}
    assert targets["streamrep_trainer"]["static_configs"] == [{"targets": ["trainer:9464"]}]
    assert targets["streamrep_generator"]["dns_sd_configs"][0]["names"] == ["generator"]
    assert targets["streamrep_generator"]["dns_sd_configs"][0]["port"] == 9464


def _binds(services: dict[str, dict[str, Any]]) -> list[str]:
    return [
        services["trainer"]["environment"]["STREAMREP_MONITOR__BIND"],
        services["generator"]["environment"]["STREAMREP_GENERATOR__MONITOR_BIND"],
    ]


def test_gpus_are_one_a_process(compose: dict[str, dict[str, Any]]) -> None:
    """No two services have the same device, and eight devices are seven generators and a trainer."""
    devices: dict[str, list[str]] = {}
    for name, service in compose["docker-compose.gpu.yml"]["services"].items():
        assert service["image"] == "streamrep:gpu"
        for device in (
            service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        ):
            assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
            devices[name] = [re.sub(r"\$\{\w+:-(\d+)\}", r"\1", index) for index in device["device_ids"]]
    assert sorted(devices.values()) == [[str(index)] for index in range(8)]
    for name, service in compose["docker-compose.gpu.yml"]["services"].items():
        if name.startswith("generator-"):
            assert service["networks"]["stream"]["aliases"] == ["generator"], "Prometheus finds them by it"
            count = int(name.removeprefix("generator-"))
            assert service["profiles"] == [f"{n}gpus" for n in (3, 4, 8) if n > count]


@pytest.mark.parametrize("name", [MAIN, *OVERRIDES])
def test_what_the_files_set_is_a_run_that_loads(compose: dict[str, dict[str, Any]], name: str) -> None:
    """Every variable is a key that there is, with a value that it takes."""
    if name in NEEDS_POOLS and "pool" not in {field.section for field in fields_of(RunFile)}:
        pytest.skip("this version has no pools yet")
    environment = settings(compose, MAIN) | settings(compose, name)
    known = {variable_of(field.path) for field in fields_of(RunFile)}
    assert set(environment) <= known
    load(None, [], environment)


def test_the_services_commands_parse(services: dict[str, dict[str, Any]]) -> None:
    """With a run file and without."""
    for name, command in (("trainer", "train"), ("generator", "generate")):
        for run_file in ("", "my.toml"):
            words = USED.sub(run_file, services[name]["command"]).split()
            assert parse(words).name == command
            assert str(parse(words).run_path) == (run_file or "None")


def test_every_variable_is_in_the_guides_one_table(repository: Path) -> None:
    """What compose files and image read or set, and nothing that is gone."""
    used: set[str] = set()
    for name in (MAIN, *OVERRIDES, "Dockerfile"):
        text = (repository / name).read_text("utf-8")
        code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
        used |= set(re.findall(r"\b(?:STREAMREP|PROMETHEUS|GRAFANA)_[A-Z_]+\b", code))
        used |= set(re.findall(r"\b(?:PYTHON_IMAGE|PIP_[A-Z_]*URL)\b", code))
    guide = (repository / "docs" / "operations.md").read_text("utf-8")
    section = guide.split("## Environment variables")[1].split("\n## ")[0]
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    listed = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}
    assert listed == used | {"STREAMREP_SECTION__KEY"}


def test_both_images_are_pinned_checked_and_run_as_nobody(dockerfile: str) -> None:
    """Two targets, versions from constraints.txt, a user of their own, health through /healthz."""
    targets = {
        target: base for base, target in re.findall(r"^FROM (\S+) AS (\S+)$", dockerfile, re.MULTILINE)
    }
    assert targets["cpu"] == targets["gpu"] == "runtime"
    runtime = dockerfile.split(" AS runtime\n")[1].split("\nFROM ")[0]
    assert re.search(r"^USER streamrep$", runtime, re.MULTILINE)
    assert "http://127.0.0.1:9464/healthz" in runtime
    assert "STREAMREP_MONITOR__BIND=9464" in runtime
    for line in dockerfile.replace("\\\n", " ").splitlines():
        if re.search(r"pip .*install ", line) and "requirements" in line:
            assert "-c constraints.txt" in line
    for stage in ("cpu", "gpu"):
        body = dockerfile.split(f" AS {stage}\n")[1].split("\nFROM ")[0]
        assert "RUN" not in body, "what is built is copied, so that no tool stays behind"


def test_the_build_context_has_the_code_and_nothing_else(repository: Path) -> None:
    """No runs, keys or checkouts travel into an image."""
    lines = (repository / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    for rule in rules[1:]:
        if rule.startswith("!"):
            assert list(repository.glob(rule[1:])), f"{rule} takes nothing in"
    packages = {"protocol", "monitoring/*.py", "generator_service", "trainer", "launcher", "benchmarks"}
    assert packages <= {rule[1:] for rule in rules if rule.startswith("!")}


def has_compose() -> bool:
    """Whether a Compose v2 client is here; it needs no engine to read files."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    asked = subprocess.run([docker, "compose", "version"], capture_output=True, timeout=30, check=False)
    return asked.returncode == 0


@pytest.mark.parametrize(
    "files", [(), *((name,) for name in OVERRIDES), ("docker-compose.gpu.yml", "docker-compose.pool.yml")]
)
def test_compose_itself_reads_the_files(repository: Path, files: tuple[str, ...]) -> None:
    """Alone and on top of the first, with every profile."""
    if not has_compose():
        pytest.skip("no Compose v2 client")
    words = [word for name in (MAIN, *files) for word in ("-f", name)]
    profiles = [word for name in ("monitoring", "8gpus") for word in ("--profile", name)]
    done = subprocess.run(
        ["docker", "compose", *words, *profiles, "config", "--quiet"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
