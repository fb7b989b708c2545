"""What QIDO-RS asks the catalog (PS3.18 10.6): studies, series and instances as DICOM JSON."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import false, func, select, union_all

from voxelmill_gateway.dicomweb import attributes as names
from voxelmill_gateway.dicomweb.matching import matches
from voxelmill_gateway.dicomweb.negotiation import EXPLICIT
from voxelmill_shared.catalog.tables import DERIVED, HEADERS, INSTANCES
from voxelmill_shared.database import is_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, FromClause, Row, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voxelmill_shared.catalog.scope import Scope

Json: TypeAlias = dict[str, Any]

KNOWN_OF_STUDY: Final = frozenset({*names.OF_STUDY, *names.IN_STUDY_JSON, names.MODALITIES})
KNOWN_OF_SERIES: Final = frozenset({*names.OF_SERIES, *names.IN_SERIES_JSON, names.SERIES_NUMBER})
KNOWN_OF_INSTANCES: Final = frozenset({*names.OF_INSTANCE, *names.COUNTED_OF_INSTANCE})
"""The attributes that can be asked for: of studies, with those of one of their series; and so on."""
_AT_ONCE: Final = 500
_COLUMNS: Final = (
    *("series_instance_uid", "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "instance_number"),
    *("rows", "columns", "frames"),
)


@dataclass(frozen=True, slots=True)
class QidoQuery:
    """What is asked for.

    Attributes
    ----------
    filters
        Values by tag; an attribute may have several, one of which must match.
    include
        Tags to return beside those that are always returned.
    everything
        Whether all attributes are returned that are known (`includefield=all`).
    limit, offset
        Which page of what is found.
    """

    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    include: frozenset[str] = frozenset()
    everything: bool = False
    limit: int = 100
    offset: int = 0

    def wants(self, tag: str, usual: frozenset[str]) -> bool:
        """Whether an attribute is to be returned."""
        return self.everything or tag in usual or tag in self.include


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question to one database by somebody who may see some projects."""

    connection: AsyncConnection
    scope: Scope
    wanted: QidoQuery

    def seen(self, query: Select[Any], headers: FromClause) -> Select[Any]:
        return self.scope.over(query, headers.c.project)

    def text(self, tag: str, column: ColumnElement[str], vr: str | None = None) -> Iterator[ColumnElement[bool]]:
        values = self.wanted.filters.get(tag)
        if values is not None:
            vr = vr or names.vr_of(tag)
            condition = matches(vr, column, values, names.keyword_of(tag), sqlite=is_sqlite(self.connection))
            if condition is not None:
                yield condition

    def number(self, tag: str, column: ColumnElement[int]) -> Iterator[ColumnElement[bool]]:
        texts = [value.strip() for value in self.wanted.filters.get(tag, ())]
        if not texts or "" in texts or "*" in texts:
            return
        numbers = [int(text) for text in texts if text.lstrip("+-").isdecimal() and len(text) <= 12]
        yield column.in_(numbers) if numbers else false()

    def of_study(self, headers: FromClause) -> Iterator[ColumnElement[bool]]:
        for tag, name in names.OF_STUDY.items():
            vr = "PN" if name == "patient_name_folded" else ("LO" if names.vr_of(tag) == "PN" else None)
            yield from self.text(tag, headers.c[name], vr)
        for tag in sorted(names.IN_STUDY_JSON & set(self.wanted.filters)):
            yield from self.text(tag, _in_json(headers.c.study_json, tag), "LO")
        if names.MODALITIES in self.wanted.filters:
            other = HEADERS.alias()
            same = select(other.c.series_instance_uid).where(
                other.c.study_instance_uid == headers.c.study_instance_uid,
                *self.text(names.MODALITIES, other.c.modality),
            )
            yield self.seen(same, other).exists()

    def of_series(self, headers: FromClause) -> Iterator[ColumnElement[bool]]:
        for tag, name in names.OF_SERIES.items():
            yield from self.text(tag, headers.c[name])
        for tag in sorted(names.IN_SERIES_JSON & set(self.wanted.filters)):
            yield from self.text(tag, _in_json(headers.c.series_json, tag), _json_vr(tag))
        yield from self.number(names.SERIES_NUMBER, headers.c.series_number)

    def of_instance(self, instances: FromClause) -> Iterator[ColumnElement[bool]]:
        for tag, name in names.OF_INSTANCE.items():
            yield from self.text(tag, instances.c[name])
        for tag, name in names.COUNTED_OF_INSTANCE.items():
            yield from self.number(tag, instances.c[name])
        yield from self.text(names.SERIES_UID, instances.c.series_instance_uid)

    async def rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        page = query.limit(self.wanted.limit).offset(self.wanted.offset)
        found: Sequence[Row[Any]] = (await self.connection.execute(page)).all()
        return found


async def qido_studies(connection: AsyncConnection, scope: Scope, wanted: QidoQuery) -> list[Json]:
    """Return studies as DICOM JSON, the newest first, with what is counted of each."""
    asked = _Asked(connection, scope, wanted)
    earlier, some = HEADERS.alias("earlier"), HEADERS.alias("some")
    # A study is told by the first of its series: an index gives the newest, and nothing need be sorted or grouped.
    before = select(earlier.c.series_instance_uid).where(
        earlier.c.study_instance_uid == HEADERS.c.study_instance_uid,
        earlier.c.series_instance_uid < HEADERS.c.series_instance_uid,
    )
    query: Select[Any] = select(HEADERS.c.study_instance_uid, HEADERS.c.study_json)
    query = asked.seen(query, HEADERS).where(~asked.seen(before, earlier).exists(), *asked.of_study(HEADERS))
    of_series = list(asked.of_series(some))
    if of_series:
        fits = select(some.c.series_instance_uid).where(
            some.c.study_instance_uid == HEADERS.c.study_instance_uid, *of_series
        )
        query = query.where(asked.seen(fits, some).exists())
    rows = await asked.rows(query.order_by(HEADERS.c.study_date.desc(), HEADERS.c.study_instance_uid))
    about = await _about_studies(asked, [row.study_instance_uid for row in rows])
    return [_study(row, about[row.study_instance_uid], wanted) for row in rows]


async def qido_series(
    connection: AsyncConnection, scope: Scope, wanted: QidoQuery, *, within_study: bool
) -> list[Json]:
    """Return series as DICOM JSON, those of the newest study first.

    What describes the study is there too, unless the path names it.
    """
    asked = _Asked(connection, scope, wanted)
    query = asked.seen(select(HEADERS), HEADERS).where(*asked.of_study(HEADERS), *asked.of_series(HEADERS))
    order = (HEADERS.c.study_date.desc(), HEADERS.c.study_instance_uid)
    rows = await asked.rows(query.order_by(*order, HEADERS.c.series_number, HEADERS.c.series_instance_uid))
    numbers = await _instances_of(asked, [row.series_instance_uid for row in rows])
    about: Mapping[str, _About] = {}
    if not within_study:
        about = await _about_studies(asked, sorted({row.study_instance_uid for row in rows}))
    found = []
    for row in rows:
        of_study = _study_uid(row) if within_study else _study(row, about[row.study_instance_uid], wanted)
        count = {names.SERIES_INSTANCES: _value("IS", numbers[row.series_instance_uid])}
        found.append(_sorted(of_study | _series(row, wanted) | count))
    return found


async def qido_instances(
    connection: AsyncConnection, scope: Scope, wanted: QidoQuery, *, within_study: bool, within_series: bool
) -> list[Json]:
    """Return instances as DICOM JSON, series by series in the order of their numbers.

    What describes the study and the series is there too, unless the path names them.
    """
    asked = _Asked(connection, scope, wanted)
    each = union_all(
        select(*(INSTANCES.c[name] for name in _COLUMNS)).where(*asked.of_instance(INSTANCES)),
        select(*(DERIVED.c[name] for name in _COLUMNS)).where(*asked.of_instance(DERIVED)),
    ).subquery()
    of_series = (HEADERS.c.study_instance_uid, HEADERS.c.study_json, HEADERS.c.series_json, HEADERS.c.modality)
    query: Select[Any] = select(*(each.c[name] for name in _COLUMNS), *of_series, HEADERS.c.series_number)
    query = query.join(HEADERS, HEADERS.c.series_instance_uid == each.c.series_instance_uid)
    query = asked.seen(query, HEADERS).where(*asked.of_study(HEADERS), *asked.of_series(HEADERS))
    # Only within a study or a series are there few enough to be put into the order of their numbers.
    number = (each.c.instance_number,) if within_study else ()
    rows = await asked.rows(query.order_by(each.c.series_instance_uid, *number, each.c.sop_instance_uid))
    about: Mapping[str, _About] = {}
    if not within_study:
        about = await _about_studies(asked, sorted({row.study_instance_uid for row in rows}))
    found = []
    for row in rows:
        of_study = _study_uid(row) if within_study else _study(row, about[row.study_instance_uid], wanted)
        uid = {names.SERIES_UID: _value("UI", row.series_instance_uid)}
        found.append(_sorted(of_study | (uid if within_series else _series(row, wanted)) | _instance(row)))
    return found


def _in_json(column: ColumnElement[Any], tag: str) -> ColumnElement[str]:
    path: tuple[str | int, ...] = (tag, "Value", 0)
    if names.vr_of(tag) == "PN":
        path = (*path, "Alphabetic")
    value: ColumnElement[str] = column[path].as_string()
    return value


def _json_vr(tag: str) -> str:
    vr = names.vr_of(tag)
    return vr if vr in {"DA", "TM", "UI"} else "LO"


@dataclass(slots=True)
class _About:
    """What is counted of a study."""

    modalities: set[str] = field(default_factory=set)
    series: int = 0
    instances: int = 0


async def _about_studies(asked: _Asked, uids: Sequence[str]) -> Mapping[str, _About]:
    found: dict[str, _About] = defaultdict(_About)
    series: dict[str, str] = {}
    for some in _divided(uids):
        query = select(HEADERS.c.study_instance_uid, HEADERS.c.series_instance_uid, HEADERS.c.modality)
        query = asked.seen(query, HEADERS).where(HEADERS.c.study_instance_uid.in_(some))
        for row in await asked.connection.execute(query):
            found[row.study_instance_uid].series += 1
            found[row.study_instance_uid].modalities.add(row.modality)
            series[row.series_instance_uid] = row.study_instance_uid
    for uid, number in (await _instances_of(asked, list(series))).items():
        found[series[uid]].instances += number
    return found


async def _instances_of(asked: _Asked, series: Sequence[str]) -> Mapping[str, int]:
    """Count the instances of series that the caller may see."""
    found: dict[str, int] = defaultdict(int)
    for some in _divided(series):
        for table in (INSTANCES, DERIVED):
            uid = table.c.series_instance_uid
            query = select(uid, func.count()).where(uid.in_(some)).group_by(uid)
            for row in await asked.connection.execute(query):
                found[row[0]] += row[1]
    return found


def _divided(uids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (uids[start : start + _AT_ONCE] for start in range(0, len(uids), _AT_ONCE))


def _study(row: Row[Any], about: _About, wanted: QidoQuery) -> Json:
    found = _chosen(row.study_json, names.RETURNED_OF_STUDY, wanted)
    found[names.MODALITIES] = _values("CS", sorted(filter(None, about.modalities)))
    found[names.STUDY_SERIES] = _value("IS", about.series)
    found[names.STUDY_INSTANCES] = _value("IS", about.instances)
    return _sorted(found | _study_uid(row))


def _study_uid(row: Row[Any]) -> Json:
    return {
        names.CHARACTER_SET: _value("CS", "ISO_IR 192"),
        names.AVAILABILITY: _value("CS", "ONLINE"),
        names.STUDY_UID: _value("UI", row.study_instance_uid),
    }


def _series(row: Row[Any], wanted: QidoQuery) -> Json:
    found = _chosen(row.series_json, names.RETURNED_OF_SERIES, wanted)
    found[names.MODALITY] = _value("CS", row.modality)
    found[names.SERIES_UID] = _value("UI", row.series_instance_uid)
    return found


def _instance(row: Row[Any]) -> Json:
    found = {tag: _value(names.vr_of(tag), getattr(row, name)) for tag, name in names.OF_INSTANCE.items()}
    found |= {tag: _value(names.vr_of(tag), getattr(row, name)) for tag, name in names.COUNTED_OF_INSTANCE.items()}
    if row.frames <= 1:
        del found[names.FRAMES]
    syntaxes = list(dict.fromkeys((row.transfer_syntax_uid, EXPLICIT)))
    found[names.TRANSFER_SYNTAXES] = _values("UI", syntaxes)
    return found


def _chosen(known: Json, usual: frozenset[str], wanted: QidoQuery) -> Json:
    """Return the attributes that are to be returned; those that always are, empty where they are not known."""
    found: Json = {tag: {"vr": names.vr_of(tag)} for tag in usual}
    return found | {tag: value for tag, value in known.items() if wanted.wants(tag, usual)}


def _value(vr: str, value: str | int | None) -> Json:
    return {"vr": vr} if value in {None, ""} else {"vr": vr, "Value": [value]}


def _values(vr: str, values: Sequence[str]) -> Json:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def _sorted(found: Json) -> Json:
    return dict(sorted(found.items()))
