"""Who reaches what: a private network, keys on each side alone, and strangers who get nothing."""

import json
import shutil
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.compose, pytest.mark.timeout(400)]

LISTENING = """
import json
found = set()
for name in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{name}").read().splitlines()[1:]:
        address, port = line.split()[1].split(":")
        # The engine's own resolver is at 127.0.0.11.
        if line.split()[3] == "0A" and not address.endswith("7F"):
            found.add(int(port, 16))
print(json.dumps(sorted(found)))
"""
FILES = """
import json, os, pathlib
keys = pathlib.Path("/keys")
print(json.dumps({
    "secrets": [str(path) for path in sorted(keys.rglob("*.secret"))],
    "writable": [str(path) for path in sorted(keys.rglob("*.*")) if os.access(path, os.W_OK)],
}))
"""
STRANGER = """
set -e
python -m launcher keys trainer --keys /tmp/keys
python -m launcher keys worker stranger --keys /tmp/keys
printf '%s\\n' "$TRAINER" > /tmp/keys/workers/stranger/trainer.public
exec python -m launcher generate --generator.engine fake --generator.connect tcp://trainer:5755 \
  --generator.wait_seconds 30 --generator.keys /tmp/keys/workers/stranger
"""
KEYLESS = """
exec python -m launcher generate --generator.engine fake --generator.connect tcp://trainer:5755 \
  --generator.wait_seconds 30
"""


@pytest.fixture(scope="module")
def running(make_project: Callable[[], Any]) -> Any:
    """A run that goes on for as long as the tests of this file do."""
    project = make_project()
    project.set(run__max_steps=100_000, generator__fake_images_per_second=60.0)
    project.compose("up", "--detach")
    project.wait_for(lambda row: row["step"] >= 5)
    return project


def test_nothing_listens_outside_the_network(running: Any) -> None:
    """No port is published, the only network is an internal one, and each side listens where it must."""
    for service, ports in (("trainer", [5755, 9464]), ("generator", [9464])):
        [container] = running.of_service(service)
        assert not container["HostConfig"]["PortBindings"]
        assert not any(container["NetworkSettings"]["Ports"].values())
        assert list(container["NetworkSettings"]["Networks"]) == [f"{running.name}_stream"]
        assert json.loads(running.python(service, LISTENING)) == ports
    [network] = json.loads(running.docker("network", "inspect", f"{running.name}_stream"))
    assert network["Internal"] is True


def test_each_side_has_its_own_secret_and_can_change_none(running: Any) -> None:
    """The trainer's is in no generator, and the other way round."""
    for service, secret in (("trainer", "trainer/trainer"), ("generator", "generator/compose/worker")):
        told = json.loads(running.python(service, FILES))
        assert told == {"secrets": [f"/keys/{secret}.secret"], "writable": []}


@pytest.mark.parametrize(
    ("script", "reasons"),
    [
        (KEYLESS, {"handshake_keyless", "handshake_broken"}),
        (STRANGER, {"handshake_not_admitted"}),
    ],
    ids=["keyless", "own key"],
)
def test_a_stranger_on_the_network_gets_nothing(
    running: Any,
    image: str,
    script: str,
    reasons: set[str],
    parse_exposition: Callable[[str], dict[str, Any]],
) -> None:
    """It is refused and ends with 2, though it knows the trainer's public key; the trainer counts it."""

    def refused() -> float:
        samples = parse_exposition(running.get("trainer", "metrics"))[
            "streamrep_trainer_refused_total"
        ].samples
        return sum(value for (_, labels), value in samples.items() if {of for _, of in labels} & reasons)

    before = refused()
    name = f"{running.name}-beside"
    public = running.compose("exec", "-T", "trainer", "cat", "/keys/trainer/trainer.public").strip()
    running.docker(
        *("run", "--name", name, "--network", f"{running.name}_stream", "--env", f"TRAINER={public}"),
        *("--entrypoint", "sh", image, "-c", script),
        check=False,
    )
    [container] = json.loads(running.docker("inspect", name))
    running.docker("rm", "-f", name)
    assert container["State"]["ExitCode"] == 2
    assert refused() > before
    families = parse_exposition(running.get("trainer", "metrics"))
    assert families["streamrep_trainer_connected_workers"].samples == {
        ("streamrep_trainer_connected_workers", frozenset()): 1
    }


def test_the_engine_calls_both_healthy(running: Any) -> None:
    """By their /healthz, asked for inside each container."""
    deadline = time.monotonic() + 120
    for service in ("trainer", "generator"):
        while (health := running.of_service(service)[0]["State"]["Health"])["Status"] != "healthy":
            assert time.monotonic() < deadline, health
            time.sleep(1)
        assert json.loads(running.get(service, "healthz"))["status"] == "healthy"


PROMETHEUS = shutil.which("prometheus")


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus (Debian's package) is not installed")
def test_prometheus_finds_trainer_and_generators(
    running: Any, image: str, tmp_path: Path, free_port: str
) -> None:
    """The profile with this machine's Prometheus in the image's place: all are scraped, on loopback alone."""
    assert PROMETHEUS
    shutil.copy(PROMETHEUS, tmp_path / "prometheus")
    # As the official image: started in the folder that the volume is mounted on, by a user that owns it.
    (tmp_path / "Dockerfile").write_text(
        f"FROM {image}\nUSER root\nRUN install -d -o 65534 /prometheus\nCOPY prometheus /bin/prometheus\n"
        'USER 65534\nWORKDIR /prometheus\nHEALTHCHECK NONE\nENTRYPOINT ["/bin/prometheus"]\n',
        "utf-8",
    )
    tag = f"{running.name}-prometheus"
    running.docker("build", "--quiet", "--tag", tag, str(tmp_path), seconds=120)
    running.environ(PROMETHEUS_IMAGE=tag, PROMETHEUS_PORT=free_port)
    try:
        running.compose("--profile", "monitoring", "up", "--detach", "--no-recreate", "prometheus")
        expected = {"streamrep_trainer": ["up"], "streamrep_generator": ["up"]}
        assert _poll(free_port, "targets", _health, expected) == expected
        assert "StreamrepPeersRejected" in _poll(free_port, "rules", _alerts, set())
        [container] = running.of_service("prometheus")
        bound = [one["HostIp"] for many in container["HostConfig"]["PortBindings"].values() for one in many]
        assert bound == ["127.0.0.1"]
    finally:
        running.compose("--profile", "monitoring", "rm", "--stop", "--force", "prometheus")
        running.docker("image", "rm", "--force", tag)


def _poll(port: str, what: str, read: Callable[[Any], Any], expected: Any) -> Any:
    """What Prometheus answers, as soon as it is as expected, or what it was after 90 s."""
    deadline = time.monotonic() + 90
    found = None
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{what}", timeout=5) as answer:
                found = read(json.load(answer)["data"])
        except OSError:
            found = None  # it is not up yet
        if found is not None and (found == expected or not expected):
            break
        time.sleep(1)
    return found


def _health(data: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for target in data["activeTargets"]:
        found.setdefault(target["labels"]["job"], []).append(target["health"])
    return found


def _alerts(data: Any) -> set[str]:
    return {rule["name"] for group in data["groups"] for rule in group["rules"]}
