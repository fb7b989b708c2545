"""Stopping ingest in the middle of its database work."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from integration.ingest_kit import Clock, Ingest

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_ingest.assembler import Assembler
    from voxelmill_shared.outbox import OutboxRelay


async def test_background_work_that_waits_for_the_database_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    """A cancellation that is taken for an outage of the database would keep a drain waiting for ever."""
    ingest = await Ingest(tmp_path, f"sqlite:///{tmp_path}/ledger.db", Clock()).open()
    await ingest.completed()  # the pool now has a connection, so the next one waits for nothing but the lock
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(ingest.assembler.run())
        deadline = time.monotonic() + 10
        while not ingest.engine.pool.checkedout():  # type: ignore[attr-defined] # of the pools that have a size
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        for _ in range(20):
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.sleep(0)
        writer.execute("ROLLBACK")
    _, unfinished = await asyncio.wait([task], timeout=10)
    assert not unfinished
    assert task.cancelled()
    await ingest.close()


@pytest.mark.parametrize("part", ["assembler", "relay"])
@pytest.mark.parametrize("turns", range(4))
async def test_background_work_that_is_woken_as_it_is_cancelled_ends(tmp_path: Path, part: str, turns: int) -> None:
    """The last message of a drain wakes it just then; a cancellation lost there would keep the process for ever."""
    ingest = await Ingest(tmp_path, f"sqlite:///{tmp_path}/ledger.db", Clock()).open()
    background: Assembler | OutboxRelay = getattr(ingest, part)
    task = asyncio.create_task(background.run())
    deadline = time.monotonic() + 10
    while not background._kicked._waiters:  # type: ignore[attr-defined] # the event's own list of who waits for it
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    background._kicked.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    _, unfinished = await asyncio.wait([task], timeout=2)
    for left in unfinished:
        left.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await ingest.close()
    assert not unfinished
