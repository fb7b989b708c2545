"""Many series at once, with one and with two workers of each service: is each indexed, none twice, and how fast?

Copies of one CT series under new UIDs are put into a bucket through S3, several at a time, and nothing else is done:
the real processes learn of them from the store's stream (SeaweedFS) and work on RabbitMQ and PostgreSQL. The clock runs
from the first PUT to the last `series.indexed`. Afterwards the catalog, the keys of the results and the events are held
against each other: as many complete jobs, receipts and events as series.

usage: python bench/scale.py [--series N] [--slices N] [--workers 1,2] [--connections N] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aio_pika

from real_servers import Missing, Servers, end_on_signals, real_servers
from report import Aim, end, table
from series_copies import Template, new_uid, series_folder, templates
from voxelmill_shared import catalog
from voxelmill_shared.catalog import JobStatus
from voxelmill_shared.database import open_database, reading
from voxelmill_shared.transport.topology import EVENTS_EXCHANGE, TOPOLOGY

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICES = ("ingest", "thumbnail", "segment", "mesh", "index")
QUICK = {"series": 4, "slices": 24}


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run.

    `seconds` from the first PUT to the last event; `cpu` seconds by process; `problems` says what is missing or double.
    """

    workers: int
    seconds: float
    indexed: int
    problems: tuple[str, ...]
    cpu: dict[str, float]


class Indexed:
    """Counts `series.indexed` by series."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.last = 0.0

    async def take(self, incoming: Any) -> None:
        """Take one event."""
        self.count[json.loads(incoming.body)["subject"]] += 1
        self.last = time.monotonic()


def put(servers: Servers, bucket: str, originals: Sequence[Template], names: Sequence[str], connections: int) -> None:
    """Put the copies, all of them at once over so many connections."""
    client = servers.s3_client()

    def send(place: int) -> None:
        for name in names:
            uids = (new_uid(name, "study"), new_uid(name, "series"), new_uid(name, "instance", place))
            client.put_object(Bucket=bucket, Key=f"inbox/{name}/{place:04d}.dcm", Body=originals[place].copy(*uids))

    with ThreadPoolExecutor(connections) as threads:
        list(threads.map(send, range(len(originals))))


async def run(servers: Servers, originals: Sequence[Template], workers: int, arguments: argparse.Namespace) -> Run:
    """Put everything and wait until it is indexed."""
    bucket = f"scale-{workers}"
    servers.new_bucket(bucket)
    database = servers.new_database(f"scale_{workers}")
    environment = servers.environment(
        bucket, database, log_level="WARNING", seaweedfs_filer=servers.s3.filer, reconcile_seconds="0"
    )
    names = [f"copy-{workers}-{number}" for number in range(arguments.series)]
    indexed = Indexed()
    broker = await aio_pika.connect(servers.broker_url)
    async with broker:
        channel = await broker.channel()
        queue = await channel.declare_queue(exclusive=True)
        processes = await asyncio.to_thread(servers.services, dict.fromkeys(SERVICES, workers), environment)
        await queue.bind(EVENTS_EXCHANGE, "series.indexed.v1")
        await queue.consume(indexed.take, no_ack=True)
        before, begun = servers.cpu_seconds(), time.monotonic()
        await asyncio.to_thread(put, servers, bucket, originals, names, arguments.connections)
        try:
            async with asyncio.timeout(arguments.patience):
                while len(indexed.count) < len(names):  # noqa: ASYNC110 - the timeout ends it, and a count has no event
                    await asyncio.sleep(0.1)
        except TimeoutError:
            print(f"{workers} worker(s): only {len(indexed.count)} of {len(names)} were indexed in time")
        after = servers.cpu_seconds()
        problems = await check(servers, bucket, database, len(names), len(originals))
        for process in processes:
            if code := await asyncio.to_thread(process.stop):
                problems.append(f"{process.name} ended with exit code {code}")
        for spec in TOPOLOGY.queues:
            await (await channel.get_queue(spec.name)).purge()
        # Only now: whatever the processes still had to say has come before the broker's answers.
        problems += [f"{uid}: indexed {times} times" for uid, times in indexed.count.items() if times > 1]
    cpu = {kind: after[kind] - before.get(kind, 0.0) for kind in after}
    return Run(workers, max(indexed.last - begun, 0.0), len(indexed.count), tuple(problems), cpu)


async def check(servers: Servers, bucket: str, database: str, series: int, instances: int) -> list[str]:
    """Hold the catalog and the keys of the results to what was put; return what is wrong."""
    engine = open_database(database)
    async with reading(engine) as connection:
        listed = await catalog.list_series(connection, limit=10 * series)
    await engine.dispose()
    problems = [] if len(listed) == series else [f"the catalog has {len(listed)} series, {series} were put"]
    for one in listed:
        status = one.job and one.job.status
        if status is not JobStatus.COMPLETE or one.revisions != 1:
            problems.append(f"{one.series_instance_uid}: {status} after {one.revisions} revision(s)")
        elif one.job and one.job.instances != instances:
            problems.append(f"{one.series_instance_uid}: {one.job.instances} of {instances} instances")
    pages = servers.s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="results/")
    keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
    jobs = {"/".join(key.split("/")[:4]) for key in keys}
    receipts = sum(key.endswith("/receipt.json") for key in keys)
    if not receipts == len(jobs) == series:
        problems.append(f"{len(jobs)} jobs have results and {receipts} a receipt, {series} series were put")
    return problems


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=20, help="how many at once")
    parser.add_argument("--slices", type=int, help="how many slices of the series; all if it is not given")
    parser.add_argument("--workers", default="1,2", help="how many of each service, one run for each number")
    parser.add_argument("--connections", type=int, default=8, help="of the client that puts")
    parser.add_argument("--patience", type=float, default=3600.0, help="seconds that a run may take")
    parser.add_argument(
        "--quick", action="store_true", help=f"only {QUICK['series']} series of {QUICK['slices']} slices"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.series, arguments.slices = QUICK["series"], QUICK["slices"]
    return arguments


async def all_runs(servers: Servers, originals: Sequence[Template], arguments: argparse.Namespace) -> list[Run]:
    """Run with each number of workers."""
    runs = []
    for workers in map(int, arguments.workers.split(",")):
        runs.append(await run(servers, originals, workers, arguments))
        print(f"{workers} worker(s): {runs[-1].indexed} series in {runs[-1].seconds:.1f} s", flush=True)
    return runs


def main() -> int:
    """Run, print the times side by side, and say what is wrong."""
    arguments = read_arguments()
    folder = series_folder()
    if folder is None:
        raise Missing("no test data here (set VOXELMILL_TEST_DATA): there is no CT to copy")
    originals = templates(folder, arguments.slices, compressed=True)
    with tempfile.TemporaryDirectory(prefix="voxelmill-bench-") as name, real_servers(Path(name)) as servers:
        runs = asyncio.run(all_runs(servers, originals, arguments))
    print()
    kinds = sorted({kind for one in runs for kind in one.cpu})
    table(
        ["workers of each", "series indexed", "wall time", *(f"{kind} CPU s" for kind in kinds)],
        [
            [str(one.workers), str(one.indexed), f"{one.seconds:.1f} s", *(f"{one.cpu.get(k, 0.0):.1f}" for k in kinds)]
            for one in runs
        ],
    )
    problems = [f"{one.workers} worker(s): {problem}" for one in runs for problem in one.problems]
    print(f"\n{arguments.series} series of {len(originals)} instances, {len(os.sched_getaffinity(0))} processors")
    print("\n".join(problems) or "every series was indexed, none twice")
    figures: dict[str, object] = {f"seconds_with_{one.workers}": round(one.seconds, 1) for one in runs}
    figures |= {"series": arguments.series, "instances": len(originals), "problems": len(problems)}
    missing = sum(arguments.series - one.indexed for one in runs)
    aims = {"not_indexed": Aim(missing, 0, at_most=True), "wrong": Aim(len(problems), 0, at_most=True)}
    end("scale", aims, figures)
    return 1 if problems or missing else 0


if __name__ == "__main__":
    end_on_signals()
    sys.exit(main())
