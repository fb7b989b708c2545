"""From an announced object to its place in the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxelmill_ingest.deidentify.job import Copied
from voxelmill_ingest.findings import ArchiveFormat, Deidentified, Instance, Refusal, Withdrawn
from voxelmill_ingest.inspection import inspect
from voxelmill_ingest.ranges import FIRST_READ, drive
from voxelmill_ingest.reasons import Reason
from voxelmill_ingest.settlement import ConflictError, ObjectChangedError, Rival
from voxelmill_shared.errors import ObjectMissingError, UnsafeKeyError
from voxelmill_shared.events import ObjectRef, ObjectUploaded
from voxelmill_shared.outcome import Done, Outcome, Reject
from voxelmill_shared.storage.keys import is_text
from voxelmill_shared.uploads import upload_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from voxelmill_ingest.archive import Unpacker
    from voxelmill_ingest.assembler import Assembler
    from voxelmill_ingest.deidentify.copies import Deidentifier
    from voxelmill_ingest.findings import Finding
    from voxelmill_ingest.ledger import Ledger
    from voxelmill_shared.events import Event, UploadCompleted
    from voxelmill_shared.outbox import OutboxRelay
    from voxelmill_shared.storage.base import ObjectStat, ObjectStore
    from voxelmill_shared.storage.stores import Stores


_RIVALS = 3
"""How often in one settlement an instance may turn out to be held by yet another object."""
_LONGEST_NAME = 2000
"""Bytes of a key that stands in the ledger: PostgreSQL indexes rows of up to 2,704 bytes, and the bucket and the upload
need a place beside it."""


@dataclass(frozen=True, slots=True)
class IngestObject:
    """Look at one announced object, write down what it is, and say so. The announcement is only a hint.

    With `deidentify`, what is written down and said is that of the object's copy, and of the object itself no more than
    that there is one.
    """

    stores: Stores
    ledger: Ledger
    unpack: Unpacker
    relay: OutboxRelay
    assembler: Assembler
    deidentify: Deidentifier | None = None

    async def __call__(self, event: ObjectUploaded) -> Outcome:
        """Settle one object."""
        if event.upload_id is None:
            # The reconciler has found it: more of its upload may come.
            event = event.model_copy(update={"upload_id": upload_of(event.object.key)})
        try:
            store = self.stores.of(event.object)
        except ObjectMissingError:
            return Reject(
                f"{event.object.address()}: no store of this installation is {event.object.bucket!r}", "unknown-bucket"
            )
        try:
            due_now = await self._settle(store, event)
        except ObjectMissingError:
            due_now = await self.ledger.missing(event.object, event.upload_id)
        except UnsafeKeyError as error:
            if not _can_be_named(event.object.key):
                return Reject(str(error), Reason.UNSAFE_KEY.value)
            # The store never hands it out, so the announced content is all that there is to write down.
            refusal = Refusal(reason=Reason.UNSAFE_KEY, detail=str(error))
            due_now = await self.ledger.settle(event.object, self.ledger.now(), refusal, event.upload_id)
        self.relay.notify()
        if due_now:
            self.assembler.kick()
        return Done()

    async def _settle(self, store: ObjectStore, event: ObjectUploaded) -> bool:
        looked_at = self.ledger.now()
        stat, head = await store.read_head(event.object.key, FIRST_READ)
        reference = ObjectRef(
            bucket=store.bucket, key=stat.key, etag=stat.etag, size=stat.size, version_id=stat.version_id
        )
        found: Finding | ArchiveFormat = await _look(store, reference, head)
        members: list[Event] = []
        if isinstance(found, ArchiveFormat):
            found, members = await self.unpack(reference, found, event.upload_id)
        if self.deidentify is None or self.deidentify.is_copy(reference):
            return await self._write_down(reference, looked_at, found, event.upload_id, members, stat)
        return await self._instead(self.deidentify, reference, looked_at, found, event.upload_id, members)

    async def _instead(
        self,
        deidentify: Deidentifier,
        original: ObjectRef,
        looked_at: datetime,
        found: Finding,
        upload_id: str | None,
        members: list[Event],
    ) -> bool:
        """Write down the copy of an object instead of the object; of a refused one what holds nothing of its header."""
        if isinstance(found, Instance):
            copied = await deidentify(original)
            if isinstance(copied, Copied):
                seen = await _look(self.stores.work, copied.reference, copied.head)
                if isinstance(seen, Instance):
                    await self._withdraw(deidentify, original, looked_at, Withdrawn(), copied.reference)
                    # First the copy: if only that is written down, the original is announced again and nothing is lost.
                    due_now = await self._write_down(copied.reference, looked_at, seen, upload_id)
                    return await self.ledger.settle(original, looked_at, Deidentified(), None) or due_now
                reason = seen.reason if isinstance(seen, Refusal) else Reason.NOT_DEIDENTIFIABLE
                found = Refusal(reason=reason, detail=reason.explanation)
            else:
                found = copied
        elif isinstance(found, Refusal):
            found = found.nameless()
        await self._withdraw(deidentify, original, looked_at, found if isinstance(found, Refusal) else Withdrawn())
        return await self._write_down(original, looked_at, found, upload_id, members)

    async def _withdraw(
        self,
        deidentify: Deidentifier,
        original: ObjectRef,
        looked_at: datetime,
        instead: Refusal | Withdrawn,
        but: ObjectRef | None = None,
    ) -> None:
        """Take back the copies of what the object was before."""
        for copy in await deidentify.others(original, but):
            await self.ledger.settle(copy, looked_at, instead, None)
            await deidentify.delete(copy)

    async def _write_down(
        self,
        reference: ObjectRef,
        looked_at: datetime,
        found: Finding,
        upload_id: str | None,
        announce: Sequence[Event] = (),
        stat: ObjectStat | None = None,
    ) -> bool:
        rival: Rival | None = None
        beaten: list[Event] = []
        for _ in range(_RIVALS):
            try:
                return await self.ledger.settle(
                    reference, looked_at, found, upload_id, rival=rival, announce=[*announce, *beaten]
                )
            except ConflictError as conflict:
                other = conflict.other
                theirs = await self._look_again(other)
                ours = stat or await self.stores.of(reference).head(reference.key)
                stands = theirs is not None and _age(other, theirs) < _age(reference, ours)
                rival = Rival(other, stands=stands)
                # An object that loses its instance is settled once more, and then refused as if it had come second.
                beaten = [] if stands or theirs is None else [ObjectUploaded(object=other, found_by="conflict")]
        raise ObjectChangedError(f"{reference.address()}: its instance changed hands {_RIVALS} times")

    async def _look_again(self, reference: ObjectRef) -> ObjectStat | None:
        """Look at another object; none if it cannot be read: its bucket is gone, or a link now leads elsewhere."""
        try:
            return await self.stores.of(reference).head(reference.key)
        except (ObjectMissingError, UnsafeKeyError):
            return None


@dataclass(frozen=True, slots=True)
class CompleteUpload:
    """Note how many objects an upload has: when all are settled, its series are complete."""

    ledger: Ledger
    assembler: Assembler

    async def __call__(self, event: UploadCompleted) -> Outcome:
        """Take the evidence."""
        if await self.ledger.complete_upload(event.upload_id, event.objects):
            self.assembler.kick()
        return Done()


async def _look(store: ObjectStore, reference: ObjectRef, head: bytes) -> Instance | Refusal | ArchiveFormat:
    """Tell what an object is by its head, and by what else of it that asks for.

    Raises
    ------
    ObjectChangedError
        If the object was replaced while it was read.
    """
    read_on = False

    async def read(start: int, length: int) -> bytes:
        nonlocal read_on
        if start + length <= len(head):
            return head[start : start + length]
        read_on = True
        return await store.read(reference.key, start, length)

    found = await drive(inspect(reference), read)
    if read_on and (await store.head(reference.key)).etag != reference.etag:
        raise ObjectChangedError(f"{reference.address()}: replaced while it was looked at")
    return found


def _age(reference: ObjectRef, stat: ObjectStat) -> tuple[datetime, str, str]:
    """Order objects that hold one instance: which was put first, then by name, never which was announced first."""
    return stat.modified, reference.bucket, reference.key


def _can_be_named(key: str) -> bool:
    """Whether the databases can hold a key, so that the refusal of its object can be written down."""
    return is_text(key) and "\0" not in key and len(key.encode()) <= _LONGEST_NAME
