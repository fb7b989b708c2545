"""Every service as a process of its own, started and ended as an operator's tools do it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SERVICES = ("ingest", "thumbnail", "segment", "mesh", "index", "gateway")
READY_SECONDS = 60


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(
    environment: Mapping[str, str], services: Sequence[str] = SERVICES, *, ports: Mapping[str, int] | None = None
) -> Iterator[dict[str, int]]:
    """Start services and give their ports; end them by SIGTERM, and hold them to exit code 0."""
    taken = {name: (ports or {}).get(name) or free_port() for name in services}
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-m", f"voxelmill_{name}"],
            env={**environment, "VOXELMILL_PORT": str(taken[name])},
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in services
    }
    try:
        yield taken
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        ended = {name: (process.communicate(timeout=60)[1], process.returncode) for name, process in processes.items()}
    assert {name: code for name, (_, code) in ended.items()} == dict.fromkeys(services, 0), ended


def wait_until_ready(ports: Mapping[str, int]) -> None:
    """Return when every service says that it is ready."""
    deadline = time.monotonic() + READY_SECONDS
    while not all(map(_is_ready, ports.values())):
        assert time.monotonic() < deadline, "the services did not become ready"
        time.sleep(0.1)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(json.load(answer)["ready"])
    except (urllib.error.URLError, ConnectionError):
        return False


def metrics(port: int) -> dict[str, float]:
    """Read a service's metrics: `name{label=value,…}` to its value, labels in their alphabet's order."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        f"{sample.name}{{{','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))}}}": sample.value
        for family in families
        for sample in family.samples
    }
