"""The wired index service: from its queue into the catalog, and its own fact back through the outbox."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from integration.index_kit import Series
from voxelmill_index.service import build
from voxelmill_index.settings import IndexSettings
from voxelmill_shared import catalog
from voxelmill_shared.catalog import JobStatus
from voxelmill_shared.child import Limits
from voxelmill_shared.database import open_database, reading
from voxelmill_shared.events import Stage
from voxelmill_shared.parts import Parts, Scratch
from voxelmill_shared.receipt_check import verify_receipt
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.stores import Stores
from voxelmill_shared.transport.base import Message
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import INDEX, TOPOLOGY
from voxelmill_shared.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_shared.catalog import AuditView
    from voxelmill_shared.events import Envelope
    from voxelmill_shared.transport.base import Transport

DEADLINE = 60.0
INDEXED = "series.indexed.v1"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """Give an engine to look into an empty database of each kind; the services open their own."""
    sqlite = request.param == "sqlite"
    engine = open_database(f"sqlite:///{tmp_path}/catalog.db" if sqlite else request.getfixturevalue("database"))
    yield engine
    await engine.dispose()


@asynccontextmanager
async def running(tmp_path: Path, engine: AsyncEngine) -> AsyncIterator[tuple[Transport, Parts]]:
    """Run one replica of index with a transport of its own, and drain it at the end."""
    transport = open_transport(f"embedded://{tmp_path}/broker.db")
    stores = Stores(*(LocalStore(tmp_path / name, name) for name in ("inbox", "work", "results")))
    url = engine.url.render_as_string(hide_password=False)
    parts = Parts(transport, stores, url, Scratch(tmp_path / "scratch"), Limits(1 << 30, 60))
    stop = asyncio.Event()
    worker = Worker(build(parts, IndexSettings()), transport, ladder=[timedelta(milliseconds=100)] * 5)
    task = asyncio.create_task(worker.run(stop))
    try:
        await asyncio.wait_for(worker.consuming.wait(), DEADLINE)
        yield transport, parts
    finally:
        stop.set()
        await task
        await transport.close()


async def publish(transport: Transport, envelopes: list[Envelope]) -> None:
    await transport.publish([Message(one.encode(), one.routing_key, str(one.id)) for one in envelopes])


async def trail(engine: AsyncEngine, until: Callable[[list[AuditView]], bool]) -> list[AuditView]:
    """Read the audit trail until it says what is waited for."""
    end = time.monotonic() + DEADLINE
    while True:
        async with reading(engine) as connection:
            found = await catalog.audit(connection, limit=10_000)
        if until(found):
            return found
        assert time.monotonic() < end, [(entry.what, entry.subject) for entry in found]
        await asyncio.sleep(0.02)


async def test_two_replicas_index_what_arrives_in_any_order(tmp_path: Path, engine: AsyncEngine) -> None:
    """Every event of several series, shuffled and sent twice: each job is complete, and indexed once."""
    async with running(tmp_path, engine) as (transport, parts), running(tmp_path, engine):
        jobs = [Series(parts.stores.results, f"1.2.{number}") for number in range(4)]
        events = [event for series in jobs for event in await series.all()]
        twice = events * 2
        random.Random(4).shuffle(twice)
        await publish(transport, twice)
        found = await trail(engine, lambda entries: len(entries) == len(events) + len(jobs))
        async with reading(engine) as connection:
            views = await catalog.list_series(connection)

    assert {view.series_instance_uid for view in views} == {series.uid for series in jobs}
    assert sum(entry.what == INDEXED for entry in found) == len(jobs)
    for view in views:
        assert view.job is not None
        assert view.job.status is JobStatus.COMPLETE
        assert await verify_receipt(parts.stores.results, view.job.receipt_key) == []


async def test_the_fact_continues_the_trace_of_the_event_that_completed_the_job(
    tmp_path: Path, engine: AsyncEngine
) -> None:
    """From the last stage's event to `series.indexed`: one trace, and each names the one before."""
    async with running(tmp_path, engine) as (transport, parts):
        *before, last = await Series(parts.stores.results, "1.2").all()
        await publish(transport, before)
        await trail(engine, lambda entries: len(entries) == len(before))
        await publish(transport, [last])
        found = await trail(engine, lambda entries: len(entries) == len(before) + 2)
    indexed = found[-1]
    assert (indexed.what, indexed.who, indexed.outcome) == (INDEXED, "voxelmill/index", "done")
    assert indexed.caused_by == str(last.id)
    assert indexed.trace_id == last.trace_id
    assert indexed.job_id == last.correlationid


async def test_what_was_not_published_is_published_after_a_restart(tmp_path: Path, engine: AsyncEngine) -> None:
    """Events that came while index was away wait for it; a document that was late is waited for on the ladder."""
    async with running(tmp_path, engine) as (transport, parts):
        series = Series(parts.stores.results, "1.2")
        *before, last = await series.all()
        await publish(transport, before)
        await trail(engine, lambda entries: len(entries) == len(before))
    record = await parts.stores.results.read(series.keys.stage_record(Stage.MESH))
    await parts.stores.results.delete(series.keys.stage_record(Stage.MESH))
    waiting = open_transport(f"embedded://{tmp_path}/broker.db")
    await waiting.declare(TOPOLOGY)
    await publish(waiting, [last])
    await waiting.close()

    async with running(tmp_path, engine) as (transport, parts):
        end = time.monotonic() + DEADLINE
        while not any(count.waiting for count in await transport.counts() if count.queue == INDEX.name):
            assert time.monotonic() < end, "the message did not go onto a rung"
            await asyncio.sleep(0.01)
        await parts.stores.results.write(series.keys.stage_record(Stage.MESH), record)
        await trail(engine, lambda entries: any(entry.what == INDEXED for entry in entries))
        async with reading(engine) as connection:
            job = await catalog.find_job(connection, series.keys.job_id)
    assert job is not None
    assert job.status is JobStatus.COMPLETE


async def test_an_event_that_index_cannot_read_is_a_dead_letter_that_is_audited(
    tmp_path: Path, engine: AsyncEngine
) -> None:
    """It is kept byte for byte; the failure itself is an event, and so it is in the trail."""
    async with running(tmp_path, engine) as (transport, parts):
        good = (await Series(parts.stores.results, "1.2").all())[0]
        body = json.loads(good.encode()) | {"data": {"object": None}}
        await transport.publish([Message(json.dumps(body).encode(), good.routing_key, str(good.id))])
        (entry,) = await trail(engine, lambda entries: len(entries) == 1)
        letters = [letter async for letter in transport.dead_letters(INDEX)]
    assert (entry.what, entry.stage, entry.outcome) == ("stage.failed.v1", "index", "failed")
    assert entry.reason.startswith("undecodable: ")
    assert [letter.message.body for letter in letters] == [json.dumps(body).encode()]
