"""Writing down what became of objects: ledger, instances, series, uploads and outbox in one transaction.

What is asked for at the same time is written down together (`Together`, `Books`). Everything here may be called again
with the same arguments and then changes nothing but times; the same events go out again under the same ids.

Rows are locked before anything is decided, always in the same order: objects, uploads, series, each by their keys;
missing uploads and series are inserted before the first of their table is locked. So the decisions about one series
follow one another, and no two replicas wait for each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from voxelmill_ingest import rows
from voxelmill_ingest.assembly import evidence_of
from voxelmill_ingest.books import Books, NewSeries
from voxelmill_ingest.findings import Instance
from voxelmill_ingest.settlement import ConflictError, ObjectChangedError, Rival, Settlement
from voxelmill_ingest.tables import outbox
from voxelmill_shared.database import transaction
from voxelmill_shared.outbox import add
from voxelmill_shared.projects import project_of
from voxelmill_shared.together import Together

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from voxelmill_ingest.assembly import Patience
    from voxelmill_ingest.findings import Finding
    from voxelmill_shared.events import Event, ObjectRef

MOST_AT_ONCE = 64
"""How many objects are written down in one transaction at most."""
PACE_SECONDS = 0.05
"""From one transaction to the next while objects only trickle in. One that holds a single object costs as much as one
that holds 16, and a series waits for seconds anyway."""
_TRIES = 3
"""How often another replica may insert what this one was about to insert."""


@dataclass(slots=True)
class Ledger:
    """The ledger in its database.

    `source` is the name that this process has in the envelopes of events; `now` is the clock. `pace` and `enough` say
    when what is asked for at nearly the same time is written down together (see `Together`).
    """

    engine: AsyncEngine
    source: str
    patience: Patience
    now: Callable[[], datetime]
    pace: float = 0.0
    enough: int = 1
    _together: Together[Settlement, bool] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._together = Together(self._settle, MOST_AT_ONCE, pace=self.pace, enough=self.enough)

    async def settle(
        self,
        reference: ObjectRef,
        looked_at: datetime,
        finding: Finding,
        upload_id: str | None,
        *,
        rival: Rival | None = None,
        announce: Sequence[Event] = (),
    ) -> bool:
        """Write down what was found in an object, and put the events that say so into the outbox.

        Parameters
        ----------
        reference, looked_at, finding, upload_id, rival, announce
            See `Settlement`.

        Returns
        -------
        bool
            Whether series are due now, because this was the last object of its upload.

        Raises
        ------
        ConflictError
            If another object holds the same instance with other content.
        ObjectChangedError
            If another content of the same object has been written down since.
        """
        return await self._together(Settlement(reference, looked_at, finding, upload_id, rival, announce))

    async def missing(self, announced: ObjectRef, upload_id: str | None) -> bool:
        """Write down that an announced object is not there; true if that made series due.

        What is known of an object that once was there stays: deleting an input changes no result.
        """
        return await self._together(Settlement(announced, self.now(), None, upload_id))

    async def complete_upload(self, upload_id: str, expected: int) -> bool:
        """Write down how many objects an upload has; true if all are settled, so that series are due."""
        now = self.now()
        async with transaction(self.engine) as connection:
            books = Books(now, self.patience, self.source)
            books.uploads = await rows.lock_uploads(connection, {upload_id}, now)
            upload = books.uploads[upload_id]
            upload.expected = expected
            if upload.is_complete:
                upload.series = (await rows.series_of_uploads(connection, {upload_id})).get(upload_id, set())
                books.series = await rows.lock_series(connection, dict.fromkeys(upload.series), now)
                books.make_due(upload.series, evidence_of(upload_id))
            await rows.write_uploads(connection, books.uploads, now)
            await rows.write_series(connection, books.series)
        return upload.is_complete

    async def _settle(self, wanted: Sequence[Settlement]) -> Sequence[bool | Exception]:
        """Write down a batch; return for each settlement its result or its error."""
        answers: dict[int, bool | Exception] = {}
        left = list(enumerate(wanted))
        while left:
            # One settlement of each object at a time: the second must find what the first one wrote.
            first: dict[tuple[str, str], tuple[int, Settlement]] = {}
            for number, one in left:
                first.setdefault(one.place, (number, one))
            batch = list(first.values())
            taken = {number for number, _ in batch}
            left = [(number, one) for number, one in left if number not in taken]
            results = await self._write([one for _, one in batch])
            answers.update(zip((number for number, _ in batch), results, strict=True))
        return [answers[number] for number in range(len(wanted))]

    async def _write(self, batch: Sequence[Settlement]) -> Sequence[bool | Exception]:
        """Write down a batch in one transaction; if the database refuses one of its rows, each by itself."""
        for tries_left in reversed(range(_TRIES)):
            try:
                return await self._transact(batch)
            except IntegrityError as error:
                # Another replica has inserted the same row first: now it is there, and is locked and updated.
                if not tries_left:
                    failure: Exception = error
            except (SQLAlchemyError, ValueError, OverflowError) as error:  # the last one is SQLite's, of a large number
                failure = error
                break
        if len(batch) == 1:
            return [failure]
        return [answer for one in batch for answer in await self._write([one])]

    async def _transact(self, batch: Sequence[Settlement]) -> Sequence[bool | Exception]:
        async with transaction(self.engine) as connection:
            books = Books(self.now(), self.patience, self.source)
            books.objects = await rows.lock_objects(connection, [one.place for one in batch])
            answers: list[bool | Exception | None] = [_refusal(books, one) for one in batch]
            present = [one for one, answer in zip(batch, answers, strict=True) if answer is None]
            await _open(connection, books, present)
            before = dict(books.instances)
            for number, one in enumerate(batch):
                if answers[number] is None:
                    try:
                        answers[number] = books.settle(one)
                    except ConflictError as conflict:
                        answers[number] = conflict
            await rows.write_objects(connection, books.object_rows, books.objects)
            await rows.write_instances(connection, before, books.instances)
            await rows.write_upload_objects(connection, books.upload_rows)
            await rows.write_uploads(connection, books.uploads, books.now)
            await rows.write_series(connection, books.series)
            await add(connection, outbox, books.envelopes)
        return [answer for answer in answers if answer is not None]


def _refusal(books: Books, one: Settlement) -> ObjectChangedError | None:
    try:
        books.check_present(one)
    except ObjectChangedError as error:
        return error
    return None


async def _open(connection: AsyncConnection, books: Books, batch: Sequence[Settlement]) -> None:
    """Lock and read every row that the batch may need, beside the objects'."""
    await _open_uploads(connection, books, batch)
    found = [one.finding for one in batch if isinstance(one.finding, Instance)]
    seen = [one.place for one in batch if one.place in books.objects]
    wanted: dict[str, NewSeries | None] = {}
    for uid in await rows.series_of_objects(connection, seen):
        wanted[uid] = None
    for upload in books.uploads.values():
        wanted |= dict.fromkeys(upload.series)
    for one in batch:
        if isinstance(one.finding, Instance):
            new = NewSeries(one.finding.study_instance_uid, project_of(one.reference.key))
            wanted[one.finding.series_instance_uid] = wanted.get(one.finding.series_instance_uid) or new
    books.series = await rows.lock_series(connection, wanted, books.now)
    keys = [(instance.series_instance_uid, instance.sop_instance_uid) for instance in found]
    books.instances = await rows.read_instances(connection, keys, seen)


async def _open_uploads(connection: AsyncConnection, books: Books, batch: Sequence[Settlement]) -> None:
    places: dict[str, set[tuple[str, str]]] = {}
    for one in batch:
        if one.upload_id is not None:
            places.setdefault(one.upload_id, set()).add(one.place)
    books.uploads = await rows.lock_uploads(connection, places.keys(), books.now)
    counted = await rows.counted_objects(connection, places)
    completing = set()
    for upload_id, upload in books.uploads.items():
        upload.objects = counted.get(upload_id, set())
        fresh = len(places[upload_id] - upload.objects)
        if fresh and upload.expected is not None and upload.settled + fresh >= upload.expected:
            completing.add(upload_id)
    for upload_id, uids in (await rows.series_of_uploads(connection, completing)).items():
        books.uploads[upload_id].series = uids
