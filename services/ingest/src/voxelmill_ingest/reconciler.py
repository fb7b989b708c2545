"""Finding what no notification told of: the inbox is listed and compared with the ledger.

A notification is a hint, and hints are lost (DESIGN: guarantee 2). Whatever lies in the inbox and is not in the ledger
with its present content is announced again, into the same entry point. What nothing else had told of until then is
counted: where notifications are on, it says that they are being lost.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import structlog
from sqlalchemy import select

from voxelmill_ingest.tables import objects
from voxelmill_shared.database import reading
from voxelmill_shared.errors import TransientError
from voxelmill_shared.events import Envelope, ObjectRef, ObjectUploaded
from voxelmill_shared.metrics import (
    FOUND_BY_RECONCILER,
    LAST_PASS_OBJECTS,
    LAST_PASS_SECONDS,
    LAST_PASS_TIME,
    RECONCILER_INTERVAL,
)
from voxelmill_shared.storage.keys import is_text, printable
from voxelmill_shared.transport.base import Message
from voxelmill_shared.uploads import upload_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_ingest.backpressure import Backpressure
    from voxelmill_ingest.duties import Duty
    from voxelmill_shared.outcome import Outcome
    from voxelmill_shared.service import Handler
    from voxelmill_shared.storage.base import ObjectStat, ObjectStore
    from voxelmill_shared.transport.base import Transport

log = structlog.get_logger("voxelmill")

BATCH = 500
"""How many objects are compared with the ledger at a time."""
LONGEST_PATIENCE = timedelta(days=1)
LEFT_OVER = timedelta(days=2)
"""How old a new object of an upload must be. The gateway announces it when the upload is complete, and removes it when
the upload is aborted, as it is after a day that nobody sees to it; taken in before that, a series of which the rest
never comes would be worked on, and its inputs removed."""
FOUND_BY = "reconciler"
"""What stands in the events of what it announces."""

_Content: TypeAlias = tuple[str, str, int]
"""Key, etag and size."""


@dataclass(slots=True)
class Listing:
    """What one pass found, in objects.

    `known` are in the ledger with their present content, `announced` were not, `awaited` were announced by an earlier
    pass and are on their way, `young` are not old enough yet, `uploading` are of uploads that may still be open, and
    `unnamed` have names that no event can carry.
    """

    listed: int = 0
    known: int = 0
    announced: int = 0
    awaited: int = 0
    young: int = 0
    uploading: int = 0
    unnamed: int = 0


class _Announced(NamedTuple):
    """Until when (by the reconciler's clock) an announced object is awaited, and how long that wait is in seconds."""

    until: float
    wait: float


@dataclass(slots=True)
class Reconciler:
    """Lists one store again and again.

    Parameters
    ----------
    engine
        The ledger's database.
    inbox
        The store that is listed.
    transport
        Where what is missing is announced.
    source
        The name that this process has in the envelopes of events.
    every
        The pause between two passes.
    grace
        How old an object must be: a file that is still being copied is not announced, and where notifications are on,
        they come first.
    patience
        How long an announced object may take to reach the ledger before it is announced again. Each further time it
        may take twice as long, up to a day: what ends as a dead letter never gets there.
    clock
        Seconds that pass, for the waits between announcements.
    duty
        The right to list where there are replicas; None: there are none.
    found_by
        What stands in the events; only what the service finds by itself is counted.
    left_over
        How old an object of a gateway's upload must be before it is taken for one that its gateway has lost.
    pressure
        What ends a pass while ingest's queue is long: the next one lists again. None: nothing does.
    """

    engine: AsyncEngine
    inbox: ObjectStore
    transport: Transport
    source: str
    every: timedelta
    grace: timedelta = timedelta(seconds=2)
    patience: timedelta = timedelta(minutes=2)
    clock: Callable[[], float] = time.monotonic
    duty: Duty | None = None
    found_by: str = FOUND_BY
    left_over: timedelta = LEFT_OVER
    pressure: Backpressure | None = None
    _announced: dict[_Content, _Announced] = field(default_factory=dict)
    _unnamed: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Pass after pass, until cancelled. A dependency that is away is waited for."""
        RECONCILER_INTERVAL.set(self.every.total_seconds())
        if self.duty is None:
            await self._passes()
        else:
            await self.duty.hold(self._passes)

    async def _passes(self, _: int | None = None) -> None:
        away = False
        while True:
            began = time.monotonic()
            try:
                found = await self.once()
                if found.announced:
                    log.info("reconciled", bucket=self.inbox.bucket, found=found.announced, listed=found.listed)
                LAST_PASS_TIME.set_to_current_time()
                LAST_PASS_OBJECTS.set(found.listed)
                LAST_PASS_SECONDS.set(time.monotonic() - began)
                away = False
            except TransientError as error:
                if not away:
                    log.warning("reconciler waits", reason=str(error), error_class=error.error_class)
                away = True
            await asyncio.sleep(self.every.total_seconds())

    async def once(self, *, announce: bool = True) -> Listing:
        """List the store once, and say what was found. Without `announce` nothing is published or remembered."""
        found = Listing()
        batch: list[ObjectStat] = []
        announced: set[_Content] = set()
        unnamed: set[str] = set()
        now = datetime.now(UTC)
        async for stat in self.inbox.list():
            found.listed += 1
            if not is_text(stat.key):
                found.unnamed += 1
                unnamed.add(name := printable(stat.key))
                self._tell_once(name)
                continue
            if (content := _content(stat)) in self._announced:
                announced.add(content)
            # A time in the future is that of a wrong clock: waiting for it could take years.
            if now - self.grace < stat.modified <= now:
                found.young += 1
            else:
                batch.append(stat)
            if len(batch) == BATCH:
                await self._compare(batch, announced, found, announce=announce)
                batch = []
        if batch:
            await self._compare(batch, announced, found, announce=announce)
        # All was listed: what was not there is gone, and is forgotten.
        self._announced = {content: self._announced[content] for content in announced & self._announced.keys()}
        self._unnamed = unnamed
        return found

    def _tell_once(self, name: str) -> None:
        """Log an object that no event can name, the first time that it is seen."""
        if name not in self._unnamed:
            self._unnamed.add(name)
            log.error("object name is not UTF-8, rename it", bucket=self.inbox.bucket, name=name)

    async def _compare(
        self, batch: list[ObjectStat], announced: set[_Content], found: Listing, *, announce: bool
    ) -> None:
        """Announce what the ledger does not know; add it to `announced`, and count all in `found`."""
        query = select(objects.c.key, objects.c.etag, objects.c.size).where(
            objects.c.bucket == self.inbox.bucket,
            objects.c.key.in_([stat.key for stat in batch]),
            objects.c.status != "missing",
        )
        async with reading(self.engine) as connection:
            known = {(row.key, row.etag, row.size) for row in await connection.execute(query)}
        keys = {key for key, _, _ in known}
        uploading_since = datetime.now(UTC) - self.left_over
        now = self.clock()
        unknown: list[ObjectStat] = []
        for stat in batch:
            content = _content(stat)
            before = self._announced.get(content)
            if content in known:
                found.known += 1
                self._announced.pop(content, None)
            elif stat.modified > uploading_since and stat.key not in keys and upload_of(stat.key) is not None:
                found.uploading += 1
            elif before is None or before.until < now:
                unknown.append(stat)
            else:
                found.awaited += 1
        found.announced += len(unknown)
        if not announce:
            return
        if unknown:
            if self.pressure is not None:
                await self.pressure.admit()
            await self.transport.publish([self._message(stat) for stat in unknown])
        for content in map(_content, unknown):
            before = self._announced.get(content)
            wait = (
                self.patience.total_seconds()
                if before is None
                else min(2 * before.wait, LONGEST_PATIENCE.total_seconds())
            )
            self._announced[content] = _Announced(now + wait, wait)
            announced.add(content)

    def _message(self, stat: ObjectStat) -> Message:
        reference = ObjectRef(
            bucket=self.inbox.bucket, key=stat.key, etag=stat.etag, size=stat.size, version_id=stat.version_id
        )
        envelope = Envelope.wrap(ObjectUploaded(object=reference, found_by=self.found_by), self.source)
        return Message(envelope.encode(), envelope.routing_key, str(envelope.id))


@dataclass(frozen=True, slots=True)
class CountFound:
    """Counts what only the reconciler found, when it gets its place in the ledger.

    Not when it is announced: where ingest is far behind, the notification of the same object waits in front of the
    reconciler's, and nothing was lost.

    Parameters
    ----------
    engine
        The ledger's database.
    handle
        What takes announced objects.
    """

    engine: AsyncEngine
    handle: Handler

    async def __call__(self, event: ObjectUploaded) -> Outcome:
        """Settle one object."""
        if event.found_by != FOUND_BY:
            return await self.handle(event)
        new = not await self._is_known(event.object)
        outcome = await self.handle(event)
        if new and await self._is_known(event.object):
            FOUND_BY_RECONCILER.inc()
        return outcome

    async def _is_known(self, reference: ObjectRef) -> bool:
        query = select(objects.c.status).where(
            objects.c.bucket == reference.bucket,
            objects.c.key == reference.key,
            objects.c.etag == reference.etag,
            objects.c.size == reference.size,
            objects.c.status != "missing",
        )
        async with reading(self.engine) as connection:
            return (await connection.execute(query)).first() is not None


def _content(stat: ObjectStat) -> _Content:
    return stat.key, stat.etag, stat.size
