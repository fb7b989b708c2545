"""The transactional outbox: events that are stored with the rows they speak of, and published afterwards.

A service adds events in the transaction that writes its rows, so that both stand or neither does. The relay publishes
what is stored and removes it once the broker holds it. A crash between the two publishes an event twice, which is
allowed (its id is the same), and never loses one.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Table, Uuid, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from voxelmill_shared.database import UtcDateTime, is_sqlite, reading, transaction
from voxelmill_shared.errors import BrokerUnavailableError, DatabaseUnavailableError, UnroutableError
from voxelmill_shared.transport.base import Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import MetaData, Row, Select
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from voxelmill_shared.events import Envelope
    from voxelmill_shared.transport.base import Transport

log = structlog.get_logger("voxelmill")

BATCH = 200
"""How many events are published at a time."""
POLL = timedelta(seconds=1)
"""How long the relay sleeps when nobody notifies it: another replica may have stored events and died."""
UNROUTABLE_WAIT = timedelta(seconds=30)
"""How long events wait that no queue wanted: their queue may not be declared yet."""


def outbox_table(metadata: MetaData, name: str) -> Table:
    """Describe an outbox. `id` grows, also over rows that are gone."""
    return Table(
        name,
        metadata,
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("event_id", Uuid(), nullable=False, unique=True),
        Column("routing_key", String(255), nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("created", UtcDateTime(), nullable=False),
        sqlite_autoincrement=True,
    )


async def add(connection: AsyncConnection, table: Table, envelopes: Iterable[Envelope]) -> None:
    """Store events in the caller's transaction. One that is stored already, and not published yet, is no error.

    Call `OutboxRelay.notify` once the transaction is committed.
    """
    rows = [
        {
            "event_id": envelope.id,
            "routing_key": envelope.routing_key,
            "body": envelope.encode(),
            "created": datetime.now(UTC),
        }
        for envelope in envelopes
    ]
    if rows:
        insert = sqlite.insert(table) if is_sqlite(connection) else postgresql.insert(table)
        await connection.execute(insert.on_conflict_do_nothing(index_elements=["event_id"]), rows)


class OutboxRelay:
    """Publishes what is in an outbox. Any number of relays may work on one outbox.

    On PostgreSQL the rows in hand are locked and other relays step over them. SQLite has no row locks, and its write
    lock is not held while the broker is waited for: two relays can publish an event twice.

    Parameters
    ----------
    engine, table
        Where the events are stored.
    transport
        Where they go.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        table: Table,
        transport: Transport,
        *,
        batch: int = BATCH,
        poll: timedelta = POLL,
        unroutable_wait: timedelta = UNROUTABLE_WAIT,
    ) -> None:
        self._engine = engine
        self._table = table
        self._transport = transport
        self._batch = batch
        self._poll = poll.total_seconds()
        self._unroutable_wait = unroutable_wait.total_seconds()
        self._set_aside: dict[str, float] = {}
        """Routing keys that no queue wanted, and when (monotonic) to try them again."""
        self._kicked = asyncio.Event()

    def notify(self) -> None:
        """Say that there is something to publish. Only in the event loop that the relay runs in."""
        self._kicked.set()

    async def run(self) -> None:
        """Publish until cancelled. An outage of broker or database is waited for, with one line in the log each."""
        outage: str | None = None
        while True:
            self._kicked.clear()
            try:
                await self.drain()
            except (BrokerUnavailableError, DatabaseUnavailableError) as error:
                if outage != error.error_class:
                    outage = error.error_class
                    log.warning("outbox.waiting", outbox=self._table.name, error_class=outage, reason=str(error))
                await asyncio.sleep(self._poll)
                continue
            if outage:
                outage = None
                log.info("outbox.goes-on", outbox=self._table.name)
            try:
                async with asyncio.timeout(
                    self._poll
                ):  # not wait_for: on 3.11 it loses a cancellation that meets the event
                    await self._kicked.wait()
            except TimeoutError:
                continue

    async def drain(self) -> int:
        """Publish everything that is there now and that a queue wants; return how many events that were.

        Raises
        ------
        BrokerUnavailableError
            If the broker did not take them. They stay.
        DatabaseUnavailableError
            If the outbox cannot be read, or what was published cannot be removed: it will be published again.
        """
        published = 0
        after = 0
        while True:
            count, last = await (self._step_unlocked(after) if is_sqlite(self._engine) else self._step_locked(after))
            published += count
            if last is None:
                return published
            after = last

    async def pending(self) -> int:
        """Count the events that are stored and not published."""
        async with reading(self._engine) as connection:
            return (await connection.execute(select(func.count()).select_from(self._table))).scalar_one()

    async def _step_locked(self, after: int) -> tuple[int, int | None]:
        async with transaction(self._engine) as connection:
            rows = (await connection.execute(self._next(after).with_for_update(skip_locked=True))).all()
            published = await self._publish(rows)
            await self._remove(connection, published)
        return len(published), self._rest(rows)

    async def _step_unlocked(self, after: int) -> tuple[int, int | None]:
        async with reading(self._engine) as connection:
            rows = (await connection.execute(self._next(after))).all()
        published = await self._publish(rows)
        if published:
            async with transaction(self._engine) as connection:
                await self._remove(connection, published)
        return len(published), self._rest(rows)

    def _rest(self, rows: Sequence[Row[Any]]) -> int | None:
        """Return after which row there may be more; none where there was room for more, and no more came."""
        return rows[-1].id if len(rows) == self._batch else None

    def _next(self, after: int) -> Select[Any]:
        """Ask for the next rows in their order, without those that are set aside."""
        now = time.monotonic()
        waiting = [key for key, until in self._set_aside.items() if until > now]
        table = self._table
        return (
            select(table)
            .where(table.c.id > after, table.c.routing_key.not_in(waiting))
            .order_by(table.c.id)
            .limit(self._batch)
        )

    async def _remove(self, connection: AsyncConnection, rows: Sequence[Row[Any]]) -> None:
        if rows:
            await connection.execute(delete(self._table).where(self._table.c.id.in_([row.id for row in rows])))

    async def _publish(self, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        """Publish rows and return those that the broker holds."""
        if not rows:
            return rows
        try:
            await self._transport.publish([_message(row) for row in rows])
        except UnroutableError:
            # Where a message goes depends on its routing key alone, so this finds what cannot go and sends the rest.
            return await self._publish_by_routing_key(rows)
        self._wanted({row.routing_key for row in rows})
        return rows

    async def _publish_by_routing_key(self, rows: Sequence[Row[Any]]) -> list[Row[Any]]:
        published: list[Row[Any]] = []
        by_key = attrgetter("routing_key")
        for routing_key, group in groupby(sorted(rows, key=by_key), by_key):
            same = list(group)
            try:
                await self._transport.publish([_message(row) for row in same])
            except UnroutableError as error:
                if routing_key not in self._set_aside:
                    log.warning(
                        "outbox.unroutable", outbox=self._table.name, routing_key=routing_key, reason=str(error)
                    )
                self._set_aside[routing_key] = time.monotonic() + self._unroutable_wait
            else:
                self._wanted({routing_key})
                published += same
        return published

    def _wanted(self, routing_keys: set[str]) -> None:
        for routing_key in routing_keys & self._set_aside.keys():
            del self._set_aside[routing_key]
            log.info("outbox.routable-again", outbox=self._table.name, routing_key=routing_key)


def _message(row: Row[Any]) -> Message:
    return Message(body=row.body, routing_key=row.routing_key, message_id=str(row.event_id))
