"""The rows that people search by: of series that came in, and of the DICOM objects that were made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, exists, select

from voxelmill_index.upserts import put_newest
from voxelmill_shared.catalog.tables import DERIVED, HEADERS

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voxelmill_index.describing import DerivedObject, Description
    from voxelmill_index.headers import Header
    from voxelmill_shared.events import SeriesValidated
    from voxelmill_shared.results import ResultKeys

_STUDY_TAG, _SERIES_TAG, _MODALITY_TAG = "0020000D", "0020000E", "00080060"


async def put_series_header(
    connection: AsyncConnection, source: dict[str, Any], event: SeriesValidated, found: Description
) -> None:
    """Write what the header of a series says, under the UIDs that ingest knows it by: it may have had to make them."""
    if found.header is None:
        return
    uids = (event.study_instance_uid, event.series_instance_uid)
    modality = event.modality or found.header.columns["modality"]
    row = _header_row(found.header, *uids, modality) | source
    await put_newest(connection, HEADERS, row | {"project": found.project, "derived_from_job": ""})


async def put_derived(
    connection: AsyncConnection, source: dict[str, Any], keys: ResultKeys, study: str, found: Description
) -> None:
    """Write the DICOM objects of a job in the place of those that it had before."""
    of_job = {
        "of_series_instance_uid": keys.series_instance_uid,
        "revision": keys.revision,
        "job_id": keys.job_id,
    }
    gone = await connection.execute(delete(DERIVED).filter_by(**of_job).returning(DERIVED.c.series_instance_uid))
    before = set(gone.scalars())
    for one in found.derived:
        await put_newest(connection, DERIVED, _derived_row(one) | of_job | source)
        uid = one.header.instance.series_instance_uid
        row = _header_row(one.header, study or one.header.instance.study_instance_uid, uid) | source
        row |= {"project": found.project, "derived_from_job": keys.job_id}
        await put_newest(connection, HEADERS, row, filled=("project",))
    left = before - {one.header.instance.series_instance_uid for one in found.derived}
    if left:
        empty = ~exists(select(DERIVED.c.sop_instance_uid).where(_SAME_SERIES))
        await connection.execute(delete(HEADERS).where(HEADERS.c.series_instance_uid.in_(sorted(left)), empty))


_SAME_SERIES = DERIVED.c.series_instance_uid == HEADERS.c.series_instance_uid


def _header_row(header: Header, study: str, series: str, modality: str | None = None) -> dict[str, Any]:
    modality = header.columns["modality"] if modality is None else modality
    study_json = header.study_json | {_STUDY_TAG: {"vr": "UI", "Value": [study]}}
    series_json = header.series_json | {_SERIES_TAG: {"vr": "UI", "Value": [series]}}
    if modality:
        series_json[_MODALITY_TAG] = {"vr": "CS", "Value": [modality]}
    return {
        **header.columns,
        "study_instance_uid": study,
        "series_instance_uid": series,
        "modality": modality,
        "study_json": study_json,
        "series_json": series_json,
    }


def _derived_row(one: DerivedObject) -> dict[str, Any]:
    facts = one.header.instance
    return {
        "series_instance_uid": facts.series_instance_uid,
        "sop_instance_uid": facts.sop_instance_uid,
        "sop_class_uid": facts.sop_class_uid,
        "transfer_syntax_uid": facts.transfer_syntax_uid,
        "instance_number": facts.instance_number,
        "rows": facts.rows,
        "columns": facts.columns,
        "frames": facts.frames,
        "result_key": one.key,
        "size": one.artefact.size,
    }
