"""One replica at a time holds a duty; another takes over where it stood."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from sqlalchemy import update

from voxelmill_ingest.duties import Duty
from voxelmill_ingest.service import MIGRATIONS, VERSION_TABLE
from voxelmill_ingest.tables import duties, metadata
from voxelmill_shared.database import open_database, transaction
from voxelmill_shared.migrations import differences, upgrade

LEASE = timedelta(seconds=0.6)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
async def engine(request, tmp_path):
    """The ledger on both databases, brought up to date."""
    url = f"sqlite:///{tmp_path}/ledger.db" if request.param == "sqlite" else request.getfixturevalue("database")
    await upgrade(url, package=MIGRATIONS, version_table=VERSION_TABLE)
    assert await differences(url, metadata) == []
    engine = open_database(url)
    yield engine
    await engine.dispose()


class Replica:
    """A replica that counts in its duty until it is stopped."""

    def __init__(self, engine, owner, lease=LEASE):
        self.duty = Duty(engine, "count", owner, lease)
        self.began = []
        self.moved = 0
        self.task = asyncio.create_task(self.duty.hold(self.work))

    async def work(self, position):
        self.began.append(position)
        await self.duty.move((position or 0) + 1)
        self.moved += 1
        await asyncio.Event().wait()

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def until(condition, what):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.01)


async def test_one_works_and_the_next_goes_on_where_it_stood(engine):
    """While one holds the duty the other waits; given back, it is taken at once with its position."""
    one = Replica(engine, "one")
    await until(lambda: one.began, "nobody took the duty")
    other = Replica(engine, "other")
    await asyncio.sleep(3 * LEASE.total_seconds())  # the lease would have run out twice: it is renewed
    assert (one.duty.held, other.began) == (True, [])
    await one.stop()
    await until(lambda: other.began, "the duty was not taken over")
    assert (one.began, other.began) == ([None], [1])
    await other.stop()


async def test_who_lost_the_lease_stops(engine):
    """A replica that was away for too long finds another one's name in the row: its work is cancelled."""
    one = Replica(engine, "one")
    await until(lambda: one.moved, "nobody took the duty")
    async with transaction(engine) as connection:
        await connection.execute(update(duties).values(leased_by="other"))
    await until(lambda: not one.duty.held, "it goes on without the lease")
    await until(lambda: len(one.began) == 2, "the other one's lease ran out and nobody took the duty")
    assert one.began == [None, 1]
    await one.stop()
