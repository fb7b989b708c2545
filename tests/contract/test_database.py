"""The contract of the database's plumbing, held by SQLite and by PostgreSQL (a real server): transactions, outages."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from contract.database_kit import NOTES, NOW, REPLIES
from voxelmill_shared.database import (
    DatabaseAddressError,
    check,
    is_sqlite,
    open_database,
    reading,
    transaction,
)
from voxelmill_shared.database_limits import DatabaseLimits
from voxelmill_shared.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine


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

    @pytest.mark.postgresql
    async def test_connections_of_a_process_are_bounded(self, database: str) -> None:
        """However much is asked at a time, there are no more connections than allowed; who waits too long is told why."""
        engine = open_database(database, DatabaseLimits(connections=2, wait_seconds=0.3))
        mine = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")

        async def ask() -> int:
            async with reading(engine) as connection:
                return int((await connection.execute(mine)).scalar_one())

        assert max(await asyncio.gather(*(ask() for _ in range(12)))) == 2
        async with transaction(engine), transaction(engine):
            with pytest.raises(
                DatabaseUnavailableError, match=r"all 2 connections .* raise VOXELMILL_DATABASE_POOL_SIZE"
            ):
                await ask()
        assert await ask() <= 2
        await engine.dispose()

    @pytest.mark.postgresql
    async def test_statement_that_takes_too_long(self, database: str) -> None:
        """It is broken off, and the connection is good for the next one."""
        engine = open_database(database, DatabaseLimits(statement_seconds=0.2))
        with pytest.raises(DatabaseUnavailableError):
            async with reading(engine) as connection:
                await connection.execute(text("SELECT pg_sleep(60)"))
        await check(engine)
        await engine.dispose()

    async def test_server_that_says_nothing(self) -> None:
        """It takes the connection and is silent: not waited for without end."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            engine = open_database(f"postgresql://u:p@127.0.0.1:{port}/name", DatabaseLimits(connect_seconds=0.2))
            async with asyncio.timeout(20):
                with pytest.raises(DatabaseUnavailableError):
                    await check(engine)
            await engine.dispose()

    async def test_writer_that_waits_too_long(self, tmp_path: Path) -> None:
        """SQLite's write lock is not waited for without end."""
        first = open_database(f"sqlite:///{tmp_path}/a.db")
        second = open_database(f"sqlite:///{tmp_path}/a.db", DatabaseLimits(statement_seconds=0.2))
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
