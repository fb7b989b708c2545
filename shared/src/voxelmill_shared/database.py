"""One database behind one kind of engine: SQLite for one machine, PostgreSQL for many."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from sqlalchemy import DateTime, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool
from sqlalchemy.types import TypeDecorator

from voxelmill_shared.database_limits import DEFAULT_LIMITS, DatabaseLimits
from voxelmill_shared.errors import DatabaseUnavailableError, VoxelmillError
from voxelmill_shared.file_turn import PAUSE_SECONDS, FileTurn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiosqlite
    from sqlalchemy import URL, Connection
    from sqlalchemy.engine import Dialect, ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncConnection

_READ_ONLY = "voxelmill_read_only"
_BUSY_SECONDS = "voxelmill_busy_seconds"

_SQLITE_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
    }
)
"""The database as a whole cannot be used now (sqlite.org/rescode.html); any other code is about one statement."""

_POSTGRESQL_UNAVAILABLE = ("08", "28", "3D", "40001", "40P01", "53", "55P03", "57", "58")
"""SQLSTATEs, or the classes of them, that say the same (PostgreSQL manual, appendix A): no connection, no entry, no
such database, a transaction that lost against another one, no resources, shut down, an error of the system."""


class DatabaseAddressError(VoxelmillError, ValueError):
    """An address that names no database."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, in UTC: aware in Python, `timestamptz` in PostgreSQL, sortable ISO text in SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a moment without a time zone, and turn any other into UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()}: a moment needs its time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the base class fixes the parameters
        """Give back a moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def open_database(url: str, limits: DatabaseLimits = DEFAULT_LIMITS) -> AsyncEngine:
    """Make the engine for a database. Nothing is contacted yet; dispose of it at the end.

    Whatever goes wrong with the database itself, and not with one statement, is raised as `DatabaseUnavailableError`
    by every statement of this engine.

    Parameters
    ----------
    url
        `sqlite:///relative/path`, `sqlite:////absolute/path` (SQLAlchemy's way of writing it; missing folders are
        made), or `postgresql://user:password@host:port/name`.
    limits
        How many connections, and how long anything may take.

    Raises
    ------
    DatabaseAddressError
        If the address is of another kind.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise DatabaseAddressError(
            "the database's address cannot be read: write sqlite:///path or postgresql://…"
        ) from None
    match parsed.get_backend_name():
        case "sqlite":
            engine = _open_sqlite(parsed, limits.statement_seconds)
        case "postgresql":
            engine = _open_postgresql(parsed, limits)
        case other:
            raise DatabaseAddressError(f"a database is sqlite:///path or postgresql://…, not {other}://")
    event.listen(engine.sync_engine, "handle_error", _explain, retval=True)
    return engine


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Run a transaction that may write: committed at the end, rolled back on an error.

    On SQLite it begins with the write lock (BEGIN IMMEDIATE), so that writers wait for each other instead of failing
    half-way: keep it short, and wait for nothing else inside.

    Raises
    ------
    DatabaseUnavailableError
        If the database does not answer. Errors of single statements, such as `IntegrityError`, pass as they are.
    """
    async with _turn(engine), _connected(engine) as connection, connection.begin():
        yield connection


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Run a transaction that only reads: it never waits for a writer and holds none up.

    Raises
    ------
    DatabaseUnavailableError
        If the database does not answer.
    """
    async with _connected(engine) as connection:
        await connection.execution_options(**{_READ_ONLY: True}, **_read_only(engine))
        async with connection.begin():
            yield connection


async def check(engine: AsyncEngine) -> None:
    """Return if the database answers.

    Raises
    ------
    DatabaseUnavailableError
        If it does not, with the reason.
    """
    async with reading(engine) as connection:
        await connection.execute(text("SELECT count(*) FROM sqlite_master" if is_sqlite(connection) else "SELECT 1"))


def is_sqlite(of: AsyncEngine | AsyncConnection) -> bool:
    """Whether this is SQLite, which has one writer at a time and no row locks."""
    return of.dialect.name == "sqlite"


_turns: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()
"""Who writes now, by event loop and file. Kept only while somebody writes or waits."""


@asynccontextmanager
async def _turn(engine: AsyncEngine) -> AsyncIterator[None]:
    """Let the writers of an SQLite file write one after the other.

    Those of one program come as they asked: SQLite lets those who wait sleep and try again, up to 100 ms each time and
    in no fair order, so that of 64 writers the last waited 2 s instead of 0.3 s, and the file lay idle half of the
    time. Programs take turns (`FileTurn`).
    """
    if not is_sqlite(engine):
        yield
        return
    file = str(engine.url.database)
    lock = _turns.setdefault((id(asyncio.get_running_loop()), file), asyncio.Lock())
    ours = FileTurn(Path(file))
    try:
        async with asyncio.timeout(engine.get_execution_options()[_BUSY_SECONDS]), AsyncExitStack() as stack:
            await stack.enter_async_context(lock)
            stack.callback(ours.give)
            while not ours.take():  # noqa: ASYNC110 - only the kernel knows when it is free
                await asyncio.sleep(PAUSE_SECONDS)
            taken = stack.pop_all()
    except TimeoutError:
        raise _unavailable(engine.url, sqlite3.OperationalError("database is locked")) from None
    async with taken:
        yield


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        connection = await engine.connect()
    except PoolTimeoutError as error:
        raise _unavailable(engine.url, _none_free(engine)) from error
    except (OSError, TimeoutError, DBAPIError, sqlite3.Error) as error:
        # While a connection is being made, every error is about the database as a whole.
        raise _unavailable(engine.url, error) from error
    try:
        yield connection
    finally:
        await connection.close()


def _none_free(engine: AsyncEngine) -> OSError:
    pool = engine.pool
    size = pool.size() if isinstance(pool, QueuePool) else 0
    return OSError(
        f"all {size} connections of this process are in use: raise VOXELMILL_DATABASE_POOL_SIZE (the max_connections of"
        " PostgreSQL bounds all processes together) or give the service less to do at a time"
    )


def _read_only(engine: AsyncEngine) -> dict[str, Any]:
    return {} if is_sqlite(engine) else {"postgresql_readonly": True}


def _open_sqlite(url: URL, busy_seconds: float) -> AsyncEngine:
    if not url.database or url.database == ":memory:":
        raise DatabaseAddressError("a database in memory cannot be shared: write sqlite:///path")
    path = Path(url.database).absolute()
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite", database=str(path)),
        connect_args={"timeout": busy_seconds},
        execution_options={_BUSY_SECONDS: busy_seconds},
    )

    @event.listens_for(engine.sync_engine, "do_connect")
    def make_folder(*_: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, see `begin`
        try:
            connection.run_async(partial(_set_up_sqlite, busy_seconds=busy_seconds))
        except BaseException:
            connection.close()  # nobody knows of it yet, and its thread would live on
            raise

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


async def _set_up_sqlite(connection: aiosqlite.Connection, busy_seconds: float) -> None:
    try:
        async with asyncio.timeout(busy_seconds):
            while not await _switches_to_wal(connection):  # noqa: ASYNC110 - only SQLite knows when it is free
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise sqlite3.OperationalError("database is locked") from None
    # FULL: what is committed outlives a power cut also in WAL mode (sqlite.org/pragma.html#pragma_synchronous).
    await connection.executescript("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON")


async def _switches_to_wal(connection: aiosqlite.Connection) -> bool:
    """Switch a database to WAL mode; False if others hold it, which SQLite itself does not wait for in this case."""
    try:
        await connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _open_postgresql(url: URL, limits: DatabaseLimits) -> AsyncEngine:
    query = dict(url.query)
    if "sslmode" in query:  # libpq's name for what asyncpg calls ssl
        query["ssl"] = query.pop("sslmode")
    return create_async_engine(
        url.set(drivername="postgresql+asyncpg", query=query),
        pool_size=limits.connections,
        max_overflow=0,
        pool_timeout=limits.wait_seconds,
        pool_pre_ping=True,  # a connection that died while it rested is replaced unseen
        connect_args={
            "timeout": limits.connect_seconds,
            "command_timeout": limits.statement_seconds,
            "server_settings": {"application_name": "voxelmill"},
        },
    )


def _explain(context: ExceptionContext) -> DatabaseUnavailableError | None:
    """Replace errors about the database as a whole; None leaves an error as it is."""
    error = context.original_exception
    if isinstance(error, DatabaseUnavailableError) or context.is_pre_ping:
        return None
    if not isinstance(error, Exception):
        return None  # a cancellation in the middle of a statement says nothing about the database
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        unavailable = code in _SQLITE_UNAVAILABLE
    else:
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""
        unavailable = (
            context.is_disconnect
            or isinstance(error, OSError | TimeoutError)
            or str(state).startswith(_POSTGRESQL_UNAVAILABLE)
        )
    return _unavailable(context.engine.url if context.engine else None, error) if unavailable else None


def _unavailable(url: URL | None, error: BaseException) -> DatabaseUnavailableError:
    reason = " ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__
    where = "" if url is None else f"{url.database if url.host is None else f'{url.host}/{url.database}'}: "
    return DatabaseUnavailableError(f"database {where}{reason}")
