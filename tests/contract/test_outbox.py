"""The contract of the outbox, held by SQLite and by PostgreSQL (a real server)."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert

from contract.database_kit import NOTES, OUTBOX, run_program, until
from voxelmill_shared.database import (
    is_sqlite,
    open_database,
    transaction,
)
from voxelmill_shared.errors import BrokerUnavailableError, UnroutableError
from voxelmill_shared.events import Envelope, UploadCompleted
from voxelmill_shared.outbox import OutboxRelay, add
from voxelmill_shared.transport.embedded import EmbeddedTransport
from voxelmill_shared.transport.topology import QueueSpec, Topology

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_shared.transport.base import Delivery, Message

WANTED = QueueSpec("test.upload-completed", ("upload.completed.v1",))


def envelopes(*numbers: int) -> list[Envelope]:
    return [
        Envelope.wrap(UploadCompleted(upload_id=f"upload-{number}", objects=1), "voxelmill/test") for number in numbers
    ]


@pytest.fixture
async def transport(tmp_path: Path) -> AsyncIterator[EmbeddedTransport]:
    """Give a broker with one queue for `upload.completed`."""
    opened = EmbeddedTransport(tmp_path / "broker.db")
    await opened.declare(Topology((WANTED,)))
    yield opened
    await opened.close()


async def arrived(transport: EmbeddedTransport, count: int) -> list[Message]:
    """Take `count` messages out of the queue, in their order."""
    messages: list[Message] = []

    async def take(delivery: Delivery) -> None:
        messages.append(delivery.message)
        await delivery.ack()

    consumer = await transport.consume(WANTED, take, prefetch=1)

    async def all_here() -> bool:
        return len(messages) >= count

    await until(all_here)
    await consumer.cancel()
    return messages


async def ready(transport: EmbeddedTransport) -> int:
    return sum(count.ready for count in await transport.counts() if count.queue == WANTED.name)


class BrokenTransport(EmbeddedTransport):
    """A broker whose answers can be cut off: before it takes messages, or after."""

    down = False
    after: BaseException | None = None

    async def publish(self, messages: Sequence[Message]) -> None:
        if self.down:
            raise BrokerUnavailableError("the broker is down")
        await super().publish(messages)
        if self.after:
            raise self.after


class TestOutbox:
    async def test_events_stand_with_the_rows_they_speak_of(
        self, engine: AsyncEngine, transport: EmbeddedTransport
    ) -> None:
        """A transaction that is rolled back leaves neither; one that is committed leaves both."""
        relay = OutboxRelay(engine, OUTBOX, transport)

        async def fail_half_way() -> None:
            async with transaction(engine) as connection:
                await connection.execute(insert(NOTES).values(text="undone"))
                await add(connection, OUTBOX, envelopes(1))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail_half_way()
        assert await relay.pending() == 0
        async with transaction(engine) as connection:
            await connection.execute(insert(NOTES).values(text="a"))
            await add(connection, OUTBOX, envelopes(2))
        assert await relay.pending() == 1
        assert await relay.drain() == 1
        assert await relay.pending() == 0

    async def test_messages_are_the_events_in_their_order(
        self, engine: AsyncEngine, transport: EmbeddedTransport
    ) -> None:
        """Byte for byte, with routing key and id, in the order in which they were added, over several batches."""
        events = envelopes(*range(25))
        async with transaction(engine) as connection:
            await add(connection, OUTBOX, events)
            await add(connection, OUTBOX, [])
        assert await OutboxRelay(engine, OUTBOX, transport, batch=10).drain() == 25
        messages = await arrived(transport, 25)
        assert [message.body for message in messages] == [event.encode() for event in events]
        assert [message.message_id for message in messages] == [str(event.id) for event in events]
        assert {message.routing_key for message in messages} == {"upload.completed.v1"}

    async def test_adding_what_is_still_there_is_no_error(
        self, engine: AsyncEngine, transport: EmbeddedTransport
    ) -> None:
        """The same fact twice is one event; once it is published, it can be added again."""
        for _ in range(2):
            async with transaction(engine) as connection:
                await add(connection, OUTBOX, envelopes(1, 1, 2))
        relay = OutboxRelay(engine, OUTBOX, transport)
        assert await relay.drain() == 2
        async with transaction(engine) as connection:
            await add(connection, OUTBOX, envelopes(1))
        assert await relay.drain() == 1

    async def test_broker_that_does_not_confirm_costs_no_event(self, engine: AsyncEngine, tmp_path: Path) -> None:
        """Not taken, or taken and not confirmed: the events stay, and what was taken comes twice."""
        transport = BrokenTransport(tmp_path / "broker.db")
        await transport.declare(Topology((WANTED,)))
        async with transaction(engine) as connection:
            await add(connection, OUTBOX, envelopes(1, 2))
        relay = OutboxRelay(engine, OUTBOX, transport)
        transport.down = True
        with pytest.raises(BrokerUnavailableError):
            await relay.drain()
        transport.down, transport.after = False, BrokerUnavailableError("the connection broke")
        with pytest.raises(BrokerUnavailableError):
            await relay.drain()
        assert await relay.pending() == 2
        transport.after = None
        assert await relay.drain() == 2
        assert len(await arrived(transport, 4)) == 4
        await transport.close()

    async def test_event_that_no_queue_wants_holds_nothing_up(
        self, engine: AsyncEngine, transport: EmbeddedTransport
    ) -> None:
        """It stays, the others go; once a queue wants it, it goes too."""
        unwanted = Envelope.wrap(UploadCompleted(upload_id="x", objects=1), "voxelmill/test")
        unwanted = unwanted.model_copy(update={"type": "org.voxelmill.nobody.cares.v1"})
        events = envelopes(1, 2, 3)
        async with transaction(engine) as connection:
            await add(connection, OUTBOX, [unwanted, *events])
        relay = OutboxRelay(engine, OUTBOX, transport, batch=2, unroutable_wait=timedelta(0))
        for _ in range(2):
            await relay.drain()
            assert await relay.pending() == 1
        assert await ready(transport) == 3
        await transport.declare(Topology((QueueSpec("test.nobody", ("nobody.#",)),)))
        assert await relay.drain() == 1
        assert await relay.pending() == 0

    async def test_event_that_no_queue_wants_is_not_tried_all_the_time(
        self, engine: AsyncEngine, transport: EmbeddedTransport
    ) -> None:
        """Its routing key is set aside for a while, and new ones of its kind with it."""
        unwanted = [event.model_copy(update={"type": "org.voxelmill.nobody.v1"}) for event in envelopes(1, 2)]
        relay = OutboxRelay(engine, OUTBOX, transport, unroutable_wait=timedelta(hours=1))
        for event in unwanted:
            async with transaction(engine) as connection:
                await add(connection, OUTBOX, [event])
            await relay.drain()
        await transport.declare(Topology((QueueSpec("test.nobody", ("nobody.#",)),)))
        assert await relay.drain() == 0
        assert await OutboxRelay(engine, OUTBOX, transport).drain() == 2

    async def test_relay_runs_until_cancelled_and_outlives_an_outage(self, engine: AsyncEngine, tmp_path: Path) -> None:
        """Events go when it is notified, or at the next poll, or when the broker is back."""
        transport = BrokenTransport(tmp_path / "broker.db")
        await transport.declare(Topology((WANTED,)))
        relay = OutboxRelay(engine, OUTBOX, transport, poll=timedelta(milliseconds=50))
        running = asyncio.create_task(relay.run())

        async def empty() -> bool:
            return await relay.pending() == 0

        for number, down in ((1, False), (2, True), (3, False)):
            transport.down = down
            async with transaction(engine) as connection:
                await add(connection, OUTBOX, envelopes(number))
            relay.notify()
            if not down:
                await until(empty)
        async with transaction(engine) as connection:
            await add(connection, OUTBOX, envelopes(4))
        await until(empty)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len(await arrived(transport, 4)) == 4
        await transport.close()

    async def test_notified_relay_does_not_wait_for_the_poll(
        self, engine: AsyncEngine, transport: EmbeddedTransport
    ) -> None:
        """With a poll of an hour, only the notification can bring the event."""
        relay = OutboxRelay(engine, OUTBOX, transport, poll=timedelta(hours=1))
        running = asyncio.create_task(relay.run())
        for number in (1, 2):
            async with transaction(engine) as connection:
                await add(connection, OUTBOX, envelopes(number))
            relay.notify()

            async def empty() -> bool:
                return await relay.pending() == 0

            await until(empty)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def test_two_relays_at_once_lose_nothing(
        self, url: str, engine: AsyncEngine, transport: EmbeddedTransport
    ) -> None:
        """On PostgreSQL each event goes once; on SQLite, which has no row locks, at least once."""
        events = envelopes(*range(120))
        async with transaction(engine) as connection:
            await add(connection, OUTBOX, events)
        other = open_database(url)
        counts = await asyncio.gather(
            *(OutboxRelay(each, OUTBOX, transport, batch=7).drain() for each in (engine, other, engine, other))
        )
        await other.dispose()
        assert await OutboxRelay(engine, OUTBOX, transport).pending() == 0
        if not is_sqlite(engine):
            assert sum(counts) == len(events)
        messages = await arrived(transport, await ready(transport))
        assert {message.message_id for message in messages} == {str(event.id) for event in events}

    async def test_kill_between_publish_and_removal_loses_nothing(
        self, url: str, engine: AsyncEngine, tmp_path: Path
    ) -> None:
        """A process that is killed after the commit, while the broker takes the events: they are published again."""
        broker = tmp_path / "broker.db"
        transport = EmbeddedTransport(broker)
        await transport.declare(Topology((WANTED,)))
        await transport.close()
        process = run_program(
            """
            import asyncio, sys
            from pathlib import Path
            from sqlalchemy import MetaData
            from voxelmill_shared.database import open_database, transaction
            from voxelmill_shared.events import Envelope, UploadCompleted
            from voxelmill_shared.outbox import OutboxRelay, add, outbox_table
            from voxelmill_shared.transport.embedded import EmbeddedTransport

            class Stops(EmbeddedTransport):
                async def publish(self, messages):
                    await super().publish(messages)
                    print("published", flush=True)
                    sys.stdin.read()

            async def main():
                engine, table = open_database(sys.argv[1]), outbox_table(MetaData(), "outbox")
                async with transaction(engine) as connection:
                    events = [UploadCompleted(upload_id=f"upload-{number}", objects=1) for number in range(5)]
                    await add(connection, table, [Envelope.wrap(event, "voxelmill/test") for event in events])
                await OutboxRelay(engine, table, Stops(Path(sys.argv[2]))).drain()

            asyncio.run(main())
            """,
            url,
            str(broker),
        )
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "published\n"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        transport = EmbeddedTransport(broker)
        relay = OutboxRelay(engine, OUTBOX, transport)

        async def all_published() -> bool:
            # PostgreSQL gives the dead relay's rows back as soon as it notices that the connection is gone.
            return await relay.drain() >= 0 and await relay.pending() == 0

        await until(all_published)
        messages = await arrived(transport, 10)
        assert {message.message_id for message in messages} == {str(event.id) for event in envelopes(*range(5))}
        assert len(messages) == 10
        await transport.close()

    async def test_unroutable_is_an_error_of_the_transport(self, transport: EmbeddedTransport) -> None:
        """What the relay relies on: publishing to nobody does not pass unnoticed."""
        from voxelmill_shared.transport.base import Message

        with pytest.raises(UnroutableError):
            await transport.publish([Message(b"x", "nobody", "1")])
