"""RabbitMQ: the broker of VOXELMILL_TEST_BROKER_URL, or a private one from the system's package."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pytest

from servers.private import (
    PrivateServer,
    ServerEndedError,
    answers,
    free_ports,
    fresh_folder,
    one_per_run,
    remove,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
TRIES = 5
CONTROL_SECONDS = 60


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
        self.environment = _environment(data, port)
        _configure(data, port)
        self._epmd = PrivateServer(
            ["epmd", "-port", self.environment["ERL_EPMD_PORT"], "-address", "127.0.0.1"], fresh_folder("epmd")
        )
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        super().__init__(
            ["env", "-i", *settings, str(PROGRAMS / "rabbitmq-server")],
            fresh_folder("rabbitmq"),
            goodbye="SIGKILL",  # nothing of it is kept, or it must survive just this
        )

    @property
    def url(self) -> str:
        """Where the broker is, with user and password."""
        return f"amqp://voxelmill:{(self.data / 'password').read_text()}@127.0.0.1:{self.port}/"

    def wait(self) -> None:
        """Return when clients can connect; the broker opens its port last."""
        try:
            self.wait_until(lambda: answers(self.port))
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


def _environment(data: Path, port: int) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(data / "home"),
        "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the broker, instead of waiting for it as its child
        "RABBITMQ_NODENAME": "voxelmill@localhost",
        "RABBITMQ_DIST_PORT": str(port + 1),
        "RABBITMQ_MNESIA_BASE": str(data / "mnesia"),
        "RABBITMQ_LOG_BASE": str(data / "log"),
        "RABBITMQ_CONFIG_FILE": str(data / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(data / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(data / "rabbitmq-env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(data / "enabled_plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_PORT": str(port + 2),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }


def _configure(data: Path, port: int) -> None:
    (data / "home").mkdir(parents=True, exist_ok=True)
    cookie = data / "home" / ".erlang.cookie"
    if not cookie.exists():
        cookie.write_text(secrets.token_hex(20))
        cookie.chmod(0o400)
        (data / "password").write_text(secrets.token_hex(12))
    (data / "rabbitmq-env.conf").touch()
    (data / "enabled_plugins").write_text("[].\n")
    # What expires on a rung while its queue has no leader yet is tried again after this time; by default 180 s.
    (data / "advanced.config").write_text("[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 2000}]}].\n")
    settings = {
        "listeners.tcp.1": f"127.0.0.1:{port}",
        "default_user": "voxelmill",
        "default_pass": (data / "password").read_text(),
        "log.console": "true",
        "log.console.level": "warning",
        "log.file": "false",
        "vm_memory_high_watermark.absolute": "1GB",
        "disk_free_limit.absolute": "50MB",
    }
    (data / "rabbitmq.conf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))


def is_installed() -> bool:
    """Whether this machine has the broker's program."""
    return (PROGRAMS / "rabbitmq-server").exists()


def start(data: Path) -> RabbitMQServer:
    """Start a broker in a new folder on free ports; another process may take one first, so try again."""
    for tries_left in reversed(range(TRIES)):
        server = RabbitMQServer(data, free_ports(3))
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
def rabbitmq_vhost_url(rabbitmq: dict[str, str]) -> Iterator[str]:
    """Give the address of a fresh, empty virtual host, for tests that use Voxelmill's own queue names.

    On a broker of VOXELMILL_TEST_BROKER_URL it is that broker as it is: virtual hosts are its administrator's.
    """
    if "environment" not in rabbitmq:
        yield rabbitmq["url"]
        return
    environment = json.loads(rabbitmq["environment"])
    name = f"test-{uuid.uuid4().hex[:16]}"
    _control(
        environment,
        f'rabbit_vhost:add(<<"{name}">>, <<"test">>), rabbit_auth_backend_internal:set_permissions('
        f'<<"voxelmill">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>).',
    )
    try:
        yield urlunsplit(urlsplit(rabbitmq["url"])._replace(path=f"/{name}"))
    finally:
        _control(environment, f'rabbit_vhost:delete(<<"{name}">>, <<"test">>).')


def _control(environment: dict[str, str], expression: str) -> None:
    """Evaluate an Erlang expression in the broker. One call does what two commands of the tool would do."""
    subprocess.run(
        [PROGRAMS / "rabbitmqctl", "--quiet", "eval", expression],
        env=environment,
        check=True,
        capture_output=True,
        timeout=CONTROL_SECONDS,
    )
