"""The real servers and services that benchmarks run against: private, on loopback, ended by pid.

The servers are described once for everyone, in `tools/stack`; here they run in a scratch folder as long as a benchmark.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import psycopg

sys.path.append(str(Path(__file__).parents[1] / "tools"))  # `stack` is no distribution: it is this repository's own
from stack import postgresql, rabbitmq, seaweedfs
from stack.ports import free_ports, get, unready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stack.program import Program

READY_SECONDS = 90.0
TICKS = os.sysconf("SC_CLK_TCK")


class Missing(SystemExit):
    """Something that a benchmark needs is not installed: exit code 3 with one line."""

    def __init__(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        super().__init__(3)


@dataclass(slots=True)
class Running:
    """A process that this benchmark started."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    goodbye: signal.Signals = signal.SIGTERM
    patience: float = 30.0

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait for its own sign that it is ready."""
        until = time.monotonic() + READY_SECONDS
        while not ready():
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{self.name} did not get ready: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def wait_for_port(self, port: int) -> None:
        """Wait until it says on that port that it is ready: a service of ours."""
        self.wait_until(lambda: not unready(port))

    def stop(self) -> int:
        """Ask it to end, end it if it does not, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(self.goodbye)
            try:
                self.process.wait(self.patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def cpu_seconds(self) -> float:
        """Return what it and its descendants, living or waited for, have spent of the processors' time so far."""
        children: dict[int, list[int]] = {}
        spent: dict[int, float] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    row = (entry / "stat").read_text().rpartition(")")[2].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                children.setdefault(int(row[1]), []).append(int(entry.name))
                spent[int(entry.name)] = sum(map(int, row[11:15])) / TICKS
        todo, total = [self.process.pid], 0.0
        while todo:
            pid = todo.pop()
            total += spent.get(pid, 0.0)
            todo += children.get(pid, [])
        return total


@dataclass(slots=True)
class Servers:
    """RabbitMQ, SeaweedFS and PostgreSQL, running.

    `running` holds them by name, and whatever else was started; all of it ends with the benchmark.
    """

    folder: Path
    broker_url: str
    database_url: str
    s3: seaweedfs.SeaweedFS
    metrics_port: int
    running: dict[str, Running] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    def start(self, name: str, command: list[str], environment: Mapping[str, str], cwd: Path | None = None) -> Running:
        """Start a process that ends with the benchmark; what it says goes into a log."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as said:
            process = subprocess.Popen(
                command, env=dict(environment), cwd=cwd, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        running = Running(name, process, log)
        self.stack.callback(running.stop)
        self.running[name] = running
        return running

    def serve(self, program: Program) -> None:
        """Start one of the servers and wait until it is ready."""
        running = self.start(program.name, list(program.command), program.environment, program.folder)
        running.goodbye, running.patience = program.goodbye, program.patience
        running.wait_until(program.is_ready)

    def environment(self, bucket: str, database_url: str, **settings: str) -> dict[str, str]:
        """Return the variables of an installation's services: stores in one bucket, and further settings."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("VOXELMILL_", "AWS_"))},
            **self.s3.client_environment(),
            "VOXELMILL_BROKER_URL": self.broker_url,
            "VOXELMILL_INBOX_URL": f"s3://{bucket}/inbox",
            "VOXELMILL_WORK_URL": f"s3://{bucket}/work",
            "VOXELMILL_RESULTS_URL": f"s3://{bucket}/results",
            "VOXELMILL_DATABASE_URL": database_url,
            "VOXELMILL_SCRATCH": str(self.folder / "scratch"),
            **{f"VOXELMILL_{name.upper()}": value for name, value in settings.items()},
        }

    def service(self, name: str, number: int, environment: Mapping[str, str]) -> tuple[Running, int]:
        """Start one of the services; return it and the port where it tells of its health."""
        port = free_ports(1)
        command = [sys.executable, "-m", f"voxelmill_{name}"]
        return self.start(f"{name}-{number}", command, {**environment, "VOXELMILL_PORT": str(port)}), port

    def services(self, counts: Mapping[str, int], environment: Mapping[str, str]) -> list[Running]:
        """Start so many of each service, and wait until all are ready."""
        started = [self.service(name, n, environment) for name, count in counts.items() for n in range(count)]
        for running, port in started:
            running.wait_for_port(port)
        return [running for running, _ in started]

    def new_database(self, name: str) -> str:
        """Make a database and return its address."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.database_url.rpartition("/")[0] + f"/{name}"

    def new_bucket(self, name: str) -> None:
        """Make a bucket."""
        self.s3_client().create_bucket(Bucket=name)

    def s3_client(self) -> boto3.client:
        """Return a client of the store, to administrate it."""
        return boto3.client(
            "s3",
            endpoint_url=self.s3.endpoint,
            aws_access_key_id=self.s3.access_key,
            aws_secret_access_key=self.s3.secret_key,
            region_name="us-east-1",
            config=boto3.session.Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )

    def sent_bytes(self, bucket: str) -> int:
        """Return how many bytes of objects the store itself says that it has sent out of a bucket."""
        _, text = get(self.metrics_port, "/metrics")
        name = f'SeaweedFS_s3_bucket_traffic_sent_bytes_total{{bucket="{bucket}"}}'
        for line in text.decode().splitlines():
            if line.startswith(name):
                return int(float(line.rpartition(" ")[2]))
        return 0

    def cpu_seconds(self) -> dict[str, float]:
        """Return what every process has spent so far, by name; replicas of a service together."""
        spent: dict[str, float] = {}
        for name, running in self.running.items():
            if running.process.poll() is None:
                kind = name.rpartition("-")[0] or name
                spent[kind] = spent.get(kind, 0.0) + running.cpu_seconds()
        return spent


@contextmanager
def real_servers(folder: Path) -> Iterator[Servers]:
    """Start the three servers with their own defaults for what outlives a power cut, and end them."""
    weed, programs = seaweedfs.find_weed(), postgresql.find_programs()
    if not rabbitmq.is_installed():
        raise Missing("no RabbitMQ: run `tools/setup servers` and try again")
    if weed is None or programs is None:
        raise Missing("no SeaweedFS or PostgreSQL: run `tools/setup dev` and try again")
    broker = rabbitmq.RabbitMQ(folder / "rabbitmq", free_ports(rabbitmq.PORTS))
    store = seaweedfs.SeaweedFS(
        folder / "seaweedfs",
        free_ports(seaweedfs.PORTS, also=[seaweedfs.GRPC]),
        access_key="voxelmill",
        secret_key=os.urandom(12).hex(),
    )
    metrics_port = free_ports(1)
    database = postgresql.PostgreSQL(folder / "postgresql", free_ports(1), programs)
    folder.chmod(0o711)  # PostgreSQL may run as another account, which must be able to pass through
    for server in (broker, store):
        server.configure()
    database.initialise()
    servers = Servers(folder, broker.url, database.url, store, metrics_port)
    with servers.stack:
        servers.serve(broker.port_mapper())
        servers.serve(broker.broker())
        served = store.server(weed)
        servers.serve(replace(served, command=(*served.command, f"-metricsPort={metrics_port}")))
        servers.serve(database.server())
        yield servers


def end_on_signals() -> None:
    """Let SIGTERM end a benchmark as Ctrl-C does, so that everything that it has started ends too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))


def orthanc_program() -> str | None:
    """Return Orthanc's program, or none if it is not installed."""
    return shutil.which("Orthanc")
