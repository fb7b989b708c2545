"""Every program of an installation: three servers, N processes of each service, and what they tell each other."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from stack import postgresql, rabbitmq, seaweedfs
from stack.folder import write_env
from stack.ports import unready
from stack.program import Program, StackError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stack.folder import Facts, Folder

SERVICES = ("ingest", "thumbnail", "segment", "mesh", "index", "gateway")
MOST = 64
DRAIN_SECONDS = 40.0
"""A service ends by itself after its grace period, 25 seconds unless VOXELMILL_GRACE_SECONDS says otherwise."""
LONGEST_GRACE = 86_400.0
NOT_INHERITED = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "PYTHONPATH")
SOURCES = Path(__file__).parents[2] / "services"


def read_scale(text: str) -> dict[str, int]:
    """Read `thumbnail=2 mesh=2`: how many processes of each service; one where nothing is said.

    Raises
    ------
    StackError
        If it names no service, or no number of processes.
    """
    scale = dict.fromkeys(SERVICES, 1)
    for word in text.replace(",", " ").split():
        name, _, number = word.partition("=")
        if name not in scale:
            raise StackError(f"SCALE: {word}: there is no service {name!r}; write one of {', '.join(SERVICES)}", 2)
        if not (number.isascii() and number.isdigit() and int(number) <= MOST):
            raise StackError(f"SCALE: {word}: write {name}=N with N from 0 to {MOST}", 2)
        scale[name] = int(number)
    return scale


def names_of(scale: Mapping[str, int]) -> list[str]:
    """The names of the services' processes: `mesh-1`, `mesh-2`."""
    return [f"{service}-{number}" for service, count in scale.items() for number in range(1, count + 1)]


@dataclass(frozen=True, slots=True)
class Installation:
    """The programs, wired with each other.

    Attributes
    ----------
    folder
        Where all of it stands.
    facts
        Ports and credentials.
    broker, store, database
        The three servers.
    weed
        SeaweedFS's program.
    """

    folder: Folder
    facts: Facts
    broker: rabbitmq.RabbitMQ
    store: seaweedfs.SeaweedFS
    database: postgresql.PostgreSQL
    weed: str

    @classmethod
    def plan(cls, folder: Folder, facts: Facts) -> Installation:
        """Wire the programs; nothing is written or started yet.

        Raises
        ------
        StackError
            If a server's program is not on this machine.
        """
        if shutil.which("setpriv") is None:
            raise StackError("setpriv is not installed; run: sudo apt-get install util-linux")
        weed, programs = seaweedfs.find_weed(), postgresql.find_programs()
        if not rabbitmq.is_installed():
            raise StackError("RabbitMQ is not installed; run: sudo apt-get install rabbitmq-server")
        if weed is None:
            raise StackError("SeaweedFS is not installed; run: tools/setup stack")
        if programs is None:
            raise StackError("PostgreSQL is not installed; run: tools/setup stack")
        data, ports = folder.data, facts.ports
        return cls(
            folder,
            facts,
            rabbitmq.RabbitMQ(data / "rabbitmq", ports["rabbitmq"]),
            seaweedfs.SeaweedFS(data / "seaweedfs", ports["seaweedfs"], "voxelmill", facts.secret_key),
            postgresql.PostgreSQL(data / "postgresql", ports["postgresql"], programs, {"max_connections": 300}),
            weed,
        )

    def configure(self) -> None:
        """Write what the servers read, and the variables for everybody else."""
        self.broker.configure()
        self.store.configure()
        self.database.initialise()
        write_env(self.folder, self.variables())

    def variables(self) -> dict[str, str]:
        """By which services, tools and people find the servers."""
        return {
            "VOXELMILL_BROKER_URL": self.broker.url,
            "VOXELMILL_DATABASE_URL": urlunsplit(urlsplit(self.database.url)._replace(path="/voxelmill")),
            "VOXELMILL_INBOX_URL": "s3://inbox",
            "VOXELMILL_WORK_URL": "s3://work",
            "VOXELMILL_RESULTS_URL": "s3://results",
            "VOXELMILL_SCRATCH": str(self.folder.scratch),
            "VOXELMILL_SEAWEEDFS_FILER": self.store.filer,
            "VOXELMILL_RECONCILE_SECONDS": os.environ.get("VOXELMILL_RECONCILE_SECONDS", "60"),
            **self.store.client_environment(),
        }

    def environment(self) -> dict[str, str]:
        """What services are started with: the caller's own variables, and over them those of this installation."""
        own = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        if not os.access(SOURCES, os.W_OK):  # compiled code is kept beside the sources where it can be
            own.setdefault("NUMBA_CACHE_DIR", str(self.folder.scratch / "numba"))
        return {**own, **self.variables(), "PYTHONUNBUFFERED": "1"}

    def servers(self) -> tuple[tuple[Program, ...], ...]:
        """The servers, in waves: those of one may start at once."""
        return (self.broker.port_mapper(),), (
            self.broker.broker(),
            self.store.server(self.weed),
            self.database.server(),
        )

    def services(self, scale: Mapping[str, int]) -> tuple[Program, ...]:
        """The processes of the services."""
        return tuple(self._service(name) for name in names_of(scale))

    def _service(self, name: str) -> Program:
        port = self.facts.ports[name]
        return Program(
            name=name,
            command=(sys.executable, "-m", f"voxelmill_{name.partition('-')[0]}"),
            environment={**self.environment(), "VOXELMILL_HOST": "127.0.0.1", "VOXELMILL_PORT": str(port)},
            folder=Path("/"),
            ports=(port,),
            is_ready=partial(_is_ready, port),
            patience=max(DRAIN_SECONDS, _grace() + 15.0),
        )


def _grace() -> float:
    """The services' grace period where the caller set one. What is no number the services refuse by themselves."""
    try:
        return min(float(os.environ.get("VOXELMILL_GRACE_SECONDS") or 0), LONGEST_GRACE)
    except ValueError:
        return 0.0


def _is_ready(port: int) -> bool:
    return not unready(port)
