"""Jobs that somebody asks for: noted, and published as soon as the series that they are about are complete.

A request is a row that is due at once. What is complete is published then; for the rest the row waits, and the end of
each of its series makes it due again, in the transaction that ends it. So a restart loses no request, and any number
of replicas share them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from voxelmill_ingest.archive import content_digest
from voxelmill_ingest.assembly import ARCHIVE_UPLOAD, archive_upload, contents_digest
from voxelmill_ingest.manifests import make_manifest, read_slices, write_manifest
from voxelmill_ingest.rows import among, lock
from voxelmill_ingest.tables import objects, outbox, requests, series, upload_objects, uploads
from voxelmill_shared.database import is_sqlite, reading, transaction
from voxelmill_shared.errors import ObjectMissingError
from voxelmill_shared.events import Envelope, JobRequested, ObjectRef, SeriesValidated, cause
from voxelmill_shared.lease import claim_due, held_by
from voxelmill_shared.outbox import add
from voxelmill_shared.outcome import Done, Outcome, Reject
from voxelmill_shared.results import SeriesManifest
from voxelmill_shared.stage import read_document
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voxelmill_ingest.ledger import Ledger
    from voxelmill_shared.outbox import OutboxRelay
    from voxelmill_shared.storage.base import ObjectStore

KEPT = timedelta(days=7)
"""How long a request waits for an upload that does not end."""
_SERVED_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class RequestJob:
    """Note that somebody asks for a job. `kick` says that there is something to do."""

    ledger: Ledger
    kick: Callable[[], None]

    async def __call__(self, event: JobRequested) -> Outcome:
        """Take one request. Of a series of another project no more is said than of one that is not there."""
        envelope = cause.get()
        if envelope is None:
            raise LookupError("a job is requested with its envelope: bind it to `cause`")
        uid, now = event.series_instance_uid, self.ledger.now()
        if uid:
            query = select(series.c.project).where(series.c.series_instance_uid == uid)
            async with reading(self.ledger.engine) as connection:
                project = (await connection.execute(query)).scalar_one_or_none()
            if project != event.project:
                return Reject(f"{uid}: the project {event.project} has no such series", "unknown-series")
        row = {
            "request_id": str(envelope.id),
            "series_instance_uid": uid,
            "upload_id": event.upload_id,
            "envelope": envelope.model_dump(mode="json"),
            "served": [],
            "first_seen": now,
            "due_at": now,
        }
        async with transaction(self.ledger.engine) as connection:
            statement = (sqlite if is_sqlite(connection) else postgresql).insert(requests)
            again = statement.on_conflict_do_update(index_elements=["request_id"], set_={"due_at": now, "served": []})
            await connection.execute(again, row)
        self.kick()
        return Done()


async def make_due(connection: AsyncConnection, uid: str, now: datetime) -> None:
    """Have the requests looked at that wait for a series, now that it is complete."""
    came_with = select(upload_objects.c.upload_id).where(upload_objects.c.series_instance_uid == uid).distinct()
    ids = set((await connection.execute(came_with)).scalars())
    # What came in an archive came with the archive's upload too.
    ids |= {upload_id.rpartition(f"/{ARCHIVE_UPLOAD}")[0] for upload_id in ids}
    waiting = or_(requests.c.series_instance_uid == uid, requests.c.upload_id.in_(sorted(ids - {""})))
    if found := await lock(connection, requests, waiting):
        locked = among(connection, requests.c.request_id, found)
        await connection.execute(update(requests).where(locked).values(due_at=now))


@dataclass(frozen=True, slots=True)
class Requests:
    """Publishes the jobs that are asked for, on behalf of the assembler.

    Parameters
    ----------
    ledger, results, relay, owner, lease
        As the assembler's.
    """

    ledger: Ledger
    results: ObjectStore
    relay: OutboxRelay
    owner: str
    lease: timedelta

    async def serve_due(self) -> int:
        """Look at every request that is due now; return how many jobs were published."""
        published = 0
        while True:
            async with transaction(self.ledger.engine) as connection:
                claimed = await claim_due(
                    connection,
                    requests,
                    now=self.ledger.now(),
                    lease=self.lease,
                    owner=self.owner,
                    limit=_SERVED_AT_ONCE,
                )
            if not claimed:
                return published
            for row in claimed:
                published += await self._serve(row)

    async def _serve(self, row: Row[Any]) -> int:
        envelope = Envelope.model_validate(row.envelope)
        token = cause.set(envelope)
        try:
            request = JobRequested.model_validate(envelope.data)
            wanted, more = await self._wanted(request)
            found = [await self._job(one, request) for one in wanted]
            events = [event for event in found if event is not None]
            return await self._note(row, events, ended=not more and len(events) == len(wanted))
        finally:
            cause.reset(token)

    async def _wanted(self, request: JobRequested) -> tuple[Sequence[Row[Any]], bool]:
        """Return the series that a job can be made of now, and whether there are, or may come, more of them."""
        async with reading(self.ledger.engine) as connection:
            if request.series_instance_uid:
                uids, more = {request.series_instance_uid}, False
            else:
                ids, more = await _uploads(connection, request.upload_id)
                of_upload = upload_objects.c.upload_id.in_(ids) & (upload_objects.c.series_instance_uid != "")
                touched = select(upload_objects.c.series_instance_uid).where(of_upload).distinct()
                uids = set((await connection.execute(touched)).scalars())
            query = select(series).where(series.c.series_instance_uid.in_(uids), series.c.project == request.project)
            found = (await connection.execute(query.order_by(series.c.series_instance_uid))).all()
        # What an upload adds to a series makes a new revision of it: that one is wanted, not the one before.
        complete = [row for row in found if row.revision and (request.series_instance_uid or row.due_at is None)]
        return complete, more or len(complete) < len(found)

    async def _job(self, row: Row[Any], request: JobRequested) -> SeriesValidated | None:
        """Make the job of a series' newest revision; none while what it was made of is not known any more."""
        current = SeriesValidated.model_validate(row.event)
        manifest = await self._manifest(row, current)
        if manifest is None:
            return None
        job_id = request.plan.job_id(one.object.content() for one in manifest.instances)
        if job_id == current.job_id:
            return current
        wanted = manifest.model_copy(update={"plan": request.plan, "job_id": job_id})
        return await write_manifest(self.results, wanted, current.evidence)

    async def _manifest(self, row: Row[Any], current: SeriesValidated) -> SeriesManifest | None:
        """Read the revision's manifest; if it was deleted, make it again from the instances, if they are the same."""
        try:
            return await read_document(self.results, current.manifest, SeriesManifest)
        except (ObjectMissingError, UnsupportedSeriesError):
            async with reading(self.ledger.engine) as connection:
                slices = await read_slices(connection, row.series_instance_uid)
            if contents_digest(one.instance.object.content() for one in slices) != row.contents:
                return None  # the series is being changed: its next revision has a manifest
            return make_manifest(row, slices, current.plan, revision=row.revision, job_id=current.job_id)

    async def _note(self, row: Row[Any], events: Sequence[SeriesValidated], *, ended: bool) -> int:
        """Publish what has not been published for this request, and end it or have it wait."""
        now = self.ledger.now()
        new = [event for event in events if str(event.event_id()) not in row.served]
        mine = (requests.c.request_id == row.request_id, held_by(requests, owner=self.owner, now=now))
        async with transaction(self.ledger.engine) as connection:
            await add(connection, outbox, [Envelope.wrap(event, self.ledger.source) for event in new])
            if ended or row.first_seen < now - KEPT:
                await connection.execute(delete(requests).where(*mine, requests.c.due_at == row.due_at))
            else:
                served = [*row.served, *(str(event.event_id()) for event in new)]
                later = update(requests).where(*mine, requests.c.due_at == row.due_at)
                await connection.execute(later.values(due_at=now + self.ledger.patience.upload, served=served))
            free = update(requests).where(*mine)  # one that became due meanwhile is looked at again
            await connection.execute(free.values(leased_by=None, leased_until=None))
        if new:
            self.relay.notify()
        return len(new)


async def _uploads(connection: AsyncConnection, upload_id: str) -> tuple[list[str], bool]:
    """Return the uploads that one is made of, its archives' members too, and whether some of it is still to come."""
    unpacked = (
        select(objects.c.bucket, objects.c.key, objects.c.etag, objects.c.size)
        .join(upload_objects, (upload_objects.c.bucket == objects.c.bucket) & (upload_objects.c.key == objects.c.key))
        .where(upload_objects.c.upload_id == upload_id, objects.c.status == "unpacked")
    )
    archives = [ObjectRef(**row._asdict()) for row in await connection.execute(unpacked)]
    ids = [upload_id, *(archive_upload(upload_id, content_digest(archive)) for archive in archives)]
    ended = select(uploads.c.upload_id).where(
        uploads.c.upload_id.in_(ids), uploads.c.expected.is_not(None), uploads.c.settled >= uploads.c.expected
    )
    return ids, set((await connection.execute(ended)).scalars()) != set(ids)
