"""Writing down what became of an object: ledger, instances, series, uploads and outbox in one transaction.

Everything here may be called again with the same arguments and then changes nothing but times; the same events go out
again under the same ids. The row of the series is locked first, so the decisions about one series follow one another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from voxelmill_ingest.assembly import evidence_of
from voxelmill_ingest.findings import FINDING, Finding, Instance, Refusal, Unpacked
from voxelmill_ingest.reasons import Reason
from voxelmill_ingest.tables import instances, objects, outbox, series, upload_objects, uploads
from voxelmill_shared.database import is_sqlite, reading, transaction
from voxelmill_shared.errors import TransientError
from voxelmill_shared.events import Envelope, ObjectRef, Severity
from voxelmill_shared.outbox import add

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from voxelmill_ingest.assembly import Patience
    from voxelmill_shared.events import Event

_RELATIVE = {Reason.CONFLICTING_INSTANCE, Reason.SERIES_IN_TWO_STUDIES}
"""Reasons that depend on other objects, so they are found anew each time."""


class ObjectChangedError(TransientError):
    """The object was replaced while it was looked at: look again."""

    error_class = "object-changed"


class ConflictError(Exception):
    """Another object already holds this instance with other content. Nothing was written down.

    Whether that object still stands is the store's to say; settle again with the answer.
    """

    def __init__(self, other: ObjectRef) -> None:
        super().__init__(other)
        self.other = other


@dataclass(frozen=True, slots=True)
class Rival:
    """The object of a `ConflictError`, and whether it still stands."""

    reference: ObjectRef
    stands: bool


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger in its database.

    `source` is the name that this process has in the envelopes of events; `now` is the clock.
    """

    engine: AsyncEngine
    source: str
    patience: Patience
    now: Callable[[], datetime]

    async def known(self, reference: ObjectRef) -> Instance | Refusal | None:
        """Return what was found in this very content before, if it can be relied on without looking again."""
        query = select(objects.c.finding).where(
            objects.c.bucket == reference.bucket,
            objects.c.key == reference.key,
            objects.c.etag == reference.etag,
            objects.c.size == reference.size,
            objects.c.version_id.is_not_distinct_from(reference.version_id),
        )
        async with reading(self.engine) as connection:
            stored = (await connection.execute(query)).scalar_one_or_none()
        if stored is None:
            return None
        finding = FINDING.validate_python(stored, strict=False)
        if isinstance(finding, Unpacked) or (isinstance(finding, Refusal) and finding.reason in _RELATIVE):
            return None
        return finding

    async def settle(
        self,
        reference: ObjectRef,
        looked_at: datetime,
        finding: Finding,
        upload_id: str | None,
        *,
        rival: Rival | None = None,
        announce: Sequence[Event] = (),
    ) -> bool:
        """Write down what was found in an object, and put the events that say so into the outbox.

        Parameters
        ----------
        reference
            The object with its present content.
        looked_at
            When the store was asked for it.
        finding
            What it is.
        upload_id
            The upload that it was announced with.
        rival
            What became of an earlier `ConflictError`: this object is refused, or takes the place of one that is gone.
        announce
            Further events (the members of an archive).

        Returns
        -------
        bool
            Whether series are due now, because this was the last object of its upload.

        Raises
        ------
        ConflictError
            If another object holds the same instance with other content.
        ObjectChangedError
            If another content of the same object has been written down since.
        """
        async with transaction(self.engine) as connection:
            work = _Settling(self, connection, self.now(), reference, upload_id)
            await work.check_present(looked_at)
            changed = False
            if isinstance(finding, Instance):
                finding, changed = await work.place(finding, rival)
            await work.displace(finding)
            await work.record(finding)
            due_now = await work.count(finding)
            if isinstance(finding, Instance):
                await work.touch(finding.series_instance_uid, changed=changed)
            events = [finding.event(reference, upload_id), *announce]
            await add(connection, outbox, [Envelope.wrap(event, self.source) for event in events])
        return due_now

    async def missing(self, announced: ObjectRef, upload_id: str | None) -> bool:
        """Write down that an announced object is not there; true if that made series due.

        What is known of an object that once was there stays: deleting an input changes no result.
        """
        now = self.now()
        async with transaction(self.engine) as connection:
            row = {
                "bucket": announced.bucket,
                "key": announced.key,
                "etag": announced.etag,
                "size": announced.size,
                "version_id": announced.version_id,
                "status": "missing",
                "upload_id": upload_id,
                "finding": None,
                "first_seen": now,
                "last_seen": now,
            }
            await _insert_if_new(connection, objects, row)
            return await _Settling(self, connection, now, announced, upload_id).count(None)

    async def complete_upload(self, upload_id: str, expected: int) -> bool:
        """Write down how many objects an upload has; true if all are settled, so that series are due."""
        now = self.now()
        async with transaction(self.engine) as connection:
            row = {"upload_id": upload_id, "first_seen": now, "changed_at": now}
            await _insert_if_new(connection, uploads, row)
            change = update(uploads).where(uploads.c.upload_id == upload_id).values(expected=expected, changed_at=now)
            settled = (await connection.execute(change.returning(uploads.c.settled))).scalar_one()
            if settled < expected:
                return False
            await _make_due(connection, upload_id, now)
        return True


@dataclass(slots=True)
class _Settling:
    """One object's settlement inside its transaction."""

    ledger: Ledger
    connection: AsyncConnection
    now: datetime
    reference: ObjectRef
    upload_id: str | None
    seen_before: bool = field(default=False)
    upload_complete: bool = field(default=False)

    async def place(self, found: Instance, rival: Rival | None) -> tuple[Finding, bool]:
        """Give an instance its place in its series.

        Returns the finding as it is now, and whether the series changed.
        """
        study = await self._lock_series(found)
        if study != found.study_instance_uid:
            return _refused(found, Reason.SERIES_IN_TWO_STUDIES, f"the series is known in study {study}"), False
        here = and_(
            instances.c.series_instance_uid == found.series_instance_uid,
            instances.c.sop_instance_uid == found.sop_instance_uid,
        )
        standing = (await self.connection.execute(select(instances).where(here))).one_or_none()
        values = {**self.reference.model_dump(), "facts": found.model_dump(mode="json")}
        if standing is None:
            identity = {
                "series_instance_uid": found.series_instance_uid,
                "sop_instance_uid": found.sop_instance_uid,
            }
            await self.connection.execute(instances.insert().values(**identity, **values))
            return found, True
        other = _reference(standing)
        if other.content() == self.reference.content():
            if other.address() != self.reference.address():
                # A copy, or the file was moved: this one was just seen to be there, the other may be gone by now.
                await self.connection.execute(update(instances).where(here).values(**values))
            return found, False
        if other.address() != self.reference.address():
            if rival is None or rival.reference != other:
                raise ConflictError(other)
            if rival.stands:
                detail = f"{other.address()} is the same instance with other content"
                return _refused(found, Reason.CONFLICTING_INSTANCE, detail), False
        await self.connection.execute(update(instances).where(here).values(**values))
        return found, True

    async def _lock_series(self, found: Instance) -> str:
        """Lock the row of the instance's series, made if it is new, and return its study."""
        lock = select(series.c.study_instance_uid).where(series.c.series_instance_uid == found.series_instance_uid)
        study: str | None = (await self.connection.execute(lock.with_for_update())).scalar_one_or_none()
        if study is None:
            row = {
                "series_instance_uid": found.series_instance_uid,
                "study_instance_uid": found.study_instance_uid,
                "changed_at": self.now,
            }
            await _insert_if_new(self.connection, series, row)
            study = (await self.connection.execute(lock.with_for_update())).scalar_one()
        return study

    async def displace(self, finding: Finding) -> None:
        """Take out of their series the instances that this object's earlier content was."""
        if not self.seen_before:
            return
        overwritten = [instances.c.bucket == self.reference.bucket, instances.c.key == self.reference.key]
        if isinstance(finding, Instance):
            overwritten.append(
                or_(
                    instances.c.series_instance_uid != finding.series_instance_uid,
                    instances.c.sop_instance_uid != finding.sop_instance_uid,
                )
            )
        removal = delete(instances).where(*overwritten).returning(instances.c.series_instance_uid)
        for uid in sorted(set((await self.connection.execute(removal)).scalars())):
            await self.touch(uid, changed=True)

    async def check_present(self, looked_at: datetime) -> None:
        """Lock the object's row, and refuse to write down a content that has been replaced meanwhile."""
        here = select(objects.c.etag, objects.c.size, objects.c.last_seen, objects.c.status).where(
            objects.c.bucket == self.reference.bucket, objects.c.key == self.reference.key
        )
        row = (await self.connection.execute(here.with_for_update())).one_or_none()
        self.seen_before = row is not None
        if row is None or row.status == "missing" or row.last_seen <= looked_at:
            return
        if (row.etag, row.size) != (self.reference.etag, self.reference.size):
            raise ObjectChangedError(f"{self.reference.address()}: replaced while it was looked at")

    async def record(self, finding: Finding) -> None:
        """Write the object's row."""
        columns = {
            **self.reference.model_dump(),
            "upload_id": self.upload_id,
            "finding": finding.model_dump(mode="json"),
            "last_seen": self.now,
            "reason": "",
            "series_instance_uid": "",
            "sop_instance_uid": "",
        }
        match finding:
            case Instance():
                columns["status"] = "validated"
            case Refusal():
                columns["status"] = "skipped" if finding.reason.severity is Severity.SKIP else "rejected"
                columns["reason"] = finding.reason.value
            case Unpacked():
                columns["status"] = "unpacked"
        if not isinstance(finding, Unpacked):
            columns["series_instance_uid"] = finding.series_instance_uid
            columns["sop_instance_uid"] = finding.sop_instance_uid
        statement = _insert(self.connection, objects).values(first_seen=self.now, **columns)
        await self.connection.execute(statement.on_conflict_do_update(index_elements=["bucket", "key"], set_=columns))

    async def count(self, finding: Finding | None) -> bool:
        """Count the object as settled in its upload; true if that was the last one, so that series are due."""
        if self.upload_id is None:
            return False
        settled = {
            "upload_id": self.upload_id,
            "bucket": self.reference.bucket,
            "key": self.reference.key,
            "series_instance_uid": finding.series_instance_uid if isinstance(finding, Instance) else "",
        }
        fresh = await _insert_if_new(self.connection, upload_objects, settled)
        change = (
            update(uploads)
            .where(uploads.c.upload_id == self.upload_id)
            .values(settled=uploads.c.settled + int(fresh), changed_at=self.now)
        )
        change = change.returning(uploads.c.settled, uploads.c.expected)
        upload = (await self.connection.execute(change)).one_or_none()
        if upload is None:
            row = {"upload_id": self.upload_id, "first_seen": self.now, "changed_at": self.now}
            await _insert_if_new(self.connection, uploads, row)
            upload = (await self.connection.execute(change)).one()
        self.upload_complete = upload.expected is not None and upload.settled >= upload.expected
        if fresh and self.upload_complete:
            await _make_due(self.connection, self.upload_id, self.now)
        return self.upload_complete

    async def touch(self, series_instance_uid: str, *, changed: bool) -> None:
        """Set the series' timer: look at it at once if its upload is complete, else after a short while."""
        values: dict[str, Any] = {"changed_at": self.now, "touches": series.c.touches + 1}
        if self.upload_complete and self.upload_id is not None:
            values["evidence"], wait = evidence_of(self.upload_id), None
        else:
            wait = self.ledger.patience.upload if self.upload_id is not None else self.ledger.patience.geometry
            if changed:
                values["evidence"] = None
        values["due_at"] = self.now if wait is None else self.now + wait
        change = update(series).where(series.c.series_instance_uid == series_instance_uid)
        await self.connection.execute(change.values(**values))


async def _make_due(connection: AsyncConnection, upload_id: str, now: datetime) -> None:
    """Every series that an upload touched is complete."""
    touched = select(upload_objects.c.series_instance_uid).where(upload_objects.c.upload_id == upload_id)
    change = update(series).where(series.c.series_instance_uid.in_(touched))
    await connection.execute(change.values(evidence=evidence_of(upload_id), due_at=now, touches=series.c.touches + 1))


async def _insert_if_new(connection: AsyncConnection, table: Table, row: dict[str, Any]) -> bool:
    statement = _insert(connection, table).values(**row).on_conflict_do_nothing()
    return (await connection.execute(statement)).rowcount > 0


def _insert(connection: AsyncConnection, table: Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if is_sqlite(connection) else postgresql.insert(table)


def _refused(found: Instance, reason: Reason, detail: str) -> Refusal:
    identity = ("study_instance_uid", "series_instance_uid", "sop_instance_uid", "sop_class_uid", "modality")
    return Refusal(reason=reason, detail=detail, **{name: getattr(found, name) for name in identity})


def _reference(row: Any) -> ObjectRef:
    return ObjectRef(bucket=row.bucket, key=row.key, etag=row.etag, size=row.size, version_id=row.version_id)
