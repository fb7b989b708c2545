"""What is known of objects: of many at a time, since there are as many events of them as there are objects.

Tables are written in the order that `recording` names, and the rows of each in the order of their keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from voxelmill_index.audit import audit_record
from voxelmill_index.trail import append_all
from voxelmill_index.upserts import insert_all_once, put_all_newest, put_newest
from voxelmill_shared.catalog import ObjectStatus
from voxelmill_shared.catalog.tables import INSTANCES, OBJECTS, SERIES, STUDIES
from voxelmill_shared.database import transaction
from voxelmill_shared.events import AccessRecorded, ObjectRejected, ObjectValidated, Severity
from voxelmill_shared.projects import project_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from voxelmill_shared.events import Envelope, Event, StageFailed

RECORDED_TOGETHER = (ObjectValidated, ObjectRejected, AccessRecorded)
"""Events that bring no job forward."""


async def record_objects(engine: AsyncEngine, taken: Sequence[tuple[Envelope, Event]]) -> Sequence[Exception | None]:
    """Record events of the kinds `RECORDED_TOGETHER` in one transaction, their audit records included.

    If the database refuses one of the rows, each event gets a transaction of its own. Returns the error of each.

    Raises
    ------
    DatabaseUnavailableError
        If the database does not answer: nothing was recorded.
    """
    try:
        await _record(engine, taken)
    except (SQLAlchemyError, ValueError, OverflowError) as error:  # the last one is SQLite's, of a large number
        if len(taken) == 1:
            return [error]
        return [answer for one in taken for answer in await record_objects(engine, [one])]
    return [None] * len(taken)


async def _record(engine: AsyncEngine, taken: Sequence[tuple[Envelope, Event]]) -> None:
    series: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for envelope, event in taken:
        source = {"event_time": envelope.time, "event_id": str(envelope.id)}
        if isinstance(event, ObjectValidated):
            if event.series_instance_uid:
                series.append(_series_row(event, envelope.time))
                instances.append(_instance_row(event) | source)
            objects.append(_validated_row(event) | source)
        elif isinstance(event, ObjectRejected):
            objects.append(_rejected_row(event) | source)
    async with transaction(engine) as connection:
        await put_series(connection, series)
        await put_all_newest(connection, INSTANCES, instances)
        await put_all_newest(connection, OBJECTS, objects)
        await append_all(connection, [audit_record(envelope, event) for envelope, event in taken])


async def put_series(connection: AsyncConnection, rows: Iterable[dict[str, Any]]) -> None:
    """Write what events say of series, and their studies. Rows have the columns of `_series_row`."""
    different = {tuple(row[name] for name in ("series_instance_uid", *_SERIES_ORDER)): row for row in reversed([*rows])}
    studies = {
        row["study_instance_uid"]: {name: row[name] for name in ("study_instance_uid", "first_seen")}
        for row in different.values()
        if row["study_instance_uid"]
    }
    await insert_all_once(connection, STUDIES, studies.values(), "study_instance_uid")
    await put_all_newest(
        connection, SERIES, different.values(), _SERIES_ORDER, kept=("first_seen",), filled=("project",)
    )


async def object_failed(connection: AsyncConnection, source: dict[str, Any], event: StageFailed) -> None:
    """Write that an object could not be taken."""
    uids = dict.fromkeys(("study_instance_uid", "series_instance_uid", "sop_instance_uid", "modality"), "")
    row = _UNKNOWN | uids | {"etag": "", "size": 0, "version_id": None, "upload_id": None} | source
    row |= {"address": event.object_address, "status": ObjectStatus.FAILED.value}
    await put_newest(connection, OBJECTS, row | {"reason": event.error_class, "detail": event.reason})


_SERIES_ORDER = ("known_from", "modality", "study_instance_uid", "project")
"""A whole revision knows better than a single object, and a modality is better than none."""
_UNKNOWN: dict[str, Any] = {"kind": "", "reason": "", "detail": "", "members": 0, "warnings": []}


def _series_row(event: ObjectValidated, seen: datetime) -> dict[str, Any]:
    return {
        "series_instance_uid": event.series_instance_uid,
        "study_instance_uid": event.study_instance_uid,
        "modality": event.modality,
        "known_from": 0,
        "project": project_of(event.object.key),
        "first_seen": seen,
    }


def _instance_row(event: ObjectValidated) -> dict[str, Any]:
    return {
        "series_instance_uid": event.series_instance_uid,
        "sop_instance_uid": event.sop_instance_uid,
        "sop_class_uid": event.sop_class_uid,
        "transfer_syntax_uid": event.transfer_syntax_uid,
        "instance_number": event.instance_number,
        "rows": event.rows,
        "columns": event.columns,
        "frames": event.frames,
        "object_address": event.object.address(),
        "size": event.object.size,
    }


def _validated_row(event: ObjectValidated) -> dict[str, Any]:
    row = _object_row(event) | {"kind": event.kind.value, "members": event.members, "warnings": list(event.warnings)}
    return row | {"status": ObjectStatus.VALIDATED.value}


def _rejected_row(event: ObjectRejected) -> dict[str, Any]:
    status = ObjectStatus.SKIPPED if event.severity is Severity.SKIP else ObjectStatus.REJECTED
    return _object_row(event) | {"status": status.value, "reason": event.reason, "detail": event.detail}


def _object_row(event: ObjectValidated | ObjectRejected) -> dict[str, Any]:
    return _UNKNOWN | {
        "address": event.object.address(),
        "etag": event.object.etag,
        "size": event.object.size,
        "version_id": event.object.version_id,
        "study_instance_uid": event.study_instance_uid,
        "series_instance_uid": event.series_instance_uid,
        "sop_instance_uid": event.sop_instance_uid,
        "modality": event.modality,
        "upload_id": event.upload_id,
    }
