"""One job that is in hand twice is worked on once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from voxelmill_shared.events import Stage
from voxelmill_shared.results import ResultKeys
from voxelmill_shared.stage import StageResults
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.stores import Stores
from voxelmill_shared.work import WorkResult

KEYS = ResultKeys("1.2.3", 1, "job")
OTHER = ResultKeys("1.2.3", 2, "job")


@pytest.fixture
def results(tmp_path):
    return StageResults(
        Stores(*(LocalStore(tmp_path / name, name) for name in ("inbox", "work", "results"))), Stage.MESH
    )


class Working:
    """Work that ends when it is let."""

    def __init__(self, results):
        self.results = results
        self.begun = []
        self.told = asyncio.Queue()
        self.may_end = asyncio.Event()

    def of(self, keys):
        async def work():
            self.begun.append(keys)
            self.told.put_nowait(keys)
            await self.may_end.wait()
            now = datetime.now(UTC)
            return await self.results.write(keys, WorkResult(files=(), seconds={}), now, now, 0.0)

        return self.results.once(keys, work)


async def test_the_second_delivery_waits_for_the_first_and_finds_its_record(results):
    """Both get the same record, and the work was done once; another job is not held up."""
    working = Working(results)
    both = [asyncio.create_task(working.of(KEYS)) for _ in range(2)]
    other = asyncio.create_task(working.of(OTHER))
    for _ in range(2):
        await working.told.get()
    assert sorted(keys.revision for keys in working.begun) == [1, 2]
    working.may_end.set()
    first, second = await asyncio.gather(*both)
    await other
    assert first == second
    assert sorted(keys.revision for keys in working.begun) == [1, 2]


async def test_work_that_failed_is_done_by_the_one_that_waits(results):
    """An attempt that breaks leaves no record: the next one works."""
    working = Working(results)
    failing = asyncio.create_task(working.of(KEYS))
    waiting = asyncio.create_task(working.of(KEYS))
    await working.told.get()
    failing.cancel()
    working.may_end.set()
    reference, _ = await waiting
    assert reference.key == KEYS.stage_record(Stage.MESH)
    assert len(working.begun) == 2
