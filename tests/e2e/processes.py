"""Every service as a process of its own, started and ended as an operator's tools do it."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from e2e.command import forks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from e2e.command import Fork

SERVICES = ("ingest", "thumbnail", "segment", "mesh", "index", "gateway")
READY_SECONDS = 120
END_SECONDS = 60


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(
    environment: Mapping[str, str], services: Sequence[str] = SERVICES, *, ports: Mapping[str, int] | None = None
) -> Iterator[dict[str, int]]:
    """Start services and give their ports; end them by SIGTERM, and hold them to exit code 0.

    They need not import anything (see `forking`): `make up` and the faults start interpreters.
    """
    taken = {name: (ports or {}).get(name) or free_port() for name in services}
    processes = {name: start(name, {**environment, "VOXELMILL_PORT": str(port)}) for name, port in taken.items()}
    try:
        yield taken
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        ended = {name: process.end(END_SECONDS) for name, process in processes.items()}
    assert {name: one.code for name, one in ended.items()} == dict.fromkeys(services, 0), ended


def start(service: str, environment: Mapping[str, str]) -> Fork:
    """Start one service."""
    return forks().start(f"voxelmill_{service}.__main__", environment=environment)


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
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def metrics(port: int) -> dict[str, float]:
    """Read a service's metrics: `name{label=value,…}` to its value, labels in their alphabet's order."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        f"{sample.name}{{{','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))}}}": sample.value
        for family in families
        for sample in family.samples
    }
