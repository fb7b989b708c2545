"""Completing series: claims those whose timer has rung, decides, and publishes those that are complete.

The timer is `due_at` with a lease in the series' row, so a restart loses nothing and any number of replicas share it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import exists, func, or_, select, update

from voxelmill_ingest.assembly import Close, OpenSeries, contents_digest, decide
from voxelmill_ingest.manifests import make_manifest, read_slices, write_manifest
from voxelmill_ingest.requested import Requests, make_due
from voxelmill_ingest.rows import among, lock
from voxelmill_ingest.tables import outbox, requests, series, upload_objects, uploads
from voxelmill_shared.database import reading, transaction
from voxelmill_shared.errors import TransientError
from voxelmill_shared.events import Envelope, Evidence, SeriesValidated
from voxelmill_shared.lease import claim_due, held_by
from voxelmill_shared.outbox import add

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voxelmill_ingest.assembly import Decision, Slice, Wait
    from voxelmill_ingest.ledger import Ledger
    from voxelmill_shared.outbox import OutboxRelay
    from voxelmill_shared.plan import Plan
    from voxelmill_shared.storage.base import ObjectStore

log = structlog.get_logger("voxelmill")

CLAIMED_AT_ONCE = 16
GIVE_BACK_SECONDS = 2.0
"""How long giving back leases may take when a pass failed or was cancelled."""
CLOCKS_APART = timedelta(seconds=10)
"""How far the clocks of replicas may be apart."""
LONGEST_SLEEP = 1.0
"""Seconds between looks at the table when nothing is known to be due: another replica may have set a timer."""


@dataclass(slots=True)
class Assembler:
    """Completes series, in the background of every ingest replica, and then publishes the jobs that wait for them.

    Parameters
    ----------
    ledger
        Whose series they are; its clock rules.
    results
        Where manifests are written.
    relay
        Told that there is something to publish.
    plan
        What is asked of the stages after ingest.
    owner
        The name that this replica claims series with.
    lease
        How long a claim holds.
    """

    ledger: Ledger
    results: ObjectStore
    relay: OutboxRelay
    plan: Plan
    owner: str
    lease: timedelta = timedelta(seconds=60)
    requests: Requests = field(init=False)
    _kicked: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.requests = Requests(self.ledger, self.results, self.relay, self.owner, self.lease)

    def kick(self) -> None:
        """Say that a series may have become due."""
        self._kicked.set()

    async def run(self) -> None:
        """Complete series until cancelled. Outages of database or store are waited for."""
        while True:
            self._kicked.clear()
            try:
                await self.complete_due()
                await self.requests.serve_due()
                sleep = await self._until_next()
            except TransientError as error:
                log.warning("assembly.waiting", error_class=error.error_class, reason=str(error))
                sleep = LONGEST_SLEEP
            try:
                async with asyncio.timeout(sleep):  # not wait_for: on 3.11 it loses a cancellation that meets the event
                    await self._kicked.wait()
            except TimeoutError:
                continue

    async def complete_due(self) -> int:
        """Look at every series that is due now; return how many were completed."""
        completed = 0
        while True:
            async with transaction(self.ledger.engine) as connection:
                await self._mend_timers(connection)
                claimed = await claim_due(
                    connection,
                    series,
                    now=self.ledger.now(),
                    lease=self.lease,
                    owner=self.owner,
                    limit=CLAIMED_AT_ONCE,
                )
            if not claimed:
                return completed
            left = deque(claimed)
            try:
                while left:
                    completed += await self._look_at(left[0])
                    left.popleft()
            except BaseException:
                await self._give_back(left)
                raise

    async def _mend_timers(self, connection: AsyncConnection) -> None:
        """Set the timers anew that the clock of today could not have set: it was put back since, by an hour say.

        They count from now then, or the series would wait as long as the clock was put back.
        """
        patience, now = self.ledger.patience, self.ledger.now()
        longest = max(patience.geometry, patience.quiet, patience.upload)
        set_ahead = series.c.due_at > now + longest + CLOCKS_APART
        if uids := await lock(connection, series, set_ahead):
            locked = among(connection, series.c.series_instance_uid, uids)
            await connection.execute(update(series).where(locked).values(due_at=now, changed_at=now))

    async def _give_back(self, claimed: Iterable[Row[Any]]) -> None:
        """Give up the leases of series that were not looked at, so that nobody waits for their end.

        It is tried once and not for long: without it they end by themselves.
        """
        uids = [row.series_instance_uid for row in claimed]
        mine = series.c.series_instance_uid.in_(uids)
        try:
            async with asyncio.timeout(GIVE_BACK_SECONDS), transaction(self.ledger.engine) as connection:
                held = await lock(connection, series, mine, series.c.leased_by == self.owner)
                locked = among(connection, series.c.series_instance_uid, held)
                await connection.execute(update(series).where(locked).values(leased_by=None, leased_until=None))
        except (TransientError, TimeoutError) as error:
            log.warning("assembly.leases-kept", series=len(uids), reason=str(error))

    async def _until_next(self) -> float:
        async with reading(self.ledger.engine) as connection:
            firsts = [
                (await connection.execute(select(func.min(timed.c.due_at)).where(timed.c.leased_by.is_(None)))).scalar()
                for timed in (series, requests)
            ]
        due = min((first for first in firsts if first is not None), default=None)
        if due is None:
            return LONGEST_SLEEP
        remaining: timedelta = due - self.ledger.now()
        return min(max(remaining.total_seconds(), 0.01), LONGEST_SLEEP)

    async def _look_at(self, claimed: Row[Any]) -> bool:
        """Complete one claimed series, or set its timer anew; true if it was completed."""
        now = self.ledger.now()
        row, slices, upload_open = await self._load(claimed.series_instance_uid, now)
        if not slices:
            await self._release(row, due_at=None)  # all its objects were overwritten by others
            return False
        evidence = None if row.evidence is None else Evidence(row.evidence)
        opened = OpenSeries(row.changed_at, evidence, upload_open, slices)
        decision: Decision = decide(opened, now, self.ledger.patience)
        if isinstance(decision, Close):
            return await self._close(row, slices, decision.evidence)
        await self._wait(row, decision)
        return False

    async def _load(self, uid: str, now: datetime) -> tuple[Row[Any], list[Slice], bool]:
        unfinished = or_(uploads.c.expected.is_(None), uploads.c.settled < uploads.c.expected)
        still_coming = exists().where(
            upload_objects.c.series_instance_uid == uid,
            upload_objects.c.upload_id == uploads.c.upload_id,
            unfinished,
            uploads.c.changed_at > now - self.ledger.patience.upload,  # a client that died holds nothing up for ever
        )
        async with reading(self.ledger.engine) as connection:
            row = (await connection.execute(select(series).where(series.c.series_instance_uid == uid))).one()
            slices = await read_slices(connection, uid)
            upload_open = bool((await connection.execute(select(still_coming))).scalar_one())
        return row, slices, upload_open

    async def _close(self, row: Row[Any], slices: Sequence[Slice], evidence: Evidence) -> bool:
        contents = [one.instance.object.content() for one in slices]
        digest, job_id = contents_digest(contents), self.plan.job_id(contents)
        if (digest, job_id) == (row.contents, row.job_id):
            return await self._publish(row, SeriesValidated.model_validate(row.event), digest)
        # Other instances make a new revision; the same ones under another plan make another job of the same revision.
        revision = row.revision if digest == row.contents else row.revision + 1
        manifest = make_manifest(row, slices, self.plan, revision=revision, job_id=job_id)
        return await self._publish(row, await write_manifest(self.results, manifest, evidence), digest)

    async def _publish(self, row: Row[Any], event: SeriesValidated, contents: str) -> bool:
        """Write the revision and its event together, unless the series was touched or taken over meanwhile."""
        async with transaction(self.ledger.engine) as connection:
            change = (
                update(series)
                .where(
                    series.c.series_instance_uid == row.series_instance_uid,
                    series.c.touches == row.touches,
                    held_by(series, owner=self.owner, now=self.ledger.now()),
                )
                .values(
                    revision=event.revision,
                    contents=contents,
                    job_id=event.job_id,
                    event=event.model_dump(mode="json"),
                    due_at=None,
                    leased_by=None,
                    leased_until=None,
                )
            )
            if (await connection.execute(change)).rowcount:
                await add(connection, outbox, [Envelope.wrap(event, self.ledger.source)])
                await make_due(connection, row.series_instance_uid, self.ledger.now())
                published = True
            else:
                published = False
        if published:
            self.relay.notify()
        else:
            await self._release(row, due_at=row.due_at)
        return published

    async def _wait(self, row: Row[Any], decision: Wait) -> None:
        await self._release(row, due_at=decision.until)

    async def _release(self, row: Row[Any], *, due_at: datetime | None) -> None:
        """Give the lease back; set the timer, unless the series was touched meanwhile and has a timer of its own."""
        mine = (series.c.series_instance_uid == row.series_instance_uid, series.c.leased_by == self.owner)
        async with transaction(self.ledger.engine) as connection:
            untouched = update(series).where(*mine, series.c.touches == row.touches).values(due_at=due_at)
            await connection.execute(untouched)
            await connection.execute(update(series).where(*mine).values(leased_by=None, leased_until=None))
