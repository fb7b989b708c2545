"""Ingest killed in the middle of its work, as a process of its own on real servers: nothing is lost, nothing double."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select

from voxelmill_ingest.service import MIGRATIONS, VERSION_TABLE
from voxelmill_ingest.tables import instances, objects, outbox, series
from voxelmill_shared.database import open_database, reading
from voxelmill_shared.events import Envelope, ObjectRef, ObjectUploaded, UploadCompleted
from voxelmill_shared.migrations import upgrade
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.transport.base import Message
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import INDEX, INGEST, TOPOLOGY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_shared.transport.base import Delivery, Transport

COPIES = 6
"""Times 20 instances, each copy announced under keys of its own."""
KILLS = 2
SECONDS = 120


@contextmanager
def ingest(environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run ingest; kill it at the end."""
    process = subprocess.Popen([sys.executable, "-m", "voxelmill_ingest"], env=dict(environment))
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def count(engine: AsyncEngine, table: Any) -> int:
    async with reading(engine) as connection:
        return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


async def unsettled(transport: Transport) -> int:
    """How many messages ingest has not acknowledged; one that it gave up counts for ever."""
    counts = [one for one in await transport.counts() if one.queue == INGEST.name]
    return sum(one.ready + one.in_hand + one.waiting + one.dead for one in counts)


async def until_settled(engine: AsyncEngine, least: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS
    while await count(engine, objects) < least:
        assert process.poll() is None, "ingest ended by itself"
        assert time.monotonic() < deadline, "ingest does not settle what is announced"
        await asyncio.sleep(0.01)


@pytest.mark.rabbitmq
@pytest.mark.postgresql
async def test_every_object_is_settled_and_told_of_whenever_ingest_is_killed(
    rabbitmq_vhost_url: str, database: str, data: Path, tmp_path: Path
) -> None:
    """Each kill meets objects that are read, being written down, written down and not told of, or not acknowledged."""
    environment = {
        **os.environ,
        "VOXELMILL_BROKER_URL": rabbitmq_vhost_url,
        "VOXELMILL_DATABASE_URL": database,
        **{f"VOXELMILL_{name.upper()}_URL": f"{tmp_path}/{name}" for name in ("inbox", "work", "results")},
        "VOXELMILL_SCRATCH": str(tmp_path / "scratch"),
        "VOXELMILL_PORT": "0",
        "VOXELMILL_CONCURRENCY": "16",
        "VOXELMILL_LOG_LEVEL": "ERROR",
        "VOXELMILL_QUIET_SECONDS": "600",
        "VOXELMILL_GEOMETRY_SECONDS": "600",
        "VOXELMILL_UPLOAD_SECONDS": "600",
    }
    store = LocalStore(tmp_path / "inbox", "inbox")
    bodies = [path.read_bytes() for path in sorted((data / "totalseg_ct_dicom_20").iterdir())]
    announced = []
    for number in range(COPIES * len(bodies)):
        stored = await store.write(f"{number:04d}", bodies[number % len(bodies)])
        reference = ObjectRef(bucket="inbox", key=stored.key, etag=stored.etag, size=stored.size)
        announced.append(ObjectUploaded(object=reference, found_by="command", upload_id="u"))
    told: Counter[str] = Counter()

    async def hear(delivery: Delivery) -> None:
        if delivery.message.routing_key == "object.validated.v1":
            told[Envelope.decode(delivery.message.body).subject] += 1
        await delivery.ack()

    await upgrade(database, package=MIGRATIONS, version_table=VERSION_TABLE)
    transport, engine = open_transport(rabbitmq_vhost_url), open_database(database)
    try:
        await transport.declare(TOPOLOGY)
        consumer = await transport.consume(INDEX, hear, prefetch=100)
        wrapped = [
            Envelope.wrap(one, "test") for one in (*announced, UploadCompleted(upload_id="u", objects=len(announced)))
        ]
        await transport.publish([Message(one.encode(), one.routing_key, str(one.id)) for one in wrapped])
        for kill in range(KILLS):
            with ingest(environment) as process:
                await until_settled(engine, 1 + (kill * len(announced)) // KILLS, process)
        with ingest(environment) as process:
            await until_settled(engine, len(announced), process)
            deadline = time.monotonic() + SECONDS
            while len(told) < len(announced) or await count(engine, outbox) or await unsettled(transport):
                assert time.monotonic() < deadline, f"told of {len(told)} of {len(announced)}"
                await asyncio.sleep(0.05)
        await consumer.cancel()
        async with reading(engine) as connection:
            statuses = Counter((await connection.execute(select(objects.c.status))).scalars())
            evidence = (await connection.execute(select(series.c.evidence))).scalars().all()
        assert statuses == {"validated": len(announced)}
        assert await count(engine, instances) == len(bodies)
        assert evidence == ["upload"]
    finally:
        await transport.close()
        await engine.dispose()
        await store.close()
