"""Announcing what a request brings, as an upload: while it goes on, and when it has ended."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from voxelmill_gateway.tables import OUTBOX
from voxelmill_gateway.uploads import rows
from voxelmill_gateway.uploads.model import Upload, UploadKind, UploadState
from voxelmill_shared.database import transaction
from voxelmill_shared.errors import DatabaseUnavailableError
from voxelmill_shared.events import AccessRecorded, Envelope, ObjectRef, ObjectUploaded, UploadCompleted
from voxelmill_shared.outbox import add
from voxelmill_shared.uploads import new_upload_id, upload_key

if TYPE_CHECKING:
    from collections.abc import Collection

    from voxelmill_gateway.access.callers import Caller
    from voxelmill_gateway.gateway import Gateway
    from voxelmill_shared.events import Event
    from voxelmill_shared.storage.base import StoredObject

PAUSE_SECONDS: Final = 1.0
"""Between two announcements of the same request. The first object is announced at once."""


class Announcer:
    """The objects of one request, on their way to ingest.

    The first one is announced while the others are still coming: so ingest knows that their series has an upload that
    goes on, and several requests that bring parts of one series at a time make one series of them.

    Parameters
    ----------
    gate, caller, project
        The gateway, who sends, and whose the objects shall be.
    """

    def __init__(self, gate: Gateway, caller: Caller, project: str) -> None:
        self._gate = gate
        self._caller = caller
        self._project = project
        self.upload_id = new_upload_id()
        self._waiting: list[ObjectUploaded] = []
        self._announced = 0
        self._created = datetime.now(UTC)
        self._some = asyncio.Event()
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Announce now and then from here on, until `end`."""
        self._task = asyncio.create_task(self._now_and_then())

    def key(self, number: int) -> str:
        """Return the key of an object of this upload."""
        return upload_key(self._project, self.upload_id, number, ".dcm")

    def stored(self, stored: StoredObject) -> None:
        """Say that an object is in the inbox."""
        reference = ObjectRef(bucket=self._gate.stores.inbox.bucket, key=stored.key, etag=stored.etag, size=stored.size)
        self._waiting.append(ObjectUploaded(object=reference, found_by="gateway", upload_id=self.upload_id))
        self._some.set()

    async def end(self, studies: Collection[str], *, whole: bool) -> None:
        """Announce the rest, that the upload is complete (if it is), and who has brought what, all of it or nothing.

        Parameters
        ----------
        studies
            The Study Instance UIDs of what was stored.
        whole
            Whether the request came to its end, and everything of it was stored.

        Raises
        ------
        DatabaseUnavailableError
            If the database does not answer. The objects stay: the reconciler finds them.
        """
        self._over.set()
        self._some.set()
        if self._task is not None:
            await self._task
        objects = self._announced + len(self._waiting)
        if not objects:
            return
        outcome, detail = ("done", f"{objects} instances") if whole else ("failed", f"broken off after {objects}")
        events: list[Event] = [
            AccessRecorded(
                who=self._caller.who,
                action="uploaded",
                project=self._project,
                study_instance_uid=study,
                outcome=outcome,
                detail=detail,
                period_start=datetime.now(UTC),
            )
            for study in sorted(studies)
        ]
        if whole:
            events.insert(0, UploadCompleted(upload_id=self.upload_id, objects=objects))
        await self._announce(events, over=True)

    async def _now_and_then(self) -> None:
        """Announce while the request goes on. While the database is away it is tried again and again."""
        while True:
            await self._some.wait()
            if self._over.is_set():
                return
            self._some.clear()
            try:
                await self._announce()
            except DatabaseUnavailableError:
                self._some.set()  # if it is still away at the end of the request, that will say so
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_SECONDS):
                    await self._over.wait()

    async def _announce(self, more: Collection[Event] = (), *, over: bool = False) -> None:
        """Write what is waiting, and more, into the outbox, and at the end the upload's row: in one transaction.

        There is no row before: an upload that is open may be aborted, and its objects removed, and these here are
        ingest's already. It says that nothing more comes, whether the request came to its end or not.
        """
        waiting, now = self._waiting[:], datetime.now(UTC)
        objects = self._announced + len(waiting)
        envelopes = [Envelope.wrap(event, self._gate.source) for event in (*waiting, *more)]
        upload = Upload(
            self.upload_id,
            self._project,
            self._caller.who,
            UploadKind.STOW,
            UploadState.COMPLETE,
            objects,
            created=self._created,
            changed=now,
        )
        async with transaction(self._gate.engine) as connection:
            if over:
                await rows.add_upload(connection, upload, ())
            await add(connection, OUTBOX, envelopes)
        del self._waiting[: len(waiting)]
        self._announced = objects
        self._gate.relay.notify()
