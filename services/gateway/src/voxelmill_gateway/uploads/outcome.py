"""What became of an upload, as the catalog knows it: settled objects, refused ones with the reason, and series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, func, select

from voxelmill_shared.catalog import ObjectStatus
from voxelmill_shared.catalog.search import find_each, of_upload, upload_series
from voxelmill_shared.catalog.tables import OBJECTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voxelmill_shared.catalog.scope import Scope
    from voxelmill_shared.catalog.views import FoundSeries

MOST_REFUSED: Final = 1000
"""How many refused objects are listed; all are counted."""
MOST_SERIES: Final = 200


@dataclass(frozen=True, slots=True)
class Refused:
    """An object that ingest did not take. `number` is none for what came out of an archive."""

    number: int | None
    status: ObjectStatus
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """`settled` counts the upload's own files, `members` what came out of its archives."""

    settled: int
    members: int
    refused_total: int
    refused: Sequence[Refused]
    series_total: int
    series: Sequence[FoundSeries]


async def outcome_of(connection: AsyncConnection, scope: Scope, upload_id: str) -> Outcome:
    """Look what became of an upload that is complete."""
    all_of_it = scope.over(select(OBJECTS.c.status, _is_file(upload_id).label("own")), OBJECTS.c.project)
    each_one = all_of_it.where(of_upload(upload_id)).subquery()  # to PostgreSQL, two parameters are two conditions
    counted = select(each_one.c.status, func.count(), each_one.c.own).group_by(each_one.c.status, each_one.c.own)
    rows = (await connection.execute(counted)).all()
    query = scope.over(select(OBJECTS, _is_file(upload_id).label("own")), OBJECTS.c.project)
    query = query.where(of_upload(upload_id), OBJECTS.c.status != ObjectStatus.VALIDATED).order_by(OBJECTS.c.address)
    refused = [
        Refused(
            _number(row.address) if row.own else None,
            ObjectStatus(row.status),
            row.reason,
            row.detail,
        )
        for row in await connection.execute(query.limit(MOST_REFUSED))
    ]
    uids = await upload_series(connection, scope, upload_id)
    return Outcome(
        settled=sum(count for _, count, own in rows if own),
        members=sum(count for _, count, own in rows if not own),
        refused_total=sum(count for status, count, _ in rows if status != ObjectStatus.VALIDATED),
        refused=refused,
        series_total=len(uids),
        series=await find_each(connection, scope, uids[:MOST_SERIES]),
    )


def _is_file(upload_id: str) -> ColumnElement[bool]:
    """Whether an object is a file of the upload: what an archive refused has its upload too, and `!` in its address."""
    return and_(OBJECTS.c.upload_id == upload_id, ~OBJECTS.c.address.contains("!", autoescape=True))


def _number(address: str) -> int | None:
    """Return the number of a file by its object's address, which ends with it and perhaps a suffix."""
    digits = address.rpartition("/")[2].partition(".")[0]
    return int(digits) if digits.isdecimal() else None
