"""RabbitMQ from the system's package, as a private broker: its own node, port mapper, ports, cookie and data."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stack.ports import answers
from stack.program import Program
from stack.secret import write_secret

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
USER = "voxelmill"
PORTS = 3
"""How many neighbouring ports one broker takes: AMQP, Erlang's distribution, Erlang's port mapper."""
CONSUMER_TIMEOUT_MS = 4 * 3600 * 1000
"""How long a message may be in hand; by default 30 minutes, and the longest job may take as long as that."""


def is_installed() -> bool:
    """Whether this machine has the broker's program."""
    return (PROGRAMS / "rabbitmq-server").exists()


@dataclass(frozen=True, slots=True)
class RabbitMQ:
    """A private broker and its port mapper, both on loopback.

    Attributes
    ----------
    folder
        What the broker stores, its configuration and its password.
    port
        The port for AMQP; the next two are Erlang's.
    """

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Where the broker is, with user and password."""
        return f"amqp://{USER}:{(self.folder / 'password').read_text()}@127.0.0.1:{self.port}/"

    def environment(self) -> dict[str, str]:
        """What the broker and its tools (`rabbitmqctl`) need to find each other."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self.folder / "home"),
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the broker, instead of waiting for it as its child
            "RABBITMQ_NODENAME": f"{USER}@localhost",
            "RABBITMQ_DIST_PORT": str(self.port + 1),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self.port + 2),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def configure(self) -> None:
        """Write the configuration; the password and the cookie are made once and then kept."""
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        cookie = self.folder / "home" / ".erlang.cookie"
        if not cookie.exists():
            write_secret(self.folder / "password", secrets.token_hex(12))
            write_secret(cookie, secrets.token_hex(20), mode=0o400)
        (self.folder / "rabbitmq-env.conf").touch()
        (self.folder / "enabled_plugins").write_text("[].\n")
        # What expires on a rung while its queue has no leader yet is tried again after this time; by default 180 s.
        (self.folder / "advanced.config").write_text(
            "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 2000}]}].\n"
        )
        settings = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "default_user": USER,
            "default_pass": (self.folder / "password").read_text(),
            "consumer_timeout": CONSUMER_TIMEOUT_MS,
            "log.console": "true",
            "log.console.level": "warning",
            "log.file": "false",
            "vm_memory_high_watermark.absolute": "1GB",
            "disk_free_limit.absolute": "50MB",
        }
        write_secret(self.folder / "rabbitmq.conf", "".join(f"{name} = {value}\n" for name, value in settings.items()))

    def port_mapper(self) -> Program:
        """Erlang's port mapper. The broker would start one by itself, and leave it behind."""
        port = self.port + 2
        return Program(
            name="epmd",
            command=("epmd", "-port", str(port), "-address", "127.0.0.1"),
            environment=self.environment(),
            folder=Path("/"),
            ports=(port,),
            is_ready=partial(answers, port),
        )

    def broker(self) -> Program:
        """The broker; its port mapper must run."""
        return Program(
            name="rabbitmq",
            command=(str(PROGRAMS / "rabbitmq-server"),),
            environment=self.environment(),
            folder=Path("/"),
            ports=(self.port, self.port + 1),
            is_ready=partial(answers, self.port),  # it opens this port last
            patience=30.0,
        )
