"""A queue that is long enough takes no more: what is not announced stays where it is durable."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import aiohttp
import pytest
from structlog.testing import capture_logs

from integration.trigger_kit import announcer, listening
from unit.ingest.notification_bodies import aws
from voxelmill_ingest.backpressure import GO_ON_AT, LOOK_SECONDS, Backpressure, QueueFullError
from voxelmill_ingest.reconciler import Reconciler
from voxelmill_ingest.service import MIGRATIONS, VERSION_TABLE
from voxelmill_ingest.triggers.http import PATH, RETRY_SECONDS, HttpSource
from voxelmill_ingest.triggers.normaliser import normalise
from voxelmill_ingest.triggers.sns import SnsConfirmer
from voxelmill_shared.database import open_database
from voxelmill_shared.health import serve
from voxelmill_shared.metrics import REGISTRY
from voxelmill_shared.migrations import upgrade
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import INGEST, TOPOLOGY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from voxelmill_ingest.triggers.announcer import Announcer
    from voxelmill_shared.transport.base import Transport

LIMIT = 10
TOKEN = "a-token-of-some-length"  # noqa: S105 - of this test alone


@dataclass
class Clock:
    """A clock that only moves when it is told to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def look_again(self) -> None:
        self.now += LOOK_SECONDS


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give each transport's broker in turn."""
    embedded = request.param == "embedded"
    return f"embedded://{tmp_path}/broker.db" if embedded else request.getfixturevalue("rabbitmq_vhost_url")


@asynccontextmanager
async def announcing(url: str, tmp_path: Path) -> AsyncIterator[tuple[Announcer, Transport, Clock]]:
    """Give an announcer that holds back at `LIMIT`, and the clock of its looks."""
    transport = open_transport(url)
    clock = Clock()
    try:
        await transport.declare(TOPOLOGY)
        pressure = Backpressure(transport, LIMIT, clock)
        yield replace(announcer(tmp_path, transport), pressure=pressure), transport, clock
    finally:
        await transport.close()


async def announce(source: Announcer, *keys: str) -> None:
    for key in keys:
        await source.announce(normalise(aws(key, bucket="inbox")), "http")


def held_back() -> float | None:
    return REGISTRY.get_sample_value("voxelmill_announcements_held_back")


async def length(transport: Transport) -> int:
    return next(count.ready for count in await transport.counts() if count.queue == INGEST.name)


async def test_a_long_queue_takes_no_more_until_it_is_shorter(url: str, tmp_path: Path) -> None:
    """Above the limit nothing is announced; below nine tenths of it the announcements go on. One log line each."""
    async with announcing(url, tmp_path) as (source, transport, clock):
        await announce(source, *(f"{number}.dcm" for number in range(LIMIT + 1)))
        clock.look_again()
        with capture_logs() as lines:
            for _ in range(3):
                with pytest.raises(
                    QueueFullError, match=rf"{LIMIT + 1} messages wait in .*VOXELMILL_INGEST_QUEUE_LIMIT"
                ):
                    await announce(source, "one more.dcm")
                clock.look_again()
            assert held_back() == 1
            assert await length(transport) == LIMIT + 1
            async with listening(url):
                while await length(transport) > LIMIT * GO_ON_AT:
                    pass
            clock.look_again()
            await announce(source, "one more.dcm")
    assert held_back() == 0
    said = [line["event"] for line in lines if "announcing" in line["event"]]
    assert said == ["announcing nothing until the queue is shorter", "announcing goes on"]


async def test_whoever_pushes_is_told_to_come_again(url: str, tmp_path: Path) -> None:
    """503 with Retry-After: the sender keeps the notification."""
    async with announcing(url, tmp_path) as (source, _, clock):
        await announce(source, *(f"{number}.dcm" for number in range(LIMIT + 1)))
        clock.look_again()
        routes = HttpSource(source, TOKEN, SnsConfirmer("", "")).routes()
        async with serve("ingest", {}, "127.0.0.1", 0, routes) as port, aiohttp.ClientSession() as session:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            address = f"http://127.0.0.1:{port}{PATH}"
            async with session.post(address, json=aws("one more.dcm", bucket="inbox"), headers=headers) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, str(RETRY_SECONDS))


async def test_the_reconciler_waits_too(tmp_path: Path) -> None:
    """A pass ends where the queue is full; a later one announces what is left."""
    database = f"sqlite:///{tmp_path}/voxelmill.db"
    await upgrade(database, package=MIGRATIONS, version_table=VERSION_TABLE)
    engine = open_database(database)
    url = f"embedded://{tmp_path}/broker.db"
    async with announcing(url, tmp_path) as (source, transport, clock):
        inbox = LocalStore(tmp_path / "inbox", "inbox")
        await inbox.write("found.dcm", b"x")
        listing = Reconciler(
            engine, inbox, transport, "test", timedelta(seconds=1), grace=timedelta(0), pressure=source.pressure
        )
        await announce(source, *(f"{number}.dcm" for number in range(LIMIT + 1)))
        clock.look_again()
        with pytest.raises(QueueFullError):
            await listing.once()
        async with listening(url) as heard:
            while len(heard.keys) <= LIMIT:
                await length(transport)
            clock.look_again()
            found = await listing.once()
            assert found.announced == 1
    await engine.dispose()


async def test_without_a_limit_nobody_looks(tmp_path: Path) -> None:
    """0 is as many as there are."""
    transport = open_transport(f"embedded://{tmp_path}/broker.db")
    try:
        await transport.declare(TOPOLOGY)
        source = replace(announcer(tmp_path, transport), pressure=Backpressure(transport, 0))
        await announce(source, *(f"{number}.dcm" for number in range(LIMIT + 5)))
        assert await length(transport) == LIMIT + 5
    finally:
        await transport.close()
