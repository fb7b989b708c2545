"""Going through the audit trail from its first record to its head, and naming whatever does not fit the chain."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, inspect, select
from sqlalchemy.exc import DBAPIError

from voxelmill_shared.catalog.chain import FIELDS, GENESIS, record_hash
from voxelmill_shared.catalog.tables import AUDIT, AUDIT_HEAD
from voxelmill_shared.database import reading
from voxelmill_shared.errors import VoxelmillError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

PAGE = 2000
"""Records in memory at a time, about 2 KB each."""
UNREADABLE = (AttributeError, DBAPIError, OverflowError, TypeError, ValueError)
"""What reading and hashing raise where a row holds what no record of ours does: bytes, no UTF-8, a year 20000. An
outage or a time limit is none of these: `database` has made it a `DatabaseUnavailableError`, which ends it all."""
NAMED = 1000
"""How many faults are named one by one; the others are counted."""


class HeadFormatError(VoxelmillError, ValueError):
    """A head is written as NUMBER:HASH, as `voxelmill audit verify` prints it."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last record of a trail at some time; `number` 0 of an empty one."""

    number: int
    hash: str

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read NUMBER:HASH.

        Raises
        ------
        HeadFormatError
            If it is written otherwise.
        """
        found = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", text.strip().lower())
        if not found:
            raise HeadFormatError(f"{text}: a head is written NUMBER:HASH, as `voxelmill audit verify` prints it")
        return cls(int(found[1]), found[2])

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


@dataclass(frozen=True, slots=True)
class Fault:
    """One place where the trail is not what was recorded.

    `kind` is changed (put in or moved too), missing, cut, beyond-head, head or rewritten; `number` is that of the
    record where it shows, `what` and `recorded` are what this record says now.
    """

    kind: str
    number: int
    line: str
    what: str = ""
    recorded: datetime | None = None


@dataclass(slots=True)
class Verification:
    """What going through a trail has found. It is sound if `faulty` is 0."""

    head: Head
    records: int = 0
    faulty: int = 0
    faults: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        """Count a fault, and keep it if there are not too many."""
        self.faulty += 1
        if len(self.faults) < NAMED:
            self.faults.append(fault)


async def has_chain(connection: AsyncConnection) -> bool:
    """Tell whether the trail is a chain already: index makes it one when it starts."""
    return await connection.run_sync(lambda synchronous: bool(inspect(synchronous).has_table(AUDIT_HEAD.name)))


async def verify_trail(
    engine: AsyncEngine, noted: Head | None = None, progress: Callable[[int, int], None] | None = None
) -> Verification:
    """Go through the whole trail, also while index appends to it. The memory that it takes is that of one page.

    Parameters
    ----------
    engine
        The catalog's database.
    noted
        A head that was written down before: what stands at its number must have its hash. Without it a trail that was
        computed anew as a whole, head and all, cannot be told from the true one.
    progress
        Called with the records seen and the head's number.

    Raises
    ------
    DatabaseUnavailableError
        If the database does not answer.
    """
    first = await _ends(engine)
    found = Verification(first.head or Head(0, ""))
    previous = Head(0, GENESIS)
    async for page in _pages(engine):
        for row in page:
            if fault := _check(previous, row):
                found.add(fault)
            if row.number > 0:  # the chain begins with 1: what was put in before it is no part of it
                previous = Head(row.number, row.hash)
            if noted and noted.number == row.number and noted.hash != row.hash:
                line = f"record {row.number} has another hash than the head that was noted: the trail was rewritten"
                found.add(Fault("rewritten", row.number, line, row.what, row.recorded))
        found.records += len(page)
        if progress:
            progress(found.records, max(found.head.number, found.records))
    _check_ends(found, await _ends(engine), noted)
    return found


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """A row that holds what no record of ours does."""

    number: int
    hash: str = ""
    what: str = ""
    recorded: datetime | None = None


def _check(previous: Head, row: Row[Any] | _Unreadable) -> Fault | None:
    if isinstance(row, _Unreadable):
        line = f"record {row.number} holds what no record can: it was changed or put in"
        return Fault("changed", row.number, line)
    said = f"{row.what} recorded {row.recorded.isoformat(timespec='milliseconds')}"
    if row.number < 1:
        line = f"record {row.number} ({said}) was put in: the first record is number 1"
        return Fault("changed", row.number, line, row.what, row.recorded)
    if row.hash == record_hash(previous.hash, row.number, {name: getattr(row, name) for name in FIELDS}):
        return None
    if row.number > previous.number + 1:
        first, last = previous.number + 1, row.number - 1
        names = f"record {first} is" if first == last else f"records {first} to {last} are"
        line = f"{names} missing: record {row.number} ({said}) does not continue record {previous.number}"
        return Fault("missing", first, line, row.what, row.recorded)
    line = f"record {row.number} ({said}) is not what was recorded there: it was changed, put in or moved"
    return Fault("changed", row.number, line, row.what, row.recorded)


@dataclass(frozen=True, slots=True)
class _Ends:
    """The number of the last record, the head if there is one that can be read, and the hash of the head's record."""

    last: int
    head: Head | None
    stored: str | None


def _check_ends(found: Verification, ends: _Ends, noted: Head | None) -> None:
    """Hold the head to the last record, both as they stood at one moment."""
    last = ends.last
    if ends.head is None:
        found.add(Fault("head", last, "the head of the trail is gone: nobody knows where the trail ends"))
        return
    found.head = head = ends.head
    if last < head.number:
        names = f"record {head.number} is" if last + 1 == head.number else f"records {last + 1} to {head.number} are"
        found.add(Fault("cut", last + 1, f"{names} missing: the end of the trail was cut off after record {last}"))
    elif last > head.number:
        line = f"the records after {head.number} were put in: the head of the trail is record {head.number}"
        found.add(Fault("beyond-head", head.number + 1, line))
    elif head.number and ends.stored != head.hash:
        found.add(Fault("head", last, f"the head of the trail does not fit record {last}: one of them was changed"))
    if noted and noted.number > last:
        line = f"record {noted.number}, the head that was noted, is missing: the trail ends with record {last}"
        found.add(Fault("cut", last + 1, line))


async def _ends(engine: AsyncEngine) -> _Ends:
    last = select(func.coalesce(func.max(AUDIT.c.number), 0)).scalar_subquery()
    of_head = select(AUDIT.c.hash).where(AUDIT.c.number == AUDIT_HEAD.c.number).scalar_subquery()
    query = select(last.label("last"), AUDIT_HEAD.c.number, AUDIT_HEAD.c.hash, of_head.label("stored"))
    # All in one statement, so of one moment; without a head, or with two, there is no row of both.
    try:
        async with reading(engine) as connection:
            rows = (await connection.execute(query.limit(2))).all()
    except UNREADABLE:
        rows = []
    if len(rows) == 1 and isinstance(rows[0].number, int) and isinstance(rows[0].hash, str):
        return _Ends(max(0, rows[0].last), Head(rows[0].number, rows[0].hash), rows[0].stored)
    async with reading(engine) as connection:
        return _Ends(max(0, (await connection.execute(select(last))).scalar_one()), None, None)


async def _pages(engine: AsyncEngine) -> AsyncIterator[list[Row[Any] | _Unreadable]]:
    after: int | None = None
    while True:
        try:
            page = [_held(row) for row in await _rows(engine, after, PAGE)]
        except UNREADABLE:
            page = await _one_by_one(engine, after)
        if not page:
            return
        after = page[-1].number
        yield page


async def _rows(engine: AsyncEngine, after: int | None, limit: int) -> list[Row[Any]]:
    query = select(AUDIT).order_by(AUDIT.c.number).limit(limit)
    if after is not None:
        query = query.where(AUDIT.c.number > after)
    async with reading(engine) as connection:  # short ones: a long one would keep PostgreSQL from clearing up
        return list(await connection.execute(query))


async def _one_by_one(engine: AsyncEngine, after: int | None) -> list[Row[Any] | _Unreadable]:
    """Read the page in which a row cannot be read, so that this one is named and not the page."""
    query = select(AUDIT.c.number).order_by(AUDIT.c.number).limit(PAGE)
    if after is not None:
        query = query.where(AUDIT.c.number > after)
    async with reading(engine) as connection:
        numbers = list((await connection.execute(query)).scalars())
    page: list[Row[Any] | _Unreadable] = []
    for number in numbers:
        try:
            page += [_held(row) for row in await _rows(engine, number - 1, 1)]
        except UNREADABLE:
            page.append(_Unreadable(number, await _hash_of(engine, number)))
    return page


async def _hash_of(engine: AsyncEngine, number: int) -> str:
    """Read the hash alone: with it the records that follow are still held to the chain."""
    try:
        async with reading(engine) as connection:
            return str((await connection.execute(select(AUDIT.c.hash).where(AUDIT.c.number == number))).scalar_one())
    except UNREADABLE:
        return ""


def _held(row: Row[Any]) -> Row[Any] | _Unreadable:
    """Give a row as it is if every column holds what its type says: SQLite lets any of them hold anything."""
    if all(isinstance(getattr(row, name), str | datetime | None) for name in (*FIELDS, "hash")):
        return row
    return _Unreadable(row.number, str(row.hash))
