"""Appending to the audit trail: the next number, the hash over it all, and the new head, for one record at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from voxelmill_index.upserts import clean
from voxelmill_shared.catalog.chain import record_hash
from voxelmill_shared.catalog.tables import AUDIT, AUDIT_HEAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

# Making a statement costs more than running it, so each is made once.
_KNOWN = select(AUDIT.c.number)
_HEAD = select(AUDIT_HEAD.c.number, AUDIT_HEAD.c.hash).with_for_update()
_APPEND = insert(AUDIT)
_MOVE = update(AUDIT_HEAD)


async def append(connection: AsyncConnection, record: Mapping[str, Any]) -> bool:
    """Append a record unless its event is recorded already; tell whether it was appended.

    Call it last in a transaction: from here to the commit no other replica can append, since a chain has one end. The
    replicas wait for each other at the head, and never hold anything that one of them needs to get on.
    """
    row = clean(record)
    head = (await connection.execute(_HEAD)).one()
    # Only now: whoever held the head before may have recorded the same event.
    if (await connection.execute(_KNOWN.where(AUDIT.c.event_id == row["event_id"]))).first():
        return False
    number = head.number + 1
    link = {"number": number, "hash": record_hash(head.hash, number, row)}
    await connection.execute(_APPEND, {**row, **link})
    await connection.execute(_MOVE, link)
    return True
