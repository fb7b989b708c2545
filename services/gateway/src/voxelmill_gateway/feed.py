"""News for whoever listens: what the audit trail and the stages' progress say, asked for once for all listeners.

While somebody listens, one task asks the catalog for what is new, some times a minute, and deals it out. A listener who
comes back after an interruption is given what he missed from the audit trail, whose numbers are the events' ids: they
mean the same in every gateway of the installation.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog
from sqlalchemy import and_, func, or_, select

from voxelmill_shared.catalog import search
from voxelmill_shared.catalog.scope import EVERYTHING
from voxelmill_shared.catalog.tables import AUDIT, OBJECTS, PROGRESS, SERIES
from voxelmill_shared.database import reading
from voxelmill_shared.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from sqlalchemy import Row, Select
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from voxelmill_shared.catalog import ProgressView, Scope
    from voxelmill_shared.events import Stage
    from voxelmill_shared.results import ResultKeys

log = structlog.get_logger("voxelmill")

PROGRESSED: Final = "job.progressed"
"""The name of the news that have no number: they are not kept, and the next one says more."""
SILENCE: Final = 15.0
"""Seconds after which a listener is told that there is nothing: proxies cut what says nothing for long."""
MOST_LISTENERS: Final = 1000
_PAGE: Final = 500
_MOST_WAITING: Final = 2000
"""How much waits for one listener who does not read; then he is let go, and comes back for the rest."""
_OVERLAP: Final = timedelta(seconds=10)
"""How far progress is looked for again behind the newest: its writers commit in another order than they write."""

_PROJECT: Final = func.coalesce(func.nullif(SERIES.c.project, ""), OBJECTS.c.project, "")
"""Whose a record is: its series', else its object's. Records that are nobody's are for those who see everything."""
_RECORDS: Final = select(AUDIT, _PROJECT.label("project")).select_from(
    AUDIT.outerjoin(SERIES, SERIES.c.series_instance_uid == AUDIT.c.series_instance_uid).outerjoin(
        OBJECTS, and_(AUDIT.c.object_address != "", OBJECTS.c.digest == AUDIT.c.object_address)
    )
)


class TooManyListenersError(Exception):
    """As many listen as this process serves."""


@dataclass(frozen=True, slots=True)
class News:
    """One thing that happened. `number` is none for progress; `data` is JSON without line breaks."""

    number: int | None
    name: str
    project: str
    series: str
    job: str
    data: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing that concerns the listener has happened up to this number of the trail."""

    number: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a listener is told of.

    Attributes
    ----------
    scope
        The projects.
    kinds
        The first words of event types, `series.`.
    series, job
        Only of this series, only of this job; empty: of all.
    """

    scope: Scope
    kinds: tuple[str, ...]
    series: str = ""
    job: str = ""

    def takes(self, news: News) -> bool:
        """Whether the listener is told of something."""
        return (
            self.scope.holds(news.project)
            and news.name.startswith(self.kinds)
            and (not self.series or news.series == self.series)
            and (not self.job or news.job == self.job)
        )

    def over(self, query: Select[Any]) -> Select[Any]:
        """Return the query on `_RECORDS` with only what the listener is told of."""
        query = self.scope.over(query, _PROJECT)
        query = query.where(or_(*(AUDIT.c.what.startswith(kind, autoescape=True) for kind in self.kinds)))
        if self.series:
            query = query.where(AUDIT.c.series_instance_uid == self.series)
        if self.job:
            query = query.where(AUDIT.c.job_id == self.job)
        return query


@dataclass(slots=True)
class _Listener:
    wanted: Wanted
    waiting: deque[News] = field(default_factory=deque)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False

    def tell(self, news: News) -> None:
        if self.ended or not self.wanted.takes(news):
            return
        self.waiting.append(news)
        self.ended = len(self.waiting) >= _MOST_WAITING
        self.woken.set()

    def end(self) -> None:
        self.ended = True
        self.woken.set()


class Feed:
    """Asks the catalog for news while somebody listens, and deals them out.

    Parameters
    ----------
    engine
        The catalog's database.
    stopping
        Is set when the process is about to end: then every listener is let go.
    seconds
        How often the catalog is asked.
    """

    def __init__(self, engine: AsyncEngine, stopping: asyncio.Event, *, seconds: float = 1.0) -> None:
        self._engine = engine
        self._stopping = stopping
        self._seconds = seconds
        self._listeners: list[_Listener] = []
        self._task: asyncio.Task[None] | None = None
        self._number = 0
        self._moment = datetime.min.replace(tzinfo=UTC)
        self._progress: dict[tuple[ResultKeys, Stage], datetime] = {}
        self._joining = asyncio.Lock()

    async def listen(
        self, wanted: Wanted, *, after: int | None = None, seconds: float = float("inf")
    ) -> AsyncGenerator[News | Nothing, None]:
        """Give what happens, from now on or from after a number of the audit trail, for so many seconds.

        It begins with `Nothing` where it goes on from now, and gives it again whenever nothing was said for a while.
        It ends sooner when the process is about to end, and for a listener who does not keep up.

        Raises
        ------
        TooManyListenersError
            If there are as many as there may be.
        DatabaseUnavailableError
            If the catalog does not answer at the beginning. Later it is waited for.
        """
        until = asyncio.get_running_loop().time() + seconds
        async with self._joining:
            if len(self._listeners) >= MOST_LISTENERS:
                raise TooManyListenersError
            if self._task is None or self._task.done():
                await self._look_where_it_ends()
        with self._listening(wanted) as listener:
            here, last = self._number, await self._last_number()
            if after is None or after > last:
                after = here  # a number that is not there yet is of another trail
            upto = max(here, last)  # what is dealt out from here to there again is left out below
            async for news in self._missed(wanted, after, upto):
                yield news
            yield Nothing(upto)
            while True:
                while listener.waiting:
                    news = listener.waiting.popleft()
                    if news.number is None or news.number > upto:
                        yield news
                left = until - asyncio.get_running_loop().time()
                if listener.ended or left <= 0:
                    return
                listener.woken.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(SILENCE, left)):
                        await listener.woken.wait()
                if not listener.woken.is_set():  # something may have come in the moment in which the time was over
                    yield Nothing(max(upto, self._number))

    async def close(self) -> None:
        """Let every listener go."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @contextmanager
    def _listening(self, wanted: Wanted) -> Iterator[_Listener]:
        listener = _Listener(wanted, ended=self._stopping.is_set())
        self._listeners.append(listener)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            yield listener
        finally:
            self._listeners.remove(listener)

    async def _run(self) -> None:
        """Ask for news until nobody listens."""
        away = False
        try:
            while self._listeners and not self._stopping.is_set():
                try:
                    full = await self._ask()
                    away = False
                except DatabaseUnavailableError as error:
                    if not away:
                        log.warning("events.waiting", reason=str(error))
                    away, full = True, False
                if not full:
                    await self._rest()
        finally:
            for listener in self._listeners:
                listener.end()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _last_number(self) -> int:
        async with reading(self._engine) as connection:
            number: int = (await connection.execute(select(func.coalesce(func.max(AUDIT.c.number), 0)))).scalar_one()
        return number

    async def _look_where_it_ends(self) -> None:
        """Begin with what comes from now on."""
        self._number = await self._last_number()
        async with reading(self._engine) as connection:
            newest = (await connection.execute(select(func.max(PROGRESS.c.recorded)))).scalar_one()
            self._moment = newest or datetime.min.replace(tzinfo=UTC)
            told = await search.progress_since(connection, EVERYTHING, self._from())
        self._progress = {(view.keys, view.stage): view.recorded for view in told}

    def _from(self) -> datetime:
        return max(self._moment, datetime.min.replace(tzinfo=UTC) + _OVERLAP) - _OVERLAP

    async def _ask(self) -> bool:
        """Deal out what is new; tell whether there may be more at once."""
        query = _RECORDS.where(AUDIT.c.number > self._number).order_by(AUDIT.c.number).limit(_PAGE)
        async with reading(self._engine) as connection:
            records = (await connection.execute(query)).all()
            told = await search.progress_since(connection, EVERYTHING, self._from())
        for record in records:
            self._deal(_of_record(record))
            self._number = record.number
        for view in told:
            if self._progress.get((view.keys, view.stage)) != view.recorded:
                self._deal(_of_progress(view))
            self._moment = max(self._moment, view.recorded)
        self._progress = {(view.keys, view.stage): view.recorded for view in told}
        return len(records) == _PAGE

    def _deal(self, news: News) -> None:
        for listener in self._listeners:
            listener.tell(news)

    async def _missed(self, wanted: Wanted, after: int, upto: int) -> AsyncGenerator[News, None]:
        """Give what was recorded after one number, up to another."""
        while after < upto:
            query = wanted.over(_RECORDS.where(AUDIT.c.number > after, AUDIT.c.number <= upto))
            async with reading(self._engine) as connection:
                records = await _page(connection, query)
            for record in records:
                yield _of_record(record)
            after = records[-1].number if len(records) == _PAGE else upto


async def _page(connection: AsyncConnection, query: Select[Any]) -> list[Row[Any]]:
    return list((await connection.execute(query.order_by(AUDIT.c.number).limit(_PAGE))).all())


def _of_record(record: Row[Any]) -> News:
    names = ("what", "series_instance_uid", "study_instance_uid", "job_id", "stage", "outcome", "reason")
    data = {name: getattr(record, name) for name in names} | {"occurred": record.occurred.isoformat()}
    return News(record.number, record.what, record.project, record.series_instance_uid, record.job_id, json.dumps(data))


def _of_progress(view: ProgressView) -> News:
    data = {
        "series_instance_uid": view.keys.series_instance_uid,
        "study_instance_uid": view.study_instance_uid,
        "job_id": view.keys.job_id,
        "stage": view.stage,
        "step": view.step,
        "percent": view.percent,
    }
    return News(None, PROGRESSED, view.project, view.keys.series_instance_uid, view.keys.job_id, json.dumps(data))
