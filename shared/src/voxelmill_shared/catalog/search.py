"""Reading the catalog as somebody who may see some projects: what the gateway asks.

Every function takes the caller's `Scope`. What is outside of it is as if it did not exist.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, func, or_, select, union_all

from voxelmill_shared.catalog import queries
from voxelmill_shared.catalog.names import fold_name
from voxelmill_shared.catalog.states import ObjectStatus
from voxelmill_shared.catalog.tables import DERIVED, HEADERS, JOBS, OBJECTS, PROGRESS, SERIES
from voxelmill_shared.catalog.views import FoundSeries, ProgressView, SeriesView
from voxelmill_shared.events import Stage
from voxelmill_shared.results import ResultKeys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Row, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voxelmill_shared.catalog.scope import Scope
    from voxelmill_shared.catalog.states import JobStatus
    from voxelmill_shared.catalog.views import JobView

_TEXTS: Final = (
    *("patient_id", "patient_name", "patient_birth_date", "patient_sex", "study_date", "study_time"),
    *("accession_number", "referring_physician_name", "study_id", "study_description", "series_description"),
    "body_part_examined",
)
"""The columns of a header that `FoundSeries` has under the same names."""
_SEARCHED: Final = ("patient_id", "accession_number", "study_description", "series_description", "modality")
"""What `SeriesFilter.text` is looked for in, beside the name and the UIDs."""


@dataclass(frozen=True, slots=True)
class SeriesFilter:
    """What to look for; what is empty does not matter.

    Attributes
    ----------
    text
        Words, each of which stands somewhere in the patient's name or ID, the accession number, a description, the
        modality or the beginning of a UID; case and accents do not count.
    patient_name
        What the name begins with; case and accents do not count.
    patient_id, accession_number, study_uid, series_uid, modality
        The value itself.
    status
        Of the current job.
    study_date_from, study_date_to
        `YYYYMMDD`, both inclusive. A series without a date is in no range.
    derived
        False: what came in. True: the segmentations that Voxelmill has made as DICOM. None: both.
    """

    text: str = ""
    patient_id: str = ""
    patient_name: str = ""
    study_uid: str = ""
    series_uid: str = ""
    modality: str = ""
    status: JobStatus | None = None
    accession_number: str = ""
    study_date_from: str = ""
    study_date_to: str = ""
    derived: bool | None = False


async def search_series(
    connection: AsyncConnection, scope: Scope, wanted: SeriesFilter, *, limit: int = 50, offset: int = 0
) -> tuple[list[FoundSeries], int]:
    """Return a page of the series that fit, newest first, and how many fit altogether."""
    query = _fitting(scope, wanted)
    total = (await connection.execute(select(func.count()).select_from(query.subquery()))).scalar_one()
    return await _page(connection, query, limit, offset), total


async def find_series(connection: AsyncConnection, scope: Scope, uid: str) -> FoundSeries | None:
    """Return one series, of those that came in or of those that were made, or none."""
    found = await find_each(connection, scope, [uid])
    return found[0] if found else None


async def find_each(connection: AsyncConnection, scope: Scope, uids: Sequence[str]) -> list[FoundSeries]:
    """Return those of some series that there are, of either kind, in the given order; at most 1,000 at a time."""
    query = _fitting(scope, SeriesFilter(derived=None), uids)
    found = await _found(connection, (await connection.execute(query)).all())
    places = {uid: place for place, uid in enumerate(uids)}
    return sorted(found, key=lambda one: places[one.view.series_instance_uid])


async def series_jobs(connection: AsyncConnection, scope: Scope, uid: str) -> list[JobView]:
    """Return every job of a series, the current one first; nothing for a series outside of the scope."""
    query = scope.over(select(SERIES.c.project).where(SERIES.c.series_instance_uid == uid), SERIES.c.project)
    known = (await connection.execute(query)).first()
    return await queries.series_jobs(connection, uid) if known else []


async def find_job(connection: AsyncConnection, scope: Scope, job_id: str) -> JobView | None:
    """Return a job by its id, or none; if several revisions have had it, the newest."""
    of_job = select(JOBS.c.job_id).join(SERIES, SERIES.c.series_instance_uid == JOBS.c.series_instance_uid)
    query = scope.over(of_job.where(JOBS.c.job_id == job_id), SERIES.c.project)
    known = (await connection.execute(query.limit(1))).first()
    return await queries.find_job(connection, job_id) if known else None


async def progress_of(
    connection: AsyncConnection, jobs: Sequence[ResultKeys]
) -> dict[ResultKeys, dict[Stage, ProgressView]]:
    """Return what the stages of some jobs, found within the caller's scope, have said last about how far they are.

    It stays when a stage has ended: whether it has is the stage's outcome to say.
    """
    uids = {keys.series_instance_uid for keys in jobs}
    found: dict[ResultKeys, dict[Stage, ProgressView]] = {keys: {} for keys in jobs}
    for row in await connection.execute(_PROGRESS.where(PROGRESS.c.series_instance_uid.in_(uids))):
        view = _progress(row)
        if view.keys in found:
            found[view.keys][view.stage] = view
    return found


async def progress_since(
    connection: AsyncConnection, scope: Scope, moment: datetime, series: str = "", job_id: str = ""
) -> list[ProgressView]:
    """Return what has been said since a moment about how far stages are, oldest first.

    Writers commit in another order than they look at the clock: ask again from a little before the last answer, and
    leave out what you know.
    """
    query = scope.over(_PROGRESS.where(PROGRESS.c.recorded >= moment), SERIES.c.project)
    if series:
        query = query.where(PROGRESS.c.series_instance_uid == series)
    if job_id:
        query = query.where(PROGRESS.c.job_id == job_id)
    return [_progress(row) for row in await connection.execute(query.order_by(PROGRESS.c.recorded))]


async def upload_series(connection: AsyncConnection, scope: Scope, upload_id: str) -> list[str]:
    """Return the Series Instance UIDs of what was taken of an upload, the members of its archives too."""
    taken = (OBJECTS.c.status == ObjectStatus.VALIDATED.value, OBJECTS.c.series_instance_uid != "")
    query = select(OBJECTS.c.series_instance_uid).where(of_upload(upload_id), *taken)
    query = scope.over(query, OBJECTS.c.project).distinct().order_by(OBJECTS.c.series_instance_uid)
    return list((await connection.execute(query)).scalars())


def of_upload(upload_id: str) -> ColumnElement[bool]:
    """Return the condition on `OBJECTS` for what came with an upload, `{upload_id}`, or in an archive of it.

    Members have an upload id that begins with that of their archive and a `/`. Said as a range, so that an index
    finds them whatever the collation.
    """
    column = OBJECTS.c.upload_id
    return or_(column == upload_id, and_(column > f"{upload_id}/", column < f"{upload_id}0"))


def _fitting(scope: Scope, wanted: SeriesFilter, among: Sequence[str] | None = None) -> Select[Any]:
    """Select the series that fit, of either kind, with the columns of `_columns`; of these UIDs, if some are named."""
    kinds: list[Select[Any]] = []
    if wanted.derived is not True:
        joined = select(*_columns(derived=False)).outerjoin_from(
            SERIES, HEADERS, SERIES.c.series_instance_uid == HEADERS.c.series_instance_uid
        )
        if among is not None:
            joined = joined.where(SERIES.c.series_instance_uid.in_(among))
        kinds.append(_filtered(scope.over(joined, SERIES.c.project), wanted, derived=False))
    if wanted.derived is not False:
        made = select(*_columns(derived=True)).where(HEADERS.c.derived_from_job != "")
        if among is not None:
            made = made.where(HEADERS.c.series_instance_uid.in_(among))
        kinds.append(_filtered(scope.over(made, HEADERS.c.project), wanted, derived=True))
    if len(kinds) == 1:
        return kinds[0]
    return select(union_all(*kinds).subquery())


def _columns(*, derived: bool) -> list[ColumnElement[Any]]:
    of = HEADERS if derived else SERIES
    seen: ColumnElement[Any] = HEADERS.c.event_time if derived else SERIES.c.first_seen
    return [
        of.c.series_instance_uid,
        of.c.study_instance_uid,
        of.c.project,
        of.c.modality,
        seen.label("first_seen"),
        HEADERS.c.derived_from_job,
        *(HEADERS.c[name] for name in _TEXTS),
        HEADERS.c.series_number,
        HEADERS.c.study_json,
        HEADERS.c.series_json,
    ]


def _filtered(query: Select[Any], wanted: SeriesFilter, *, derived: bool) -> Select[Any]:
    of = HEADERS if derived else SERIES
    exact = (
        (HEADERS.c.patient_id, wanted.patient_id),
        (HEADERS.c.accession_number, wanted.accession_number),
        (of.c.study_instance_uid, wanted.study_uid),
        (of.c.series_instance_uid, wanted.series_uid),
        (of.c.modality, wanted.modality),
    )
    query = query.where(*(column == value for column, value in exact if value))
    if wanted.patient_name:
        query = query.where(HEADERS.c.patient_name_folded.startswith(fold_name(wanted.patient_name), autoescape=True))
    if wanted.study_date_from or wanted.study_date_to:
        last = wanted.study_date_to or "99991231"
        # Not later than the last day: a time behind the date, from a header out of order, is of that day too.
        query = query.where(HEADERS.c.study_date.between(wanted.study_date_from or "0", f"{last}~"))
    for word in wanted.text.split():
        query = query.where(_has(of.c, word))
    if wanted.status is not None:
        made_by = HEADERS.c.derived_from_job if derived else None
        query = query.where(_current_status(of.c.series_instance_uid, made_by) == wanted.status.value)
    return query


def _has(of: Any, word: str) -> ColumnElement[bool]:
    columns = [of.modality if name == "modality" else HEADERS.c[name] for name in _SEARCHED]
    return or_(
        HEADERS.c.patient_name_folded.contains(fold_name(word), autoescape=True),
        *(column.icontains(word, autoescape=True) for column in columns),
        of.series_instance_uid.startswith(word, autoescape=True),
        of.study_instance_uid.startswith(word, autoescape=True),
    )


def _current_status(series: ColumnElement[Any], made_by: ColumnElement[Any] | None) -> ColumnElement[Any]:
    """Return the status of a series' current job, or of the job that made it, as a subquery."""
    query = select(JOBS.c.status)
    if made_by is not None:
        return query.where(JOBS.c.job_id == made_by).limit(1).correlate(HEADERS).scalar_subquery()
    return (
        query.where(JOBS.c.series_instance_uid == series)
        .order_by(*queries.CURRENT_FIRST)
        .limit(1)
        .correlate(SERIES)
        .scalar_subquery()
    )


async def _page(connection: AsyncConnection, query: Select[Any], limit: int, offset: int) -> list[FoundSeries]:
    page = query.order_by(query.selected_columns.first_seen.desc(), query.selected_columns.series_instance_uid)
    return await _found(connection, (await connection.execute(page.limit(limit).offset(offset))).all())


async def _found(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> list[FoundSeries]:
    views = await queries.series_views(connection, [row for row in rows if not row.derived_from_job])
    by_uid = {view.series_instance_uid: view for view in views}
    by_uid |= await _derived_views(connection, [row for row in rows if row.derived_from_job])
    return [
        FoundSeries(
            view=by_uid[row.series_instance_uid],
            project=row.project,
            modality=row.modality,
            derived_from_job=row.derived_from_job or "",
            series_number=row.series_number,
            attributes={**(row.study_json or {}), **(row.series_json or {})},
            **{name: getattr(row, name) or "" for name in _TEXTS},
        )
        for row in rows
    ]


async def _derived_views(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> dict[str, SeriesView]:
    uids = [row.series_instance_uid for row in rows]
    if not uids:
        return {}
    query = select(DERIVED).where(DERIVED.c.series_instance_uid.in_(uids))
    made: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in await connection.execute(query):
        made[row.series_instance_uid].append(row)
    sources = {row.of_series_instance_uid for found in made.values() for row in found}
    jobs = {job.keys: job for job in await queries.jobs_of(connection, sorted(sources))}
    return {
        row.series_instance_uid: SeriesView(
            series_instance_uid=row.series_instance_uid,
            study_instance_uid=row.study_instance_uid,
            modality=row.modality,
            instances=len(made[row.series_instance_uid]),
            revisions=1,
            first_seen=row.first_seen,
            job=_made_by(made[row.series_instance_uid], jobs),
        )
        for row in rows
    }


def _made_by(instances: Iterable[Row[Any]], jobs: Mapping[ResultKeys, JobView]) -> JobView | None:
    found = (jobs.get(ResultKeys(row.of_series_instance_uid, row.revision, row.job_id)) for row in instances)
    return next((job for job in found if job), None)


_PROGRESS: Final = select(PROGRESS, SERIES.c.study_instance_uid, SERIES.c.project).join(
    SERIES, SERIES.c.series_instance_uid == PROGRESS.c.series_instance_uid
)


def _progress(row: Row[Any]) -> ProgressView:
    return ProgressView(
        keys=_keys(row),
        study_instance_uid=row.study_instance_uid,
        project=row.project,
        stage=Stage(row.stage),
        attempt=row.attempt,
        step=row.step,
        done=row.done,
        total=row.total,
        percent=row.percent,
        recorded=row.recorded,
    )


def _keys(row: Row[Any]) -> ResultKeys:
    return ResultKeys(row.series_instance_uid, row.revision, row.job_id)
