"""The contract of the database's plumbing, held by SQLite and by PostgreSQL (a real server)."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from voxelmill_shared.database import (
    DatabaseAddressError,
    UtcDateTime,
    check,
    is_sqlite,
    open_database,
    reading,
    transaction,
)
from voxelmill_shared.errors import BrokerUnavailableError, DatabaseUnavailableError, UnroutableError
from voxelmill_shared.events import Envelope, UploadCompleted
from voxelmill_shared.lease import claim_due, held_by, lease_columns
from voxelmill_shared.migrations import MigrationError, differences, upgrade
from voxelmill_shared.outbox import OutboxRelay, add, outbox_table
from voxelmill_shared.transport.embedded import EmbeddedTransport
from voxelmill_shared.transport.topology import QueueSpec, Topology

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_shared.transport.base import Delivery, Message

METADATA = MetaData()
NOTES = Table(
    "notes",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("text", String(100), unique=True, nullable=False),
    Column("at", UtcDateTime()),
)
REPLIES = Table("replies", METADATA, Column("id", Integer, primary_key=True), Column("note", ForeignKey("notes.id")))
TIMERS = Table(
    "timers",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("part", Integer, primary_key=True),
    *lease_columns(),
)
OUTBOX = outbox_table(METADATA, "outbox")
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WANTED = QueueSpec("test.upload-completed", ("upload.completed.v1",))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the address of a fresh, empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/folder that is missing/voxelmill.db"
    address: str = request.getfixturevalue("database")
    return address


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    """Give an engine on a database with the tables of these tests."""
    opened = open_database(url)
    async with transaction(opened) as connection:
        await connection.run_sync(METADATA.create_all)
    yield opened
    await opened.dispose()


def run_program(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python program of its own, with pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Wait until an asynchronous condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - what is waited for lies in a database
            await asyncio.sleep(0.01)


class TestTransactions:
    async def test_commits_at_the_end(self, engine: AsyncEngine) -> None:
        """What a transaction wrote is there for others afterwards."""
        async with transaction(engine) as connection:
            await connection.execute(insert(NOTES).values(text="a"))
        async with reading(engine) as connection:
            assert (await connection.execute(select(NOTES.c.text))).scalars().all() == ["a"]

    async def test_rolls_back_on_an_error(self, engine: AsyncEngine) -> None:
        """An error of the caller's undoes the whole transaction, and passes as it is."""

        async def fail_half_way() -> None:
            async with transaction(engine) as connection:
                await connection.execute(insert(NOTES).values(text="a"))
                raise OSError("of the caller")

        with pytest.raises(OSError, match="of the caller"):
            await fail_half_way()
        async with reading(engine) as connection:
            assert not (await connection.execute(select(NOTES))).all()

    async def test_errors_of_statements_pass_as_they_are(self, engine: AsyncEngine) -> None:
        """A broken constraint and a wrong statement say nothing about the database as a whole."""
        async with transaction(engine) as connection:
            await connection.execute(insert(NOTES).values(text="a"))
        with pytest.raises(IntegrityError):
            async with transaction(engine) as connection:
                await connection.execute(insert(NOTES).values(text="a"))
        with pytest.raises(IntegrityError):
            async with transaction(engine) as connection:
                await connection.execute(insert(REPLIES).values(note=999))
        with pytest.raises((OperationalError, ProgrammingError)):
            async with transaction(engine) as connection:
                await connection.execute(text("SELECT * FROM nothing"))
        await check(engine)

    async def test_writers_queue_instead_of_failing(self, engine: AsyncEngine) -> None:
        """Transactions that read and then write, all at once: each one counts, none fails."""
        async with transaction(engine) as connection:
            await connection.execute(insert(NOTES).values(id=1, text="0"))

        async def count_up() -> None:
            async with transaction(engine) as connection:
                row = select(NOTES.c.text).where(NOTES.c.id == 1).with_for_update()
                number = int((await connection.execute(row)).scalar_one())
                await connection.execute(update(NOTES).where(NOTES.c.id == 1).values(text=str(number + 1)))

        await asyncio.gather(*(count_up() for _ in range(20)))
        async with reading(engine) as connection:
            assert (await connection.execute(select(NOTES.c.text))).scalar_one() == "20"

    async def test_reader_does_not_wait_for_a_writer(self, engine: AsyncEngine) -> None:
        """A reader sees what was committed, while a writer is still at work."""
        async with transaction(engine) as writer:
            await writer.execute(insert(NOTES).values(text="a"))
            async with asyncio.timeout(5), reading(engine) as reader:
                assert not (await reader.execute(select(NOTES))).all()

    async def test_reader_cannot_write_on_postgresql(self, engine: AsyncEngine) -> None:
        """A transaction that only reads is held to it where the server can; SQLite has no such mode."""
        if is_sqlite(engine):
            return
        with pytest.raises(Exception, match="read-only"):
            async with reading(engine) as connection:
                await connection.execute(insert(NOTES).values(text="a"))

    async def test_sqlite_is_set_up_to_last(self, engine: AsyncEngine) -> None:
        """WAL, so that readers and writer do not meet; FULL, so that a power cut loses nothing; references checked."""
        if not is_sqlite(engine):
            return
        async with reading(engine) as connection:
            for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
                assert (await connection.execute(text(f"PRAGMA {pragma}"))).scalar_one() == value


class TestMoments:
    async def test_moments_come_back_in_utc(self, engine: AsyncEngine) -> None:
        """Whatever the zone that a moment was given in, it is the same moment, to the microsecond, in UTC."""
        moment = datetime(2026, 3, 1, 1, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
        async with transaction(engine) as connection:
            await connection.execute(insert(NOTES).values(text="a", at=moment))
            await connection.execute(insert(NOTES).values(text="b", at=None))
            found = (await connection.execute(select(NOTES.c.at).order_by(NOTES.c.text))).scalars().all()
        assert found == [moment, None]
        assert found[0].tzinfo is UTC or found[0].utcoffset() == timedelta(0)

    async def test_moments_are_compared_as_moments(self, engine: AsyncEngine) -> None:
        """Also in SQLite, where they are text."""
        async with transaction(engine) as connection:
            for number in (-1, 0, 1):
                at = NOW + timedelta(microseconds=number)
                await connection.execute(insert(NOTES).values(text=str(number), at=at))
            zone = timezone(timedelta(hours=-7))
            earlier = select(NOTES.c.text).where(NOTES.c.at <= NOW.astimezone(zone)).order_by(NOTES.c.at)
            assert (await connection.execute(earlier)).scalars().all() == ["-1", "0"]

    async def test_moment_without_zone_is_refused(self, engine: AsyncEngine) -> None:
        """Nobody knows which moment that would be."""
        with pytest.raises(Exception, match="time zone"):
            async with transaction(engine) as connection:
                await connection.execute(insert(NOTES).values(text="a", at=datetime(2026, 3, 1)))  # noqa: DTZ001 - the point of the test


class TestOutages:
    async def test_database_that_is_not_there(self, tmp_path: Path) -> None:
        """No server, no entry, no file: one error with the reason in one line, and without the password."""
        (tmp_path / "file").write_bytes(b"x")
        (tmp_path / "broken.db").write_bytes(b"this is no database, " * 100)
        for address in (
            "postgresql://user:sesame@127.0.0.1:1/name",
            f"sqlite:///{tmp_path}/file/voxelmill.db",
            f"sqlite:///{tmp_path}/broken.db",
            f"sqlite:///{tmp_path}",
        ):
            engine = open_database(address)
            with pytest.raises(DatabaseUnavailableError) as caught:
                await check(engine)
            assert "\n" not in str(caught.value)
            assert "sesame" not in str(caught.value)
            await engine.dispose()

    @pytest.mark.postgresql
    async def test_wrong_password_and_missing_database(self, database: str) -> None:
        """The server answers, but does not let us in: the same error, with its reason."""
        for address in (database.replace("voxelmill:", "voxelmill:wrong"), f"{database}_missing"):
            engine = open_database(address)
            with pytest.raises(DatabaseUnavailableError, match=r"password|does not exist"):
                await check(engine)
            await engine.dispose()

    @pytest.mark.postgresql
    async def test_connection_that_is_cut(self, database: str) -> None:
        """In the middle of a transaction it is an outage; a connection that was cut at rest is replaced unseen."""
        engine, other = open_database(database), open_database(database)
        cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

        async def be_cut() -> None:
            async with transaction(engine) as connection:
                await connection.execute(text("SELECT 1"))
                async with transaction(other) as axe:
                    await axe.execute(cut)
                await connection.execute(text("SELECT 1"))

        with pytest.raises(DatabaseUnavailableError):
            await be_cut()
        await check(engine)
        async with transaction(other) as axe:
            await axe.execute(cut)
        await check(engine)
        await engine.dispose()
        await other.dispose()

    async def test_writer_that_waits_too_long(self, tmp_path: Path) -> None:
        """SQLite's write lock is not waited for without end."""
        first = open_database(f"sqlite:///{tmp_path}/a.db")
        second = open_database(f"sqlite:///{tmp_path}/a.db", statement_seconds=0.2)
        async with transaction(first):
            with pytest.raises(DatabaseUnavailableError, match="locked"):
                async with transaction(second):
                    pass
        async with transaction(second) as connection:
            await connection.execute(text("CREATE TABLE a (b int)"))
        await first.dispose()
        await second.dispose()

    def test_addresses_that_name_no_database_are_refused(self) -> None:
        """The reason says what to write instead."""
        for address in ("", "voxelmill.db", "mysql://host/name", "sqlite://", "sqlite:///:memory:"):
            with pytest.raises(DatabaseAddressError):
                open_database(address)


def timer(name: str, due: timedelta, part: int = 0) -> dict[str, object]:
    return {"name": name, "part": part, "due_at": NOW + due}


async def claim(engine: AsyncEngine, owner: str, now: datetime = NOW, limit: int = 10) -> list[str]:
    async with transaction(engine) as connection:
        rows = await claim_due(connection, TIMERS, now=now, lease=timedelta(seconds=60), owner=owner, limit=limit)
    assert all(row.leased_by == owner for row in rows)
    return [row.name for row in rows]


class TestLeases:
    async def test_due_rows_are_claimed_longest_due_first(self, engine: AsyncEngine) -> None:
        """What is not due, or never will be, stays; no more than asked for are taken."""
        async with transaction(engine) as connection:
            rows = [
                timer("c", timedelta(0)),
                timer("a", timedelta(-2)),
                timer("b", timedelta(-1)),
                timer("later", timedelta(1)),
            ]
            await connection.execute(insert(TIMERS), [*rows, timer("never", timedelta(0)) | {"due_at": None}])
        assert await claim(engine, "one", limit=2) == ["a", "b"]
        assert await claim(engine, "two") == ["c"]
        assert await claim(engine, "three") == []

    async def test_lease_that_ran_out_may_be_claimed_by_another(self, engine: AsyncEngine) -> None:
        """A holder that died holds nothing up, and one that was only slow finds that it holds nothing any more."""
        async with transaction(engine) as connection:
            await connection.execute(insert(TIMERS), [timer("a", timedelta(0))])
        assert await claim(engine, "one") == ["a"]
        assert await claim(engine, "two", NOW + timedelta(seconds=59)) == []
        assert await claim(engine, "two", NOW + timedelta(seconds=60)) == ["a"]
        later = NOW + timedelta(seconds=61)
        async with transaction(engine) as connection:
            for owner, settled in (("one", 0), ("two", 1)):
                gone = await connection.execute(TIMERS.delete().where(held_by(TIMERS, owner=owner, now=later)))
                assert gone.rowcount == settled

    async def test_two_claimers_at_once_never_get_the_same_row(self, url: str, engine: AsyncEngine) -> None:
        """Many rows, several claimers with engines of their own: every row is claimed, once."""
        names = {f"timer-{number}" for number in range(60)}
        async with transaction(engine) as connection:
            await connection.execute(insert(TIMERS), [timer(name, timedelta(0), 1) for name in sorted(names)])

        async def claim_all(owner: str) -> list[str]:
            mine = open_database(url)
            claimed: list[str] = []
            while some := await claim(mine, owner, limit=3):
                claimed += some
            await mine.dispose()
            return claimed

        shares = await asyncio.gather(*(claim_all(f"owner-{number}") for number in range(4)))
        assert sorted(name for share in shares for name in share) == sorted(names)

    @pytest.mark.postgresql
    async def test_claimer_steps_over_rows_that_another_is_claiming(self, database: str) -> None:
        """On PostgreSQL nobody waits for the transaction of another claimer."""
        engine = open_database(database)
        async with transaction(engine) as connection:
            await connection.run_sync(METADATA.create_all)
            await connection.execute(insert(TIMERS), [timer("a", timedelta(-1)), timer("b", timedelta(0))])
        async with transaction(engine) as slow:
            lease = timedelta(seconds=60)
            assert len(await claim_due(slow, TIMERS, now=NOW, lease=lease, owner="slow", limit=1)) == 1
            async with asyncio.timeout(5):
                assert await claim(engine, "quick") == ["b"]
        await engine.dispose()


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


FIRST = '''
"""Make the table of series."""
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None

def upgrade() -> None:
    op.create_table("{name}_series", sa.Column("uid", sa.String(64), primary_key=True))
    uid = sa.Column("uid", sa.String(64), sa.ForeignKey("{name}_series.uid"), primary_key=True)
    op.create_table("{name}_notes", uid)
'''
SECOND = '''
"""Count instances."""
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"

def upgrade() -> None:
    with op.batch_alter_table("{name}_series") as table:
        table.add_column(sa.Column("instances", sa.Integer(), nullable=False, server_default="0"))
'''
THIRD = '''
"""Fail half-way."""
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0003", "0002"

def upgrade() -> None:
    op.create_table("{name}_half", sa.Column("id", sa.Integer(), primary_key=True))
    raise ArithmeticError("a mistake in a migration")
'''


def service(folder: Path, name: str, *migrations: str) -> str:
    """Write a package with migrations, as a service has it; return its name for `upgrade`."""
    versions = folder / f"example_{name}" / "migrations" / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    for package in (versions.parent, versions.parents[1]):
        (package / "__init__.py").touch()
    for number, migration in enumerate(migrations):
        (versions / f"{number + 1:04}_example.py").write_text(migration.format(name=name))
    return f"example_{name}.migrations"


async def columns(url: str, table: str) -> set[str]:
    """Return the names of a table's columns."""
    from sqlalchemy import inspect

    engine = open_database(url)
    async with reading(engine) as connection:
        found = await connection.run_sync(
            lambda sync: (
                {column["name"] for column in inspect(sync).get_columns(table)}
                if inspect(sync).has_table(table)
                else set()
            )
        )
    await engine.dispose()
    return found


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder from which packages can be imported; its name would be a template for configparser."""
    folder = tmp_path / "100%(sure) a:b"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.startswith("example_")]:
        del sys.modules[name]


class TestMigrations:
    async def test_missing_migrations_are_applied_and_rows_kept(self, url: str, packages: Path) -> None:
        """From nothing, then from an older version; applied ones are not applied again."""
        package = service(packages, "ingest", FIRST)
        await upgrade(url, package=package, version_table="alembic_version_ingest")
        engine = open_database(url)
        async with transaction(engine) as connection:
            await connection.execute(text("INSERT INTO ingest_series VALUES ('1.2')"))
            await connection.execute(text("INSERT INTO ingest_notes VALUES ('1.2')"))
        service(packages, "ingest", FIRST, SECOND)
        for _ in range(2):
            await upgrade(url, package=package, version_table="alembic_version_ingest")
        async with reading(engine) as connection:
            assert (await connection.execute(text("SELECT * FROM ingest_series"))).all() == [("1.2", 0)]
            version = await connection.execute(text("SELECT version_num FROM alembic_version_ingest"))
            assert version.scalar_one() == "0002"
        await engine.dispose()

    async def test_services_share_a_database_and_migrate_at_once(self, url: str, packages: Path) -> None:
        """Each has its own tables and its own version table."""
        names = [(service(packages, name, FIRST, SECOND), f"alembic_version_{name}") for name in ("ingest", "index")]
        await asyncio.gather(*(upgrade(url, package=package, version_table=table) for package, table in names))
        for name in ("ingest", "index"):
            assert await columns(url, f"{name}_series") == {"uid", "instances"}
            assert await columns(url, f"alembic_version_{name}") == {"version_num"}

    async def test_migration_that_fails_leaves_the_database_as_it_was(self, url: str, packages: Path) -> None:
        """All migrations that were missing, or none of them."""
        package = service(packages, "ingest", FIRST)
        await upgrade(url, package=package, version_table="alembic_version_ingest")
        service(packages, "ingest", FIRST, SECOND, THIRD)
        with pytest.raises(ArithmeticError, match="a mistake"):
            await upgrade(url, package=package, version_table="alembic_version_ingest")
        assert await columns(url, "ingest_series") == {"uid"}
        assert not await columns(url, "ingest_half")

    async def test_newer_database_is_refused(self, url: str, packages: Path) -> None:
        """A version that does not know the tables must not work on them."""
        newer = service(packages, "newer", FIRST, SECOND)
        await upgrade(url, package=newer, version_table="alembic_version_ingest")
        older = service(packages, "older", FIRST)
        with pytest.raises(MigrationError, match=r"0002.*newer version"):
            await upgrade(url, package=older, version_table="alembic_version_ingest")

    async def test_package_without_migrations_is_refused(self, url: str) -> None:
        """Nothing to apply is a mistake of packaging, not success."""
        with pytest.raises(MigrationError, match="versions"):
            await upgrade(url, package="voxelmill_shared.storage", version_table="x")

    async def test_replicas_that_start_at_once_migrate_once(self, url: str, packages: Path) -> None:
        """Processes on one fresh database: all of them succeed, and the tables are there."""
        package = service(packages, "ingest", FIRST, SECOND)
        program = """
        import asyncio, sys
        from voxelmill_shared.migrations import upgrade
        sys.path.insert(0, sys.argv[1])
        print("ready", flush=True)
        sys.stdin.readline()
        asyncio.run(upgrade(sys.argv[2], package=sys.argv[3], version_table="alembic_version_ingest"))
        """
        replicas = [run_program(program, str(packages), url, package) for _ in range(4)]
        for replica in replicas:
            assert replica.stdout is not None
            assert await asyncio.to_thread(replica.stdout.readline) == "ready\n"
        for replica in replicas:
            assert replica.stdin is not None
            replica.stdin.write("go\n")
            replica.stdin.flush()
        for replica in replicas:
            await asyncio.to_thread(replica.communicate)
        assert [replica.returncode for replica in replicas] == [0] * 4
        assert await columns(url, "ingest_series") == {"uid", "instances"}

    async def test_migrating_says_nothing_and_changes_no_logging(
        self, url: str, packages: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Logging belongs to the program."""
        import logging

        before = (logging.root.level, list(logging.root.handlers), logging.getLogger("sqlalchemy").level)
        await upgrade(url, package=service(packages, "ingest", FIRST), version_table="alembic_version_ingest")
        assert (logging.root.level, list(logging.root.handlers), logging.getLogger("sqlalchemy").level) == before
        assert capfd.readouterr() == ("", "")

    async def test_differences_between_tables_and_code_are_found(self, url: str, engine: AsyncEngine) -> None:
        """The guard of hand-written migrations: nothing where all is well, else what is missing."""
        assert await differences(url, METADATA) == []
        async with transaction(engine) as connection:
            await connection.execute(text("ALTER TABLE notes DROP COLUMN at"))
            await connection.execute(text("CREATE TABLE of_another_service (id int)"))
        found = await differences(url, METADATA)
        assert len(found) == 1
        assert "at" in found[0]
        async with reading(engine) as connection:
            assert (await connection.execute(select(func.count()).select_from(NOTES))).scalar_one() == 0
