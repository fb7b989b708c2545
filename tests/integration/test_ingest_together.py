"""Many objects at once: written down together, decided one by one."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, func, insert, select, text

from integration.ingest_kit import PATIENCE, Clock, Ingest, of
from voxelmill_ingest.findings import Instance, Refusal
from voxelmill_ingest.ledger import Ledger
from voxelmill_ingest.reasons import Reason
from voxelmill_ingest.rows import lock
from voxelmill_ingest.settlement import ObjectChangedError
from voxelmill_ingest.tables import instances, objects, series, uploads
from voxelmill_shared.database import open_database, reading, transaction
from voxelmill_shared.events import (
    Event,
    ObjectKind,
    ObjectRef,
    ObjectRejected,
    ObjectUploaded,
    ObjectValidated,
    UploadCompleted,
)
from voxelmill_shared.outcome import Done
from voxelmill_shared.storage.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncEngine

COUNT = 60


def reference(number: int, content: str = "") -> ObjectRef:
    return ObjectRef(bucket="inbox", key=f"{number:04d}", etag=f"{number:032x}{content}", size=1000)


def instance(number: int, one_series: str = "1.2") -> Instance:
    return Instance(
        kind=ObjectKind.DICOM,
        study_instance_uid="1.1",
        series_instance_uid=one_series,
        sop_instance_uid=f"1.3.{number}",
    )


async def count(ingest: Ingest, table: object) -> int:
    async with reading(ingest.engine) as connection:
        found: int = (await connection.execute(select(func.count()).select_from(table))).scalar_one()  # type: ignore[arg-type]
    return found


async def test_many_objects_cost_few_transactions_and_each_has_its_event(ingest: Ingest) -> None:
    commits = 0

    def committed(_: object) -> None:
        nonlocal commits
        commits += 1

    event.listen(ingest.engine.sync_engine, "commit", committed)
    now = ingest.clock()
    numbers = range(COUNT)
    await asyncio.gather(*(ingest.ledger.settle(reference(n), now, instance(n, f"1.2.{n % 3}"), None) for n in numbers))
    event.remove(ingest.engine.sync_engine, "commit", committed)
    assert commits < 5
    published = of(ObjectValidated, await ingest.published())
    assert sorted(one.object.key for one in published) == sorted(reference(n).key for n in numbers)
    assert await count(ingest, instances) == await count(ingest, objects) == COUNT
    async with reading(ingest.engine) as connection:
        touches = Counter({row.series_instance_uid: row.touches for row in await connection.execute(select(series))})
    assert touches == {f"1.2.{n}": COUNT // 3 for n in range(3)}


async def test_the_same_object_many_times_at_once_is_one_object(ingest: Ingest) -> None:
    now = ingest.clock()
    await asyncio.gather(*(ingest.ledger.settle(reference(1), now, instance(1), "upload-1") for _ in range(20)))
    assert len({one.event_id() for one in await ingest.published()}) == 1
    assert await count(ingest, objects) == 1
    async with reading(ingest.engine) as connection:
        settled = (await connection.execute(select(uploads.c.settled))).scalar_one()
    assert settled == 1


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(
            ObjectRef.model_construct(bucket="inbox", key="caf\udce9", etag="0" * 32, size=1, version_id=None),
            id="no-text-of-Unicode",
        ),
        pytest.param(ObjectRef(bucket="inbox", key="large", etag="0" * 32, size=1 << 63), id="more-than-64-bits"),
    ],
)
async def test_a_row_that_the_database_refuses_fails_alone(ingest: Ingest, bad: ObjectRef) -> None:
    """What no database holds: its neighbours must not suffer for it."""
    now = ingest.clock()
    refused = Refusal(reason=Reason.NOT_DICOM, detail="x")
    references = [reference(0), bad, *(reference(n) for n in range(1, 10))]
    answers = await asyncio.gather(
        *(ingest.ledger.settle(one, now, refused, None) for one in references), return_exceptions=True
    )
    assert isinstance(answers.pop(1), Exception)
    assert answers == [False] * 10
    assert await count(ingest, objects) == 10
    assert len(of(ObjectRejected, await ingest.published())) == 10


async def test_what_is_older_than_the_ledger_fails_alone(ingest: Ingest) -> None:
    """One object was replaced while it was looked at; the others of its batch were not."""
    looked_at = ingest.clock()
    ingest.clock.wait(1)
    await ingest.ledger.settle(reference(1, "new"), ingest.clock(), instance(1), None)
    answers = await asyncio.gather(
        *(ingest.ledger.settle(reference(n), looked_at, instance(n), None) for n in range(3)), return_exceptions=True
    )
    assert isinstance(answers[1], ObjectChangedError)
    assert answers[::2] == [False, False]
    assert await count(ingest, instances) == 3


@pytest.mark.parametrize("announced", ["ab", "ba", "together"])
async def test_of_two_contents_of_one_instance_the_first_that_was_put_is_taken(
    ingest: Ingest, data: Path, announced: str
) -> None:
    """Whichever is announced first: the other is refused by its name, and the series is made of the same."""
    body = next((data / "totalseg_ct_dicom_20").iterdir()).read_bytes()
    files = {"z/a": body, "b": body[:-1] + bytes([body[-1] ^ 1])}
    events = {key[-1]: ObjectUploaded(object=await ingest.put(key, files[key]), found_by="command") for key in files}
    for number, key in enumerate(files):
        os.utime(ingest.folder / "inbox" / key, (1_000_000 + number, 1_000_000 + number))
    if announced == "together":
        assert await asyncio.gather(*map(ingest.ingest_object, events.values())) == [Done(), Done()]
        for again in of(ObjectUploaded, await ingest.published()):
            await ingest.handle(again)
    else:
        for one in announced:
            await ingest.handle(events[one])
    assert await ingest.statuses() == {"z/a": "validated", "b": "rejected"}
    ingest.clock.wait(60)
    (completed,) = await ingest.completed()
    assert [one.object.key for one in (await ingest.manifest(completed)).instances] == ["z/a"]


async def test_what_loses_its_instance_to_an_earlier_object_is_refused_and_said_so(ingest: Ingest, data: Path) -> None:
    """Also if its series was complete already: a new revision has the object that was put first."""
    body = next((data / "totalseg_ct_dicom_20").iterdir()).read_bytes()
    late = ObjectUploaded(object=await ingest.put("late", body), found_by="command")
    await ingest.handle(late)
    ingest.clock.wait(60)
    (before,) = await ingest.completed()
    early = ObjectUploaded(object=await ingest.put("early", body[:-1] + bytes([body[-1] ^ 1])), found_by="command")
    os.utime(ingest.folder / "inbox" / "early", (0, 0))
    published = await ingest.handle(early)
    (taken,), (refused,) = of(ObjectValidated, published), of(ObjectRejected, published)
    assert (taken.object.key, refused.object.key, refused.reason) == ("early", "late", "conflicting-instance")
    ingest.clock.wait(60)
    (after,) = await ingest.completed()
    assert (before.revision, after.revision) == (1, 2)


async def test_an_upload_whose_objects_all_come_at_once_is_complete(ingest: Ingest, data: Path) -> None:
    paths = sorted((data / "totalseg_ct_dicom_20").iterdir())
    announced: list[Event] = [
        ObjectUploaded(object=await ingest.put(path.name, path.read_bytes()), found_by="command", upload_id="u")
        for path in paths
    ]
    await ingest.complete(UploadCompleted(upload_id="u", objects=len(paths)))
    assert await asyncio.gather(*map(ingest.ingest_object, announced)) == [Done()] * len(paths)  # type: ignore[arg-type] # all are uploads
    await ingest.published()
    (completed,) = await ingest.completed()
    assert (completed.instances, completed.evidence) == (len(paths), "upload")


async def test_replicas_that_settle_the_same_objects_at_once_wait_for_each_other(database: str, tmp_path: Path) -> None:
    """In opposite orders, with series and an upload in common: no deadlock, and nothing is counted twice."""
    first = await Ingest(tmp_path / "first", database, Clock()).open()
    other = open_database(database)
    now = first.clock()
    ledgers = [first.ledger, Ledger(other, "other", PATIENCE, first.clock)]
    orders = [range(COUNT), range(COUNT - 1, -1, -1)]

    async def settle(ledger: Ledger, number: int) -> bool:
        found = instance(number, f"1.2.{number % 7}")
        return await ledger.settle(reference(number), now, found, f"upload-{number % 2}")

    answers = await asyncio.gather(
        *(settle(ledger, number) for ledger, order in zip(ledgers, orders, strict=True) for number in order),
        *(ledgers[0].complete_upload(f"upload-{n}", COUNT // 2) for n in range(2)),
        return_exceptions=True,
    )
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []
    async with reading(first.engine) as connection:
        settled = (await connection.execute(select(uploads.c.settled))).scalars().all()
        due = (await connection.execute(select(series.c.evidence))).scalars().all()
    assert settled == [COUNT // 2] * 2
    assert due == ["upload"] * 7
    assert await count(first, objects) == await count(first, instances) == COUNT
    await other.dispose()
    await first.close()


async def until_somebody_waits(engine: AsyncEngine) -> None:
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with asyncio.timeout(20):
        while True:
            async with reading(engine) as connection:
                if (await connection.execute(waiting)).scalar_one():
                    return
            await asyncio.sleep(0.01)  # between two looks: only the server knows who waits


@pytest.mark.parametrize(
    ("table", "row"),
    [
        pytest.param(series, {"study_instance_uid": "1.1", "project": "", "changed_at": Clock().time}, id="series"),
        pytest.param(uploads, {"settled": 0, "first_seen": Clock().time, "changed_at": Clock().time}, id="uploads"),
    ],
)
async def test_who_waits_for_a_row_that_is_being_made_holds_none_of_the_table(
    database: str, tmp_path: Path, table: Table, row: dict[str, object]
) -> None:
    """Somebody makes the first row and then needs the second, which is there: ingest must not have locked it."""
    ingest = await Ingest(tmp_path, database, Clock()).open()
    (key,) = table.primary_key
    async with transaction(ingest.engine) as connection:
        await connection.execute(insert(table), row | {key.name: "1.2.1"})
    async with transaction(ingest.engine) as connection:
        await connection.execute(insert(table), row | {key.name: "1.2.0"})
        settling = asyncio.gather(
            *(ingest.ledger.settle(reference(n), ingest.clock(), instance(n, f"1.2.{n}"), f"1.2.{n}") for n in range(2))
        )
        await until_somebody_waits(ingest.engine)
        await connection.execute(select(table).with_for_update(nowait=True))
    assert await settling == [False, False]
    assert await count(ingest, objects) == 2
    await ingest.close()


async def test_many_rows_are_locked_in_the_order_of_their_keys(database: str, tmp_path: Path) -> None:
    """Whoever waits for the first holds none of those behind it, however the table is laid out."""
    ingest = await Ingest(tmp_path, database, Clock()).open()
    row = {"settled": 0, "first_seen": Clock().time, "changed_at": Clock().time}
    async with transaction(ingest.engine) as connection:
        for upload_id in "cba":
            await connection.execute(insert(uploads), row | {"upload_id": upload_id})

    async def lock_all() -> list[str]:
        async with transaction(ingest.engine) as other:
            return await lock(other, uploads, uploads.c.upload_id.in_(["b", "c", "a"]))

    async with transaction(ingest.engine) as connection:
        await connection.execute(select(uploads).where(uploads.c.upload_id == "a").with_for_update())
        locking = asyncio.create_task(lock_all())
        await until_somebody_waits(ingest.engine)
        await connection.execute(select(uploads).with_for_update(nowait=True))
    assert await locking == ["a", "b", "c"]
    await ingest.close()


class Overwriting(LocalStore):
    """Somebody overwrites an object as soon as more of it than its head is read."""

    def __init__(self, root: Path, body: bytes) -> None:
        super().__init__(root, "inbox")
        self._body: bytes | None = body

    async def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if self._body is not None:
            await self.write(key, self._body)
            self._body = None
        return await super().read(key, start, length)


async def test_nothing_is_filed_under_a_content_that_it_was_not_read_from(ingest: Ingest, data: Path) -> None:
    """A header longer than the first read, and an object that is overwritten in between: look again."""
    import pydicom

    path = next((data / "totalseg_ct_dicom_20").iterdir())
    long = pydicom.dcmread(path)
    long.private_block(0x0009, "VOXELMILL TEST", create=True).add_new(0x01, "OB", bytes(40_000))
    long.save_as(tmp := ingest.folder / "long.dcm")
    store = Overwriting(ingest.folder / "inbox", path.read_bytes())
    handler = replace(ingest.ingest_object, stores=replace(ingest.stores, inbox=store))
    announced = ObjectUploaded(object=await ingest.put(secrets.token_hex(4), tmp.read_bytes()), found_by="command")
    with pytest.raises(ObjectChangedError):
        await handler(announced)
    assert await count(ingest, objects) == 0
    assert await handler(announced) == Done()
    (taken,) = of(ObjectValidated, await ingest.published())
    assert taken.object.size == path.stat().st_size
