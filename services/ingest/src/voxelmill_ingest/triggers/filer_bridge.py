"""From the filer's stream of changes to announcements, with a cursor that no crash moves past what was not announced.

SeaweedFS's webhook is sent once and never again; the filer's stream can be read again from any moment. So the bridge
keeps the time of the last change whose announcement the broker confirmed, and begins there after whatever happened.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from voxelmill_ingest.duties import until_one_ends
from voxelmill_ingest.triggers.fields import checked
from voxelmill_ingest.triggers.notification import UnknownNotificationError
from voxelmill_ingest.triggers.reach import NOT_ANNOUNCED, Reach, SourceUnavailableError
from voxelmill_shared.errors import DatabaseUnavailableError
from voxelmill_shared.metrics import NOTIFICATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from voxelmill_ingest.duties import Duty
    from voxelmill_ingest.triggers.announcer import Announcer
    from voxelmill_ingest.triggers.filer_stream import Change, FilerStream
    from voxelmill_ingest.triggers.notification import Notification

log = structlog.get_logger("voxelmill")

SOURCE = "seaweedfs"
FIRST_SPAN = timedelta(minutes=10)
"""How far back the very first start begins. What is older is the reconciler's: a filer remembers years."""
OVERLAP = timedelta(seconds=10)
"""How far before the cursor every later start begins: filers that share a tree tell of each other's changes a little
late, after younger ones of their own. What is announced twice has the effect of once."""
BATCH = 500
"""How many changes are announced at a time."""
UNCONFIRMED = 1000
"""How many changes may wait for the broker. Then the stream is not read, and the filer waits."""
SAVE_SECONDS = 0.2
"""How often the cursor is written."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds between two tries to reach what is away; each time twice as long."""


@dataclass(slots=True)
class FilerBridge:
    """Reads one filer's stream and announces what is new in the inbox.

    Parameters
    ----------
    stream
        Where changes come from.
    announcer
        Where they go.
    duty
        The cursor, and the right to do this: one replica reads at a time.
    """

    stream: FilerStream
    announcer: Announcer
    duty: Duty
    _at: int = 0
    _filer: Reach = field(init=False)
    _broker: Reach = field(default_factory=lambda: Reach("broker of the events"))
    _cursor: Reach = field(default_factory=lambda: Reach("database of the filer's cursor"))

    def __post_init__(self) -> None:
        self._filer = self._not_yet()

    async def run(self) -> None:
        """Bridge whenever it is this replica's duty, until cancelled."""
        await self.duty.hold(self._bridge)

    async def check(self) -> None:
        """Return if the filer's stream is open, or is another replica's to read; for `/readyz`.

        Raises
        ------
        SourceUnavailableError
            If it is ours and not open.
        """
        if self.duty.held:
            await self._filer.check()

    async def _bridge(self, cursor: int | None) -> None:
        if cursor is None:
            self._at = time.time_ns() - _nanoseconds(FIRST_SPAN)
            await self.duty.move(self._at)  # so that a stop before the first change does not move the beginning
        else:
            self._at = cursor
        changes: asyncio.Queue[Change] = asyncio.Queue(UNCONFIRMED)
        await until_one_ends(self._read(changes), self._announce(changes))

    async def _read(self, changes: asyncio.Queue[Change]) -> None:
        """Read the stream, and open it anew whenever it ends."""
        self._filer = self._not_yet()
        pause = FIRST_PAUSE
        newest = self._at
        while True:
            try:
                async with aclosing(self.stream.changes(newest - _nanoseconds(OVERLAP))) as stream:
                    async for change in stream:
                        self._filer.found()
                        if change.ts_ns:
                            pause = FIRST_PAUSE
                            newest = max(newest, change.ts_ns)
                            await changes.put(change)
            except SourceUnavailableError as error:
                self._filer.lost(str(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _announce(self, changes: asyncio.Queue[Change]) -> None:
        """Announce changes in batches; move the cursor behind what the broker confirmed."""
        saved_at, saved = time.monotonic(), self._at
        while True:
            wait = None if saved == self._at else max(0.0, saved_at + SAVE_SECONDS - time.monotonic())
            batch = await _take(changes, wait)
            if batch:
                await self._publish(batch)
                self._at = max(self._at, *(change.ts_ns for change in batch))
            if saved != self._at and time.monotonic() - saved_at >= SAVE_SECONDS:
                try:
                    await self.duty.move(self._at)
                    saved = self._at
                    self._cursor.found()
                except DatabaseUnavailableError as error:  # what was announced meanwhile will be announced again
                    self._cursor.lost(str(error))
                saved_at = time.monotonic()

    async def _publish(self, batch: list[Change]) -> None:
        """Announce, however long the broker is away."""
        told = list(_uploads(batch))
        pause = FIRST_PAUSE
        while True:
            try:
                await self.announcer.announce(told, SOURCE)
            except NOT_ANNOUNCED as error:
                self._broker.lost(str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._broker.found()
                return

    def _not_yet(self) -> Reach:
        return Reach(f"SeaweedFS's filer {self.stream.address}")


def _uploads(batch: list[Change]) -> Iterator[Notification]:
    """Give the uploads among changes, and count the others."""
    for change in batch:
        if change.notification is None:
            NOTIFICATIONS.labels(SOURCE, "ignored").inc()
            continue
        try:
            yield checked(change.notification)
        except UnknownNotificationError as error:
            NOTIFICATIONS.labels(SOURCE, "undecodable").inc()
            log.error("notification passed over", source=SOURCE, ts_ns=change.ts_ns, reason=str(error))


async def _take(changes: asyncio.Queue[Change], seconds: float | None) -> list[Change]:
    """Take what is there, at most a batch; wait for the first one, but no longer than that."""
    try:
        async with asyncio.timeout(seconds):
            batch = [await changes.get()]
    except TimeoutError:
        return []
    while len(batch) < BATCH and not changes.empty():
        batch.append(changes.get_nowait())
    return batch


def _nanoseconds(span: timedelta) -> int:
    return round(span.total_seconds()) * 1_000_000_000
