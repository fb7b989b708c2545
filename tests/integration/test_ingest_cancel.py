"""Stopping ingest in the middle of its database work."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

from integration.ingest_kit import Clock, Ingest

if TYPE_CHECKING:
    from pathlib import Path


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
