"""Storing the instances of one request: each is written to the inbox while the next one arrives.

The end of a request is the evidence that what it brought is complete. A request that breaks off, or of which the store
did not take all, ends without that: its instances are kept, and ordinary evidence applies to them.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from voxelmill_gateway.dicomweb.announcing import Announcer
from voxelmill_gateway.dicomweb.identity import Identity, read_identity
from voxelmill_gateway.dicomweb.negotiation import DICOM
from voxelmill_gateway.dicomweb.spool import Spool
from voxelmill_gateway.dicomweb.stow_answer import Failed, FailureReason
from voxelmill_gateway.multipart import MediaType, PartBegins, PartData
from voxelmill_gateway.problems import Problem
from voxelmill_shared.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from voxelmill_gateway.access.callers import Caller
    from voxelmill_gateway.gateway import Gateway
    from voxelmill_gateway.multipart import PartEvent

MOST_INSTANCES: Final = 20_000
"""Parts of one request."""


class Storing:
    """The instances of one request.

    Parameters
    ----------
    gate, caller, project
        The gateway, who sends, and whose the instances shall be.
    writes
        How many instances may be written to the inbox at a time, by all requests together.
    study
        The Study Instance UID that all must have; empty: any.
    """

    def __init__(self, gate: Gateway, caller: Caller, project: str, writes: asyncio.Semaphore, study: str = "") -> None:
        self._inbox = gate.stores.inbox
        self._scratch = gate.scratch
        self._writes = writes
        self._study = study
        self._announcer = Announcer(gate, caller, project)
        self._results: list[Identity | Failed | None] = []
        self._part: Spool | None = None
        self._supported = True
        self._writing: set[asyncio.Task[None]] = set()
        self._folder: Path | None = None
        self._defect: BaseException | None = None

    @property
    def stored(self) -> list[Identity]:
        """The instances that are in the inbox."""
        return [one for one in self._results if isinstance(one, Identity)]

    @property
    def failed(self) -> list[Failed]:
        """The others."""
        return [one for one in self._results if isinstance(one, Failed)]

    async def take(self, parts: AsyncIterator[PartEvent]) -> None:
        """Store and announce what comes. Nothing is being written any more when this returns or raises.

        Raises
        ------
        MalformedBodyError, ClientDisconnect, DiskFullError
            The request is over before its end. What was stored is announced.
        DatabaseUnavailableError
            It could not be announced; the reconciler will find it.
        Problem
            413 if there are too many parts.
        """
        ended = False
        self._announcer.begin()
        with ExitStack() as folders:
            try:
                async for event in parts:
                    await self._take(event, folders)
                ended = True
            finally:
                if self._part is not None:
                    self._part.discard()
                if self._writing:
                    await asyncio.wait(self._writing)
                await self._announcer.end({one.study for one in self.stored}, whole=ended and not self._is_short)
        if self._defect is not None:
            raise self._defect

    @property
    def _is_short(self) -> bool:
        """Whether the client will have to send something again, so that this is not all of it."""
        return self._defect is not None or any(one.reason is FailureReason.OUT_OF_RESOURCES for one in self.failed)

    async def _take(self, event: PartEvent, folders: ExitStack) -> None:
        if isinstance(event, PartBegins):
            if len(self._results) == MOST_INSTANCES:
                raise Problem(413, "Too many instances", f"send at most {MOST_INSTANCES} in one request, and then more")
            self._supported = MediaType.of(event.headers.get("content-type", DICOM)).name == DICOM
            self._part = Spool(lambda: self._file(folders))
        elif self._part is None:
            return
        elif isinstance(event, PartData):
            if self._supported:
                await self._part.add(event.data)
        else:
            part, self._part = self._part, None
            await self._part_ends(part)

    def _file(self, folders: ExitStack) -> Path:
        if self._folder is None:
            self._folder = folders.enter_context(self._scratch.folder("stow"))
        return self._folder / str(len(self._results))

    async def _part_ends(self, part: Spool) -> None:
        number = len(self._results)
        if not self._supported:
            self._results.append(Failed(Identity(), FailureReason.UNSUPPORTED_PART))
            return
        self._results.append(None)
        await part.end()
        await self._writes.acquire()
        task = asyncio.create_task(self._store(number, part))
        self._writing.add(task)
        task.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writes.release()
        self._writing.discard(task)
        self._defect = self._defect or task.exception()

    async def _store(self, number: int, part: Spool) -> None:
        try:
            self._results[number] = await self._outcome(number, part)
        finally:
            part.discard()

    async def _outcome(self, number: int, part: Spool) -> Identity | Failed:
        identity = read_identity(part.head)
        if not identity.whole:
            return Failed(identity, FailureReason.NOT_UNDERSTOOD)
        if self._study and identity.study != self._study:
            return Failed(identity, FailureReason.ANOTHER_STUDY)
        key = self._announcer.key(number)
        try:
            if part.path is None:
                stored = await self._inbox.write(key, part.head, DICOM)
            else:
                stored = await self._inbox.write_file(key, part.path, DICOM)
        except TransientError:
            return Failed(identity, FailureReason.OUT_OF_RESOURCES)
        self._announcer.stored(stored)
        return identity
