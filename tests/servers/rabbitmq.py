"""RabbitMQ: the broker of VOXELMILL_TEST_BROKER_URL, or a private one from the system's package."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pytest

from servers.private import PrivateServer, ServerEndedError, free_ports, fresh_folder, one_per_run, remove
from stack.rabbitmq import PORTS, PROGRAMS, RabbitMQ, is_installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRIES = 5
CONTROL_SECONDS = 60
VIRTUAL_HOSTS_AT_ONCE = 12


class RabbitMQServer(PrivateServer):
    """A broker with a port mapper (epmd) of its own, both on loopback.

    Parameters
    ----------
    data
        The broker's home: what it stores and its configuration. It outlives the server, so a second server can be
        started on it.
    port
        The port for AMQP; the next two are Erlang's (see `free_ports`).
    """

    def __init__(self, data: Path, port: int) -> None:
        self.data = data
        self.port = port
        self._described = RabbitMQ(data, port)
        self._described.configure()
        self.environment = self._described.environment()
        self._epmd = PrivateServer(self._described.port_mapper().as_arguments(), fresh_folder("epmd"))
        super().__init__(
            self._described.broker().as_arguments(),
            fresh_folder("rabbitmq"),
            goodbye="SIGKILL",  # nothing of it is kept, or it must survive just this
        )

    @property
    def url(self) -> str:
        """Where the broker is, with user and password."""
        return self._described.url

    def wait(self) -> None:
        """Return when clients can connect; the broker opens its port last."""
        try:
            self.wait_until(self._described.broker().is_ready)
        except ServerEndedError:
            self._epmd.stop()
            raise

    def stop(self) -> None:
        """End the broker by kill -9, then its port mapper."""
        super().stop()
        self._epmd.stop()

    def let_go(self) -> None:
        """Leave both to their keepers."""
        super().let_go()
        self._epmd.let_go()


def start(data: Path) -> RabbitMQServer:
    """Start a broker in a new folder on free ports; another process may take one first, so try again."""
    for tries_left in reversed(range(TRIES)):
        server = RabbitMQServer(data, free_ports(PORTS))
        try:
            server.wait()
        except ServerEndedError:
            if not tries_left:
                raise
        except BaseException:
            server.stop()
            raise
        else:
            return server
    raise AssertionError("the last try raises or returns")


def start_rabbitmq(directory: Path) -> tuple[str, Callable[[], None]]:
    """Start a broker that keeps its data in `directory`; return its URL and what stops it. For scripts."""
    server = start(directory)
    return server.url, server.stop


@pytest.fixture(scope="session")
def rabbitmq_installed() -> None:
    """Skip (or fail, in CI) where there is no broker's program to start."""
    from conftest import missing

    if not is_installed():
        missing("no RabbitMQ (apt-get install rabbitmq-server, or set VOXELMILL_TEST_BROKER_URL)")


@pytest.fixture(scope="session")
def rabbitmq(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Give the run's broker: its `url`, and the `environment` of its tools if it is a private one."""
    given = os.environ.get("VOXELMILL_TEST_BROKER_URL")
    if given:
        yield {"url": given}
        return
    request.getfixturevalue("rabbitmq_installed")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    data = shared / "rabbitmq"

    def begin() -> tuple[RabbitMQServer, dict[str, str]]:
        server = start(data)
        return server, {"url": server.url, "environment": json.dumps(server.environment)}

    try:
        with one_per_run(tmp_path_factory, "rabbitmq", begin) as facts:
            yield facts
    finally:
        if "PYTEST_XDIST_WORKER" not in os.environ:
            remove(data)


@pytest.fixture(scope="session")
def rabbitmq_url(rabbitmq: dict[str, str]) -> str:
    """Give the address of a broker that all tests of the run share: use queue names and routing keys of your own."""
    return rabbitmq["url"]


@pytest.fixture
def rabbitmq_vhost_url(rabbitmq: dict[str, str]) -> str:
    """Give the address of a fresh, empty virtual host, for tests that use Voxelmill's own queue names.

    It goes when the private broker does. On a broker of VOXELMILL_TEST_BROKER_URL it is that broker as it is: virtual
    hosts are its administrator's.
    """
    if "environment" not in rabbitmq:
        return rabbitmq["url"]
    return urlunsplit(
        urlsplit(rabbitmq["url"])._replace(path=f"/{_take_virtual_host(json.loads(rabbitmq['environment']))}")
    )


def _take_virtual_host(environment: dict[str, str]) -> str:
    """Take a virtual host from those that stand ready. They are made by the dozen: the broker's tool is slow to start."""
    ready = Path(environment["HOME"]) / "virtual-hosts.json"
    with ready.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = json.loads(ready.read_text()) if ready.exists() else []
        if not names:
            names = [f"test-{uuid.uuid4().hex[:16]}" for _ in range(VIRTUAL_HOSTS_AT_ONCE)]
            listed = ", ".join(f'<<"{name}">>' for name in names)
            _control(
                environment,
                f'[begin rabbit_vhost:add(Name, <<"test">>), rabbit_auth_backend_internal:set_permissions('
                f'<<"voxelmill">>, Name, <<".*">>, <<".*">>, <<".*">>, <<"test">>) end || Name <- [{listed}]].',
            )
        ready.write_text(json.dumps(names[1:]))
    return names[0]


def _control(environment: dict[str, str], expression: str) -> None:
    """Evaluate an Erlang expression in the broker. One call does what two commands of the tool would do."""
    subprocess.run(
        [PROGRAMS / "rabbitmqctl", "--quiet", "eval", expression],
        env=environment,
        check=True,
        capture_output=True,
        timeout=CONTROL_SECONDS,
    )
