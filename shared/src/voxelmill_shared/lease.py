"""Rows that are due, claimed for a time: timers that outlive a restart and that replicas share.

A claim is a lease. Who holds it does the work and, in one transaction, writes what came of it and removes the row or
sets its next time, under the condition `held_by`. If the holder dies, the lease runs out and another claims the row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, String, and_, or_, select, true, tuple_, update

from voxelmill_shared.database import UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import ColumnElement, Row, Table
    from sqlalchemy.ext.asyncio import AsyncConnection


def lease_columns() -> tuple[Column[Any], ...]:
    """Return the columns that a table with leases has, beside its own: `due_at`, `leased_by` and `leased_until`.

    A row whose `due_at` is null is never due.
    """
    return (
        Column("due_at", UtcDateTime(), nullable=True, index=True),
        Column("leased_by", String(255), nullable=True),
        Column("leased_until", UtcDateTime(), nullable=True),
    )


async def claim_due(
    connection: AsyncConnection,
    table: Table,
    *,
    now: datetime,
    lease: timedelta,
    owner: str,
    limit: int,
    where: ColumnElement[bool] | None = None,
) -> Sequence[Row[Any]]:
    """Claim rows whose time has come and which nobody holds, the longest due first.

    Two claimers never get the same row: PostgreSQL locks the rows and each claimer steps over those of the others
    (`FOR UPDATE SKIP LOCKED`); on SQLite `transaction` lets one claimer in after the other.

    Parameters
    ----------
    connection
        In a `transaction`; the claim stands when it is committed.
    table
        With a primary key and `lease_columns`.
    now, lease
        The row is held from `now` to `now + lease`; afterwards another one may claim it.
    owner
        Who claims. Each process needs a name of its own.
    limit
        The most rows to claim.
    where
        Which rows of the table are asked for; all of them if None.

    Returns
    -------
    Sequence[Row]
        The claimed rows, whole, as they are now.
    """
    key = tuple_(*table.primary_key)
    free = or_(table.c.leased_until.is_(None), table.c.leased_until <= now)
    due = await connection.execute(
        select(*table.primary_key)
        .where(table.c.due_at <= now, free, true() if where is None else where)
        .order_by(table.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)  # SQLAlchemy leaves this out for SQLite
    )
    keys = [tuple(row) for row in due]
    if not keys:
        return []
    claimed = await connection.execute(
        update(table).where(key.in_(keys)).values(leased_by=owner, leased_until=now + lease).returning(*table.c)
    )
    return sorted(claimed, key=lambda row: row.due_at)


def held_by(table: Table, *, owner: str, now: datetime) -> ColumnElement[bool]:
    """Return the condition under which a row's lease is still the owner's: for the `WHERE` of what settles the row."""
    return and_(table.c.leased_by == owner, table.c.leased_until > now)
