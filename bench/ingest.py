"""How many instances per second does ingest take, and how much of each does it read? Side by side with Orthanc.

One client process sends the same CT instances (512 x 512 x 16 bit, uncompressed, new UIDs in each round) over the same
number of connections with the same HTTP library:

- to Voxelmill: `PUT` to presigned URLs of an S3 store (SeaweedFS) and nothing else; `voxelmill-ingest` learns of it
  from the store's own stream of changes (or from the client, by `--announce client`); its ledger is in PostgreSQL.
  The clock runs from the first PUT to the last `object.validated` that a consumer of its own sees on RabbitMQ.
  A second figure leaves the PUTs out: all objects are there already, the client announces them, and the clock runs from
  the first announcement. A third is the PUTs alone: what the store takes while nobody looks, the most that anything
  behind it can reach.
- to Orthanc: `POST /instances`, its SQLite index, its defaults; from the first request to the last answer, which
  Orthanc gives when the instance is stored and indexed. Also with `SyncStorageArea` off, since the object store does
  not wait for the disk either (PostgreSQL and RabbitMQ do).

Everything is started privately on this machine, fresh for each round, and rounds are interleaved. The bytes read are
those that the object store counts as sent. CPU time is given for each process, per instance.

usage: python bench/ingest.py [--instances N] [--rounds N] [--connections N] [--workers N] [--only PART]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pickle
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import aio_pika

from real_servers import Missing, Servers, end_on_signals, orthanc_program, real_servers
from report import Aim, end, table
from series_copies import series_folder, templates
from stack.ports import free_ports, get
from voxelmill_shared.transport.topology import EVENTS_EXCHANGE, TOPOLOGY

if TYPE_CHECKING:
    from collections.abc import Mapping

ORTHANC = {"orthanc": {}, "orthanc-unsynced": {"SyncStorageArea": False}}
"""What is measured of Orthanc: its defaults, and what differs from them."""
OURS = "ours"
STORED_BEFORE = "ours-stored-before"
STORE_ALONE = "store-alone"
PATIENCE_SECONDS = 300.0
T = TypeVar("T")


@dataclass(slots=True)
class Taken:
    """One measurement.

    `seconds` by the clock; `cpu` seconds by process; `read` bytes of objects, none where nobody is to read any.
    """

    instances: int
    seconds: float
    cpu: dict[str, float] = field(default_factory=dict)
    read: int | None = None

    @property
    def rate(self) -> float:
        """Instances per second."""
        return self.instances / self.seconds


class Heard:
    """Counts what ingest says of objects, each once, and notes when the last was new."""

    def __init__(self) -> None:
        self.validated: set[str] = set()
        self.rejected: Counter[str] = Counter()
        self.last = 0.0
        self._changed = asyncio.Event()

    async def take(self, incoming: Any) -> None:
        """Take one event."""
        if incoming.routing_key != "object.validated.v1":
            self.rejected[json.loads(incoming.body)["data"]["reason"]] += 1
        elif incoming.message_id not in self.validated:
            self.validated.add(incoming.message_id)
            self.last = time.monotonic()
        self._changed.set()

    async def until(self, count: int) -> None:
        """Wait until so many objects are validated."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.validated) < count:
                if self.rejected:
                    raise SystemExit(f"ingest rejected objects: {dict(self.rejected)}")
                self._changed.clear()
                await self._changed.wait()


class Client:
    """The client process."""

    def __init__(self, templates_file: Path, environment: Mapping[str, str]) -> None:
        self._command = [sys.executable, str(Path(__file__).with_name("ingest_client.py")), str(templates_file)]
        self._environment = dict(environment)

    async def __aenter__(self) -> Self:
        """Start it."""
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, env=self._environment, limit=1 << 24
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let it end."""
        _there(self._process.stdin).close()
        await self._process.wait()

    async def phase(self, phase: str, **what: Any) -> dict[str, float]:
        """Let it do something; return when it began and ended."""
        stdin, stdout = _there(self._process.stdin), _there(self._process.stdout)
        stdin.write(json.dumps({"phase": phase, **what}).encode() + b"\n")
        await stdin.drain()
        line = await stdout.readline()
        if not line:
            raise SystemExit("the client ended before its work did")
        answer: dict[str, float] = json.loads(line)
        return answer


def _there(pipe: T | None) -> T:
    if pipe is None:
        raise SystemExit("the client was started without its pipes")
    return pipe


@dataclass(slots=True)
class Bench:
    """Everything that is measured with the same servers."""

    arguments: argparse.Namespace
    servers: Servers
    templates_file: Path
    per_series: int
    number: int = 0

    async def measure(self, part: str) -> dict[str, Taken]:
        """Measure one part once, on fresh stores; the second figure brings the third."""
        self.number += 1
        if part in {OURS, STORED_BEFORE}:
            return await self._ours(part, f"ours-{self.number}")
        return {part: await self._orthanc(part, f"{part}-{self.number}")}

    async def _ours(self, part: str, name: str) -> dict[str, Taken]:
        servers, count = self.servers, self.arguments.instances
        bucket = f"bench-{name}"
        servers.new_bucket(bucket)
        environment = servers.environment(
            bucket,
            servers.new_database(name.replace("-", "_")),
            log_level="WARNING",
            geometry_seconds="600",
            quiet_seconds="600",
            reconcile_seconds="0",
            **({"seaweedfs_filer": servers.s3.filer} if part == OURS and self.arguments.announce == "stream" else {}),
        )
        taken = {}
        urls = self._urls(bucket, count)
        broker = await aio_pika.connect(servers.broker_url)
        async with broker, Client(self.templates_file, environment) as client:
            channel = await broker.channel()
            await channel.set_qos(prefetch_count=500)
            workers = servers.services({"ingest": self.arguments.workers}, environment)
            heard = Heard()
            queue = await channel.declare_queue(exclusive=True)
            for kind in ("validated", "rejected"):
                await queue.bind(EVENTS_EXCHANGE, f"object.{kind}.v1")
            await queue.consume(heard.take, no_ack=True)
            put = {"method": "PUT", "urls": urls, "name": name, "connections": self.arguments.connections}
            before = servers.cpu_seconds()
            if part == OURS:
                phase = await client.phase("put", announce=self.arguments.announce == "client", **put)
            else:
                phase = await client.phase("put", announce=False, **put)
                between = servers.cpu_seconds()
                taken[STORE_ALONE] = Taken(count, phase["ended"] - phase["begun"], _spent(before, between, phase))
                before, phase = between, await client.phase("announce")
            await heard.until(count)
            after = servers.cpu_seconds()
            for worker in workers:
                worker.stop()
            for spec in TOPOLOGY.queues:
                await (await channel.get_queue(spec.name)).purge()
        read = servers.sent_bytes(bucket)
        servers.s3_client().delete_bucket(Bucket=bucket)  # this store deletes what is in it, too
        taken[part] = Taken(count, heard.last - phase["begun"], _spent(before, after, phase), read)
        return taken

    def _urls(self, bucket: str, count: int) -> list[str]:
        client = self.servers.s3_client()
        return [
            client.generate_presigned_url(
                "put_object",
                {"Bucket": bucket, "Key": f"inbox/copy-{n // self.per_series}/{n % self.per_series:04d}.dcm"},
                ExpiresIn=3600,
            )
            for n in range(count)
        ]

    async def _orthanc(self, part: str, name: str) -> Taken:
        program, count = orthanc_program() or "Orthanc", self.arguments.instances
        folder, port = self.servers.folder / name, free_ports(1)
        folder.mkdir()
        configuration = {
            "StorageDirectory": str(folder / "store"),
            "IndexDirectory": str(folder / "store"),
            "HttpPort": port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "Plugins": [],
            **ORTHANC[part],
        }
        (folder / "orthanc.json").write_text(json.dumps(configuration))
        server = self.servers.start(name, [program, str(folder / "orthanc.json")], os.environ)
        try:
            server.wait_until(lambda: get(port, "/system")[0] == 200)
            async with Client(self.templates_file, os.environ) as client:
                before = server.cpu_seconds()
                urls = [f"http://127.0.0.1:{port}/instances"] * count
                phase = await client.phase(
                    "put",
                    method="POST",
                    urls=urls,
                    name=name,
                    connections=self.arguments.connections,
                    announce=False,
                )
                cpu = {"orthanc": server.cpu_seconds() - before, "client": phase["cpu_seconds"]}
            stored = json.loads(get(port, "/statistics")[1])["CountInstances"]
            if stored != count:
                raise SystemExit(f"Orthanc has {stored} instances, {count} were sent")
        finally:
            server.stop()
            shutil.rmtree(folder)
        return Taken(count, phase["ended"] - phase["begun"], cpu)


def _spent(before: Mapping[str, float], after: Mapping[str, float], phase: Mapping[str, float]) -> dict[str, float]:
    """Return the CPU seconds of each process between two moments, and the client's."""
    spent = {kind: after[kind] - before.get(kind, 0.0) for kind in after}
    return {kind: seconds for kind, seconds in spent.items() if seconds} | {"client": phase["cpu_seconds"]}


def parts(only: str | None) -> list[str]:
    """Choose what is measured; say what cannot be."""
    chosen = [OURS, STORED_BEFORE]
    if orthanc_program() is None:
        print("no Orthanc: run `tools/setup orthanc` and try again; measuring Voxelmill alone")
    else:
        chosen += ORTHANC
    return [part for part in chosen if only in {None, part}]


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=2070, help="how many in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=8, help="of the client, towards either server")
    parser.add_argument("--workers", type=int, default=1, help="processes of voxelmill-ingest")
    parser.add_argument("--announce", choices=["stream", "client"], default="stream", help="who announces what is put")
    parser.add_argument("--only", choices=[OURS, STORED_BEFORE, *ORTHANC], help="measure one part alone")
    return parser.parse_args()


def show(taken: dict[str, list[Taken]]) -> None:
    """Print the tables."""
    rows = []
    for part, all_of_it in taken.items():
        rates = [one.rate for one in all_of_it]
        read = bytes_read(all_of_it)
        rows.append(
            [
                part,
                f"{statistics.median(rates):.1f}",
                ", ".join(f"{rate:.1f}" for rate in rates),
                "" if read is None else f"{read:.0f}",
            ]
        )
    table(["", "instances/s (median)", "all rounds", "bytes read per instance"], rows)
    print()
    kinds = sorted({kind for all_of_it in taken.values() for one in all_of_it for kind in one.cpu})
    table(
        ["CPU ms per instance", *kinds],
        [
            [part, *(f"{spent[kind]:.2f}" if kind in spent else "" for kind in kinds)]
            for part, spent in ((part, milliseconds(all_of_it)) for part, all_of_it in taken.items())
        ],
    )


def bytes_read(all_of_it: list[Taken]) -> float | None:
    """Return the bytes read per instance, or none if nobody was to read any."""
    read = [one.read / one.instances for one in all_of_it if one.read is not None]
    return statistics.median(read) if read else None


def milliseconds(all_of_it: list[Taken]) -> dict[str, float]:
    """Return the milliseconds of processor time per instance of each process."""
    spent: dict[str, list[float]] = {}
    for one in all_of_it:
        for kind, seconds in one.cpu.items():
            spent.setdefault(kind, []).append(1000 * seconds / one.instances)
    return {kind: round(statistics.median(each), 2) for kind, each in spent.items()}


async def rounds(bench: Bench, chosen: list[str]) -> dict[str, list[Taken]]:
    """Measure every part once in each round."""
    taken: dict[str, list[Taken]] = {}
    for number in range(bench.arguments.rounds):
        for part in chosen:
            for name, one in (await bench.measure(part)).items():
                taken.setdefault(name, []).append(one)
                print(f"round {number + 1}: {name}: {one.rate:.1f} instances/s", flush=True)
    return taken


def main() -> None:
    """Measure in interleaved rounds and print the medians."""
    arguments = read_arguments()
    folder = series_folder()
    if folder is None:
        raise Missing("no test data here (set VOXELMILL_TEST_DATA): there is no CT to copy")
    originals = templates(folder)
    size = sum(len(one.body) for one in originals) // len(originals)
    chosen = parts(arguments.only)
    with tempfile.TemporaryDirectory(prefix="voxelmill-bench-") as name:
        scratch = Path(name)
        (scratch / "templates").write_bytes(pickle.dumps(originals))
        with real_servers(scratch) as servers:
            bench = Bench(arguments, servers, scratch / "templates", len(originals))
            taken = asyncio.run(rounds(bench, chosen))
    print()
    show(taken)
    print(f"\n{arguments.instances} instances of {size} bytes, {arguments.connections} connections,", end=" ")
    print(f"{arguments.workers} worker(s), {len(os.sched_getaffinity(0))} processors")
    report(arguments, taken)


def report(arguments: argparse.Namespace, taken: dict[str, list[Taken]]) -> None:
    """Print the last line."""
    rate = {part: statistics.median(one.rate for one in all_of_it) for part, all_of_it in taken.items()}
    aims = {}
    if {OURS, STORED_BEFORE, "orthanc"} <= rate.keys():
        aims["times_orthanc"] = Aim(rate[OURS] / rate["orthanc"], 3.0, at_most=False)
        aims["times_orthanc_without_puts"] = Aim(rate[STORED_BEFORE] / rate["orthanc"], 3.0, at_most=False)
    ours = taken.get(OURS) or taken.get(STORED_BEFORE) or []
    if (read := bytes_read(ours)) is not None:
        aims["kib_read_per_instance"] = Aim(read / 1024, 64.0, at_most=True)
    figures: dict[str, object] = {f"{part}_per_second": round(value, 1) for part, value in rate.items()}
    if {OURS, STORE_ALONE} <= rate.keys():
        figures["share_of_store_alone"] = round(rate[OURS] / rate[STORE_ALONE], 3)
    figures["cpu_ms_per_instance"] = {part: milliseconds(all_of_it) for part, all_of_it in taken.items()}
    figures |= {
        name: getattr(arguments, name) for name in ("instances", "rounds", "connections", "workers", "announce")
    }
    end("ingest", aims, figures)


if __name__ == "__main__":
    end_on_signals()
    main()
