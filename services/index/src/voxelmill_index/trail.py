"""Appending to the audit trail: the next number, the hash over it all, and the new head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, bindparam, cast, exists, func, insert, select, update
from sqlalchemy.dialects import postgresql

from voxelmill_index.upserts import clean
from voxelmill_shared.catalog.chain import FIELDS, FORM, content, record_hash
from voxelmill_shared.catalog.tables import AUDIT, AUDIT_HEAD
from voxelmill_shared.database import is_sqlite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

# Making a statement costs more than running it, so each is made once.
_HEAD = select(AUDIT_HEAD.c.number, AUDIT_HEAD.c.hash).with_for_update()  # which SQLite, with its one writer, ignores
_KNOWN = select(AUDIT.c.event_id).where(AUDIT.c.event_id.in_(bindparam("event_ids", expanding=True)))
_APPEND = insert(AUDIT)
_MOVE = update(AUDIT_HEAD)


def _append_at_once() -> Any:
    """Lock the head, chain the record and move the head in one statement: replicas wait while it and the commit last.

    PostgreSQL has SHA-256 of its own. It reads the head again after it has waited for its lock, and the unique index
    tells what another replica has recorded meanwhile.
    """
    head = select(AUDIT_HEAD.c.number, AUDIT_HEAD.c.hash).with_for_update().cte("head")
    number = head.c.number + 1
    line = func.concat(
        f'["{FORM}","', head.c.hash, '",', cast(number, Text), ",", bindparam("content", type_=Text), "]"
    )
    digest = func.encode(func.sha256(func.convert_to(line, "UTF8")), "hex", type_=Text)
    values = [bindparam(name, type_=AUDIT.c[name].type).label(name) for name in FIELDS]
    added = (
        postgresql.insert(AUDIT)
        .from_select(["number", "hash", *FIELDS], select(number, digest, *values).select_from(head))
        .on_conflict_do_nothing(index_elements=["event_id"])
        .returning(AUDIT.c.number, AUDIT.c.hash)
        .cte("added")
    )
    # Where nothing was added the head stays. It is not joined to what was added: PostgreSQL would look for the number
    # that the head had when the statement began.
    new = {name: select(added.c[name]).scalar_subquery() for name in ("number", "hash")}
    return update(AUDIT_HEAD).values(new).where(exists(select(added.c.number))).returning(AUDIT_HEAD.c.number)


_AT_ONCE = _append_at_once()


async def append(connection: AsyncConnection, record: Mapping[str, Any]) -> bool:
    """Append a record unless its event is recorded already; tell whether it was appended.

    Call it last in a transaction: from here to the commit no other replica can append, since a chain has one end. The
    replicas wait for each other at the head, and never hold anything that one of them needs to get on.
    """
    if is_sqlite(connection):
        return await append_all(connection, [record]) == 1
    row = clean(record)
    return (await connection.execute(_AT_ONCE, {**row, "content": content(row)})).first() is not None


async def append_all(connection: AsyncConnection, records: Sequence[Mapping[str, Any]]) -> int:
    """Append several records, as `append` does one; return how many were appended."""
    rows = {row["event_id"]: row for row in map(clean, records)}
    head = (await connection.execute(_HEAD)).one()
    known = set((await connection.execute(_KNOWN, {"event_ids": list(rows)})).scalars())
    number, digest, links = head.number, head.hash, []
    for event_id, row in rows.items():
        if event_id not in known:
            number += 1
            digest = record_hash(digest, number, row)
            links.append({"number": number, "hash": digest, **row})
    if links:
        await connection.execute(_APPEND, links)
        # One by one: the head refuses to be moved otherwise.
        await connection.execute(_MOVE, [{name: link[name] for name in ("number", "hash")} for link in links])
    return len(links)
