"""Events about objects that are in hand at the same time, recorded in one transaction."""

from __future__ import annotations

import asyncio
import itertools

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from integration.index_kit import Index, Series
from voxelmill_shared import catalog
from voxelmill_shared.database import reading, transaction
from voxelmill_shared.outcome import Done

UIDS = (f"1.2.826.{number}" for number in itertools.count(1000))


async def test_many_objects_at_a_time_leave_what_one_after_the_other_does(index: Index, other: Index) -> None:
    """Two replicas with the same events in hand, in opposite orders: neither is in the other's way."""
    series = Series(index.store, next(UIDS))
    events = series.objects()
    for event in events:
        assert await index.take(event) == Done()
    expected = await index.contents(series.uid)
    for times in range(1, 9):
        several = [Series(index.store, next(UIDS)) for _ in range(20)]
        ahead = [event for one in several for event in one.objects()]
        outcomes = await asyncio.gather(*map(index.take, ahead), *map(other.take, reversed(ahead)))
        assert set(outcomes) == {Done()}
        assert await index.contents(several[times].uid) == expected
        async with reading(index.engine) as connection:
            assert (await catalog.counts(connection)).audit == len(events) + times * len(ahead)


async def test_an_event_that_cannot_be_recorded_holds_up_no_other(index: Index) -> None:
    """What the database refuses fails, and what is in hand with it is recorded."""
    for event in Series(index.store, next(UIDS)).objects():
        assert await index.take(event) == Done()
    async with transaction(index.engine) as connection:
        await connection.execute(
            text("CREATE UNIQUE INDEX one_scout ON catalog_objects (reason) WHERE reason = 'localizer'")
        )
    *good, bad = Series(index.store, next(UIDS)).objects()
    found = await asyncio.gather(*map(index.take, (bad, *good)), return_exceptions=True)
    assert isinstance(found[0], DBAPIError)
    assert found[1:] == [Done()] * len(good)
    async with reading(index.engine) as connection:
        assert len(await catalog.audit(connection)) == 3 + len(good)
