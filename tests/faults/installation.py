"""One installation of Voxelmill that lives through many faults: three servers and every service, real processes."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg.rows import dict_row

from faults.broker import Broker, LoopThread
from faults.kept import Disk, Kept, may_mount
from faults.proxy import StoreProxy
from faults.store import Store, WriteLog
from servers.seaweedfs import S3Server
from stack import postgresql, rabbitmq, seaweedfs
from stack.ports import free_ports, get, unready
from stack.program import Program, StackError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SERVICES = ("ingest", "thumbnail", "segment", "mesh", "index")
SERVERS = ("rabbitmq", "postgresql", "seaweedfs")
LADDER = (0.3, 0.6, 1.2, 2.4)
SETTINGS = {
    "ORGAN": "lungs",
    "QUALITY": "fast",
    "FORMATS": '["stl"]',
    "GEOMETRY_SECONDS": "0.7",
    "QUIET_SECONDS": "4",
    "UPLOAD_SECONDS": "5",
    "REGULAR_SLICES": "11",
    "LEASE_SECONDS": "3",
    "RECONCILE_SECONDS": "1",
    "RECONCILE_GRACE_SECONDS": "1",
    "LADDER": json.dumps(LADDER),
    "CHILD_SECONDS": "120",  # the first of all compiles what its work needs
    "CHILDREN_AT_START": "true",
    "GRACE_SECONDS": "10",
    "PROGRESS_SECONDS": "1",
    "LOG_LEVEL": "INFO",
    "SCRATCH_FREE_MIB": "4",
    "CACHE_BYTES": "4000000",
}
"""Short waits: of a wait of seconds, hours show no more."""


class MissingError(Exception):
    """A server's program is not installed; the message says which and what to do."""


class Installation:
    """Servers, services and what watches them. A context manager.

    Parameters
    ----------
    folder
        A new folder for data and logs.
    """

    def __init__(self, folder: Path) -> None:
        weed, programs = seaweedfs.find_weed(), postgresql.find_programs()
        if not rabbitmq.is_installed() or weed is None or programs is None:
            raise MissingError("RabbitMQ, SeaweedFS or PostgreSQL is missing: run `tools/setup servers` and try again")
        folder.chmod(0o711)  # PostgreSQL may run as another account, which must be able to pass through
        self.folder = folder
        self.mounts = may_mount()
        self.processes: dict[str, Kept] = {}
        self._s3 = seaweedfs.SeaweedFS(
            self._folder("seaweedfs"),
            free_ports(seaweedfs.PORTS, also=[seaweedfs.GRPC]),
            "voxelmill",
            secrets.token_urlsafe(24),
        )
        self._broker = rabbitmq.RabbitMQ(self._folder("rabbitmq"), free_ports(rabbitmq.PORTS))
        settings = {"fsync": "off", "max_connections": 80}  # a killed process loses nothing that the system was given
        self._database = postgresql.PostgreSQL(self._folder("postgresql"), free_ports(1), programs, settings)
        self._weed = weed
        self.settings: dict[str, dict[str, str]] = {}
        self._over = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True, name="supervisor")

    def _folder(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(mode=0o711)
        return path

    def __enter__(self) -> Self:
        self.loop = LoopThread()
        self._supervisor.start()
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._supervisor.join()
        for name in ("store", "writes", "proxy"):
            if hasattr(self, name):
                getattr(self, name).close()
        for kept in reversed(self.processes.values()):
            kept.stop()
        self.loop.close()

    def _begin(self) -> None:
        self._broker.configure()
        self._s3.configure()
        try:
            self._database.initialise(sync=False)
        except StackError as error:
            raise MissingError(str(error)) from None
        mapper = self._broker.port_mapper()
        self._keep("epmd", mapper).wait_until_ready()
        for name, program in (
            ("rabbitmq", replace(self._broker.broker(), goodbye=signal.SIGKILL)),
            ("postgresql", replace(self._database.server(), goodbye=signal.SIGQUIT)),
            ("seaweedfs", replace(self._s3.server(self._weed), goodbye=signal.SIGKILL)),
        ):
            self._keep(name, program)
        for name in ("seaweedfs", "postgresql", "rabbitmq"):
            self.processes[name].wait_until_ready()
        server = S3Server(self._s3.endpoint, self._s3.access_key, self._s3.secret_key)
        self.store = Store(server)
        self.store.make_buckets()
        self.writes = WriteLog(server.filer, self.loop)
        self.proxy = StoreProxy(self._s3.endpoint)
        self.broker = Broker(self._broker.url, self.loop, [timedelta(seconds=wait) for wait in LADDER])
        self._keep(
            "ingest", self._service("ingest")
        ).wait_until_ready()  # it makes its tables before index makes its own
        for name in SERVICES[1:]:
            self._keep(name, self._service(name))
        self.wait_until_ready()
        self.broker.open_tap()

    @property
    def broker_url(self) -> str:
        """Where the broker is."""
        return self._broker.url

    def services(self) -> dict[str, Kept]:
        """The services' processes."""
        return {name: kept for name, kept in self.processes.items() if name.partition("-")[0] in SERVICES}

    def wait_until_ready(self) -> None:
        """Return when every process serves; those that have ended are started again."""
        until = time.monotonic() + 90
        while waiting := [kept for kept in self.processes.values() if not kept.is_ready()]:
            if time.monotonic() > until:
                raise TimeoutError(f"{waiting[0].program.name} did not become ready: {waiting[0].said()}")
            time.sleep(0.05)

    def _supervise(self) -> None:
        """Start what has ended again, as whatever supervises processes would."""
        while not self._over.wait(0.05):
            for kept in list(self.processes.values()):
                kept.tend()

    def configure(self, settings: Mapping[str, Mapping[str, str]]) -> None:
        """Run the services with these settings beside the usual ones; only those for which they changed start anew."""
        for name in SERVICES:
            wanted = dict(settings.get(name, {}))
            if wanted != self.settings.get(name, {}):
                self.settings[name] = wanted
                self.processes[name].stop()
                self.processes[name].program = self._service(name)
                self.processes[name].down = False
        self.wait_until_ready()

    def add(self, service: str) -> str:
        """Start another replica; return its name."""
        name = f"{service}-2"
        self._keep(name, self._service(service)).wait_until_ready()
        return name

    def remove(self, name: str) -> None:
        """End a replica that was added."""
        self.processes.pop(name).stop()

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Ask the database, however long it takes to come back."""
        until = time.monotonic() + 60
        while True:
            try:
                with psycopg.connect(self._database.url, connect_timeout=5, row_factory=dict_row) as connection:
                    answer = connection.execute(query.encode(), values)
                    return answer.fetchall() if answer.description else []
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def in_hand(self) -> float:
        """How many messages the services say that they have in hand; more than none if one does not answer."""
        total = 0.0
        for kept in self.services().values():
            status, text = get(kept.program.ports[0], "/metrics")
            lines = [line for line in text.decode().splitlines() if line.startswith("voxelmill_messages_in_hand{")]
            total += sum(float(line.rpartition(" ")[2]) for line in lines) if status == 200 else 1
        return total

    def _keep(self, name: str, program: Program) -> Kept:
        disk = None
        if self.mounts and name.partition("-")[0] in SERVICES:
            disk = Disk(self.folder / "scratch" / name)
        kept = Kept(program, self.folder / f"{name}.log", disk)
        self.processes[name] = kept
        kept.start()
        return kept

    def _service(self, name: str) -> Program:
        port = free_ports(1)
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("VOXELMILL_", "AWS_", "COV"))},
            **self._s3.client_environment(),
            "AWS_ENDPOINT_URL": self.proxy.endpoint,
            "VOXELMILL_BROKER_URL": self._broker.url,
            "VOXELMILL_DATABASE_URL": self._database.url,
            "VOXELMILL_SCRATCH": str(self.folder / "scratch" / name),
            "VOXELMILL_SEAWEEDFS_FILER": self._s3.filer,
            "VOXELMILL_PORT": str(port),
            "PYTHONWARNINGS": "ignore",
            **{f"VOXELMILL_{role.upper()}_URL": f"s3://{role}" for role in ("inbox", "work", "results")},
            **{f"VOXELMILL_{key}": value for key, value in (SETTINGS | self.settings.get(name, {})).items()},
        }
        return Program(
            name=name,
            command=(sys.executable, "-m", f"voxelmill_{name}"),
            environment=environment,
            folder=self.folder,
            ports=(port,),
            is_ready=partial(_is_ready, port),
        )


def _is_ready(port: int) -> bool:
    return not unready(port)
