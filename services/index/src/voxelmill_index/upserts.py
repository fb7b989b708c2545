"""Writing rows so that what arrives twice, or in another order, leaves the same rows behind."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, and_, false, func, or_
from sqlalchemy.dialects import postgresql, sqlite

from voxelmill_shared.database import is_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Executable, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

IN_TIME = ("event_time", "event_id")
"""The later event wins; of two at the same moment, the same one everywhere."""


async def insert_once(connection: AsyncConnection, table: Table, row: Mapping[str, Any], *unique: str) -> bool:
    """Insert a row unless there is one with the same `unique` columns; tell whether it was inserted."""
    statement = _insert_once(table, unique, told=True, for_sqlite=is_sqlite(connection))
    return (await connection.execute(statement, clean(row))).first() is not None


async def insert_all_once(
    connection: AsyncConnection, table: Table, rows: Iterable[Mapping[str, Any]], *unique: str
) -> None:
    """Insert rows unless there are some with the same `unique` columns, as `insert_once` does one."""
    if cleaned := _in_order(rows, unique):
        await connection.execute(_insert_once(table, unique, told=False, for_sqlite=is_sqlite(connection)), cleaned)


async def put_newest(
    connection: AsyncConnection,
    table: Table,
    row: Mapping[str, Any],
    order: tuple[str, ...] = IN_TIME,
    kept: tuple[str, ...] = (),
    filled: tuple[str, ...] = (),
) -> bool:
    """Insert a row, or replace the one with the same primary key if this one is greater by the columns of `order`.

    Whatever the order in which rows are put, the greatest is the one that stays; only the columns `kept` stay those
    of the first, and the texts `filled` are never replaced by an empty one. Returns whether this row stands now and
    did not before.
    """
    statement = _put_newest(table, tuple(row), order, kept, filled, told=True, for_sqlite=is_sqlite(connection))
    return (await connection.execute(statement, clean(row))).first() is not None


async def put_all_newest(
    connection: AsyncConnection,
    table: Table,
    rows: Iterable[Mapping[str, Any]],
    order: tuple[str, ...] = IN_TIME,
    kept: tuple[str, ...] = (),
    filled: tuple[str, ...] = (),
) -> None:
    """Put rows that have the same columns, each as `put_newest` does one."""
    if cleaned := _in_order(rows, _keys(table)):
        columns = tuple(cleaned[0])
        statement = _put_newest(table, columns, order, kept, filled, told=False, for_sqlite=is_sqlite(connection))
        await connection.execute(statement, cleaned)


def _in_order(rows: Iterable[Mapping[str, Any]], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return rows as they can be kept, in the order of their keys: then writers of several wait, and never block."""
    return sorted((clean(row) for row in rows), key=lambda row: tuple(row[name] for name in keys))


def _keys(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.primary_key)


# Making a statement costs more than running it, so each is made once.


@cache
def _insert_once(table: Table, unique: tuple[str, ...], *, told: bool, for_sqlite: bool) -> Executable:
    statement = _insert(table, for_sqlite=for_sqlite).on_conflict_do_nothing(index_elements=unique)
    return statement.returning(table.c[unique[0]]) if told else statement


@cache
def _put_newest(
    table: Table,
    columns: tuple[str, ...],
    order: tuple[str, ...],
    kept: tuple[str, ...],
    filled: tuple[str, ...],
    *,
    told: bool,
    for_sqlite: bool,
) -> Executable:
    insert = _insert(table, for_sqlite=for_sqlite)
    keys = _keys(table)
    values: dict[str, ColumnElement[Any]] = {
        name: insert.excluded[name] for name in columns if name not in (*keys, *kept)
    }
    for name in filled:
        values[name] = func.coalesce(func.nullif(insert.excluded[name], ""), table.c[name])
    statement = insert.on_conflict_do_update(
        index_elements=keys,
        set_=values,
        where=_greater([(insert.excluded[name], table.c[name]) for name in order]),
    )
    return statement.returning(table.c[keys[0]]) if told else statement


def _insert(table: Table, *, for_sqlite: bool) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if for_sqlite else postgresql.insert(table)


def _greater(pairs: list[tuple[ColumnElement[Any], ColumnElement[Any]]]) -> ColumnElement[bool]:
    """Compare column by column, as tuples are."""
    found: list[ColumnElement[bool]] = [false()]
    for number, (new, old) in enumerate(pairs):
        equal = [before == after for before, after in pairs[:number]]
        found.append(and_(*equal, new > old))
    return or_(*found)


def clean(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as PostgreSQL can keep it: its text cannot hold NUL, and what hostile files say may have it."""
    return {name: value.replace("\0", "\ufffd") if isinstance(value, str) else value for name, value in row.items()}
