"""The ledger's rows in SQL: locked and read for many keys at a time, written many at a time.

Every statement has the same text however many keys it is given, so that a database prepares it once: PostgreSQL takes
them as one array, SQLite as one JSON document.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Text,
    and_,
    any_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from voxelmill_ingest.books import OpenedSeries, SeenObject, Standing, Upload
from voxelmill_ingest.tables import instances, objects, series, upload_objects, uploads
from voxelmill_shared.database import is_sqlite
from voxelmill_shared.events import ObjectRef

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Column, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voxelmill_ingest.books import InstanceKey, NewSeries, Place


def among(connection: AsyncConnection, of: Column[str], values: Iterable[str]) -> ColumnElement[bool]:
    """Return the condition that a column has one of some texts."""
    wanted = list(dict.fromkeys(values))
    if is_sqlite(connection):
        each = func.json_each(json.dumps(wanted)).table_valued("value")
        return of.in_(select(each.c.value))
    return of == any_(literal(wanted, ARRAY(Text)))


def _at(connection: AsyncConnection, table: Table, places: Collection[Place]) -> ColumnElement[bool]:
    """Return a condition that holds for the rows of some objects, and perhaps for others of the same buckets."""
    return and_(
        among(connection, table.c.bucket, (bucket for bucket, _ in places)),
        among(connection, table.c.key, (key for _, key in places)),
    )


async def lock_objects(connection: AsyncConnection, places: Collection[Place]) -> dict[Place, SeenObject]:
    """Lock the rows of objects that are known; return what they say."""
    query = (
        select(objects.c.bucket, objects.c.key, objects.c.etag, objects.c.size, objects.c.status, objects.c.last_seen)
        .where(_at(connection, objects, places))
        .order_by(objects.c.bucket, objects.c.key)
        .with_for_update()
    )
    return {
        (row.bucket, row.key): SeenObject(row.etag, row.size, row.status, row.last_seen)
        for row in await connection.execute(query)
    }


async def lock_uploads(connection: AsyncConnection, ids: Collection[str], now: datetime) -> dict[str, Upload]:
    """Lock the rows of uploads, made if they are new."""
    if not ids:
        return {}
    await _insert_missing(
        connection,
        uploads.c.upload_id,
        {one: {"upload_id": one, "settled": 0, "first_seen": now, "changed_at": now} for one in ids},
    )
    query = (
        select(uploads.c.upload_id, uploads.c.settled, uploads.c.expected)
        .where(among(connection, uploads.c.upload_id, ids))
        .order_by(uploads.c.upload_id)
        .with_for_update()
    )
    found = await connection.execute(query)
    return {row.upload_id: Upload(row.settled, row.expected) for row in found}


async def counted_objects(
    connection: AsyncConnection, places: Mapping[str, Collection[Place]]
) -> dict[str, set[Place]]:
    """Return which of these objects have been counted in which upload."""
    if not places:
        return {}
    query = select(upload_objects.c.upload_id, upload_objects.c.bucket, upload_objects.c.key).where(
        among(connection, upload_objects.c.upload_id, places),
        _at(connection, upload_objects, {place for some in places.values() for place in some}),
    )
    counted: dict[str, set[Place]] = {}
    for row in await connection.execute(query):
        counted.setdefault(row.upload_id, set()).add((row.bucket, row.key))
    return counted


async def series_of_uploads(connection: AsyncConnection, ids: Collection[str]) -> dict[str, set[str]]:
    """Return the series that uploads have touched so far."""
    if not ids:
        return {}
    query = (
        select(upload_objects.c.upload_id, upload_objects.c.series_instance_uid)
        .where(among(connection, upload_objects.c.upload_id, ids), upload_objects.c.series_instance_uid != "")
        .distinct()
    )
    touched: dict[str, set[str]] = {}
    for row in await connection.execute(query):
        touched.setdefault(row.upload_id, set()).add(row.series_instance_uid)
    return touched


async def series_of_objects(connection: AsyncConnection, places: Collection[Place]) -> set[str]:
    """Return the series that have instances in these objects."""
    if not places:
        return set()
    query = select(instances.c.series_instance_uid).where(_at(connection, instances, places)).distinct()
    return set((await connection.execute(query)).scalars())


async def lock_series(
    connection: AsyncConnection, wanted: Mapping[str, NewSeries | None], now: datetime
) -> dict[str, OpenedSeries]:
    """Lock the rows of series. Those that are given with their study and project are made if they are new."""
    if not wanted:
        return {}
    await _insert_missing(
        connection,
        series.c.series_instance_uid,
        {
            uid: {"series_instance_uid": uid, **asdict(one), "changed_at": now}
            for uid, one in wanted.items()
            if one is not None
        },
    )
    query = (
        select(
            series.c.series_instance_uid,
            series.c.study_instance_uid,
            series.c.project,
            series.c.evidence,
            series.c.changed_at,
            series.c.due_at,
        )
        .where(among(connection, series.c.series_instance_uid, wanted))
        .order_by(series.c.series_instance_uid)
        .with_for_update()
    )
    return {
        row.series_instance_uid: OpenedSeries(
            row.study_instance_uid, row.project, row.evidence, row.changed_at, row.due_at
        )
        for row in await connection.execute(query)
    }


async def read_instances(
    connection: AsyncConnection, keys: Collection[InstanceKey], places: Collection[Place]
) -> dict[InstanceKey, Standing]:
    """Return these instances, and those that are in these objects."""
    wanted = []
    if keys:
        wanted.append(
            and_(
                among(connection, instances.c.series_instance_uid, (uid for uid, _ in keys)),
                among(connection, instances.c.sop_instance_uid, (uid for _, uid in keys)),
            )
        )
    if places:
        wanted.append(_at(connection, instances, places))
    if not wanted:
        return {}
    columns = [instances.c[name] for name in ("series_instance_uid", "sop_instance_uid", *ObjectRef.model_fields)]
    return {
        (row.series_instance_uid, row.sop_instance_uid): Standing(
            ObjectRef(bucket=row.bucket, key=row.key, etag=row.etag, size=row.size, version_id=row.version_id)
        )
        for row in await connection.execute(select(*columns).where(or_(*wanted)))
    }


async def write_objects(connection: AsyncConnection, rows: Sequence[dict[str, Any]], seen: Collection[Place]) -> None:
    """Insert the rows of new objects, and write those of others anew.

    Raises
    ------
    IntegrityError
        If another replica has inserted one of the new ones meanwhile.
    """
    new = [row for row in rows if (row["bucket"], row["key"]) not in seen]
    if new:
        await connection.execute(insert(objects), sorted(new, key=_place))
    old = [row for row in rows if (row["bucket"], row["key"]) in seen]
    if old:
        statement = update(objects).where(
            objects.c.bucket == bindparam("of_bucket"), objects.c.key == bindparam("of_key")
        )
        keys = ("bucket", "key", "first_seen")
        values = [name for name in old[0] if name not in keys]
        await connection.execute(
            statement.values({name: bindparam(name) for name in values}),
            [
                {"of_bucket": row["bucket"], "of_key": row["key"], **{name: row[name] for name in values}}
                for row in sorted(old, key=_place)
            ],
        )


def _place(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["bucket"], row["key"]


async def write_instances(
    connection: AsyncConnection, before: Mapping[InstanceKey, Standing], after: Mapping[InstanceKey, Standing]
) -> None:
    """Write how instances have changed. Their series' rows are locked, so nobody else does."""
    mine = and_(
        instances.c.series_instance_uid == bindparam("of_series"), instances.c.sop_instance_uid == bindparam("of_sop")
    )
    gone = [
        {"of_series": series_uid, "of_sop": sop_uid}
        for series_uid, sop_uid in before
        if (series_uid, sop_uid) not in after
    ]
    if gone:
        await connection.execute(delete(instances).where(mine), gone)
    new = [_instance(key, standing) for key, standing in after.items() if key not in before]
    if new:
        await connection.execute(insert(instances), new)
    moved = [
        {"of_series": key[0], "of_sop": key[1], **_instance(key, standing)}
        for key, standing in after.items()
        if key in before and standing is not before[key]
    ]
    if moved:
        values: dict[str, Any] = {name: bindparam(name) for name in (*ObjectRef.model_fields, "facts")}
        for row in moved:
            del row["series_instance_uid"], row["sop_instance_uid"]
        await connection.execute(update(instances).where(mine).values(values), moved)


def _instance(key: InstanceKey, standing: Standing) -> dict[str, Any]:
    return {
        "series_instance_uid": key[0],
        "sop_instance_uid": key[1],
        **{name: getattr(standing.reference, name) for name in ObjectRef.model_fields},
        "facts": None if standing.facts is None else standing.facts.model_dump(mode="json"),
    }


async def write_upload_objects(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert which objects are settled in an upload. The upload's row is locked, so nobody else does."""
    if rows:
        await connection.execute(insert(upload_objects), rows)


async def write_uploads(connection: AsyncConnection, changed: Mapping[str, Upload], now: datetime) -> None:
    """Write the rows of uploads."""
    if not changed:
        return
    statement = (
        update(uploads)
        .where(uploads.c.upload_id == bindparam("of_upload"))
        .values(settled=bindparam("settled"), expected=bindparam("expected"), changed_at=bindparam("changed_at"))
    )
    await connection.execute(
        statement,
        [
            {"of_upload": upload_id, "settled": one.settled, "expected": one.expected, "changed_at": now}
            for upload_id, one in changed.items()
        ],
    )


async def write_series(connection: AsyncConnection, opened: Mapping[str, OpenedSeries]) -> None:
    """Write the rows of the series that were touched."""
    touched = [
        {
            "of_series": uid,
            "changed_at": one.changed_at,
            "due_at": one.due_at,
            "evidence": one.evidence,
            "more": one.touches,
        }
        for uid, one in opened.items()
        if one.touches
    ]
    if touched:
        statement = (
            update(series)
            .where(series.c.series_instance_uid == bindparam("of_series"))
            .values(
                changed_at=bindparam("changed_at"),
                due_at=bindparam("due_at"),
                evidence=bindparam("evidence"),
                touches=series.c.touches + bindparam("more"),
            )
        )
        await connection.execute(statement, touched)


async def lock(connection: AsyncConnection, table: Table, *where: ColumnElement[bool]) -> list[str]:
    """Lock some rows of a table in the order of their keys, which are returned.

    An UPDATE of many rows locks them as it comes upon them, and two replicas would wait for each other.
    """
    (key,) = table.primary_key
    query = select(key).where(*where).order_by(key).with_for_update()
    return list((await connection.execute(query)).scalars())


async def _insert_missing(connection: AsyncConnection, of: Column[str], rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Insert those of some rows that are not there, by their key, before any row of the table is locked.

    Who has locked a row must not wait for another replica's insertion of a lower key: that one may wait for the row.
    """
    if not rows:
        return
    known = set((await connection.execute(select(of).where(among(connection, of, rows)))).scalars())
    new = [rows[key] for key in sorted(rows.keys() - known)]
    if new:
        table = of.table
        statement = sqlite.insert(table) if is_sqlite(connection) else postgresql.insert(table)
        await connection.execute(statement.on_conflict_do_nothing(), new)
