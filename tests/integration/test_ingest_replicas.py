"""Several replicas of ingest, and what arrives while a series is being completed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from integration.ingest_kit import ABDOMEN, CHEST, Ingest, files_of, of
from voxelmill_ingest.tables import series
from voxelmill_shared.database import transaction
from voxelmill_shared.errors import StoreUnavailableError
from voxelmill_shared.events import (
    ObjectRef,
    ObjectUploaded,
    ObjectValidated,
    SeriesValidated,
    UploadCompleted,
)

if TYPE_CHECKING:
    from pathlib import Path


async def test_two_replicas_at_once_complete_each_series_once(ingest: Ingest, data: Path) -> None:
    other = Ingest(ingest.folder, ingest.database, ingest.clock)
    files = files_of(data / ABDOMEN) | files_of(data / CHEST, 12)
    references = [await ingest.put(key, body) for key, body in files.items()]

    async def announce(number: int, reference: ObjectRef) -> None:
        replica = (ingest, other)[number % 2]
        await replica.ingest_object(ObjectUploaded(object=reference, found_by="command", upload_id="upload-1"))

    await asyncio.gather(*(announce(number, one) for number, one in enumerate(references)))
    await asyncio.gather(
        ingest.complete(UploadCompleted(upload_id="upload-1", objects=len(files))),
        other.complete(UploadCompleted(upload_id="upload-1", objects=len(files))),
    )
    counts = await asyncio.gather(ingest.assembler.complete_due(), other.assembler.complete_due())
    published = await ingest.published()
    await other.close()
    assert sum(counts) == 2
    assert sorted(event.instances for event in of(SeriesValidated, published)) == [12, 20]
    assert len(of(ObjectValidated, published)) == 32


async def test_a_replica_that_dies_with_a_lease_is_replaced_when_the_lease_ends(ingest: Ingest, data: Path) -> None:
    await ingest.upload(files_of(data / ABDOMEN, 3), "upload-1")
    lease_end = ingest.clock() + ingest.assembler.lease
    async with transaction(ingest.engine) as connection:
        await connection.execute(update(series).values(leased_by="a dead replica", leased_until=lease_end))
    assert await ingest.completed() == []
    ingest.clock.wait(ingest.assembler.lease.total_seconds() + 1)
    assert [event.instances for event in await ingest.completed()] == [3]


async def three_due_series(ingest: Ingest, data: Path) -> None:
    """Bring in three series and let their timers ring."""
    await ingest.upload(files_of(data / ABDOMEN, 2))
    await ingest.upload(files_of(data / CHEST, 2))
    await ingest.upload(files_of(data / "geometry" / "gap_ge_4slices", 2))
    ingest.clock.wait(31)


async def test_a_failed_pass_keeps_no_series_from_the_others(ingest: Ingest, data: Path) -> None:
    """With the result store away, the leases are given back: the next look need not wait for their end."""
    await three_due_series(ingest, data)
    results = ingest.folder / "results"
    results.write_bytes(b"not a folder")
    with pytest.raises(StoreUnavailableError):
        await ingest.assembler.complete_due()
    results.unlink()
    other = Ingest(ingest.folder, ingest.database, ingest.clock)
    assert await other.assembler.complete_due() == 3
    await other.close()


async def test_a_pass_that_is_cancelled_gives_its_series_back(
    ingest: Ingest, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await three_due_series(ingest, data)
    writing = asyncio.Event()

    async def write_for_ever(*_: object) -> None:
        writing.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(ingest.stores.results, "write", write_for_ever)
    task = asyncio.create_task(ingest.assembler.complete_due())
    await asyncio.wait_for(writing.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    other = Ingest(ingest.folder, ingest.database, ingest.clock)
    assert await other.assembler.complete_due() == 3
    await other.close()


async def test_an_object_that_arrives_while_its_series_is_being_completed_is_not_lost(
    ingest: Ingest, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(data / ABDOMEN, 4)
    late = dict([files.popitem()])
    await ingest.upload(files, "upload-1")
    write = ingest.stores.results.write

    async def write_and_receive(*arguments: object) -> object:
        monkeypatch.undo()
        await ingest.upload(late)
        return await write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ingest.stores.results, "write", write_and_receive, raising=True)
    assert await ingest.completed() == []
    ingest.clock.wait(31)
    (event,) = await ingest.completed()
    assert (event.instances, event.revision) == (4, 1)
