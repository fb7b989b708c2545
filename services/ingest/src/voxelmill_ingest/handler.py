"""From an announced object to its place in the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxelmill_ingest.findings import ArchiveFormat
from voxelmill_ingest.inspection import inspect
from voxelmill_ingest.ledger import ConflictError, ObjectChangedError, Rival
from voxelmill_ingest.ranges import drive
from voxelmill_shared.errors import ObjectMissingError, UnsafeKeyError
from voxelmill_shared.events import ObjectRef
from voxelmill_shared.outcome import Done, Outcome, Reject

if TYPE_CHECKING:
    from voxelmill_ingest.archive import Unpacker
    from voxelmill_ingest.assembler import Assembler
    from voxelmill_ingest.findings import Finding
    from voxelmill_ingest.ledger import Ledger
    from voxelmill_shared.events import Event, ObjectUploaded, UploadCompleted
    from voxelmill_shared.outbox import OutboxRelay
    from voxelmill_shared.storage.base import ObjectStore
    from voxelmill_shared.storage.stores import Stores


_RIVALS = 3
"""How often in one settlement an instance may turn out to be held by yet another object."""


@dataclass(frozen=True, slots=True)
class IngestObject:
    """Look at one announced object, write down what it is, and say so. The announcement is only a hint."""

    stores: Stores
    ledger: Ledger
    unpack: Unpacker
    relay: OutboxRelay
    assembler: Assembler

    async def __call__(self, event: ObjectUploaded) -> Outcome:
        """Settle one object."""
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
            return Reject(str(error), "unsafe-key")
        self.relay.notify()
        if due_now:
            self.assembler.kick()
        return Done()

    async def _settle(self, store: ObjectStore, event: ObjectUploaded) -> bool:
        looked_at = self.ledger.now()
        stat = await store.head(event.object.key)
        reference = ObjectRef(
            bucket=store.bucket, key=stat.key, etag=stat.etag, size=stat.size, version_id=stat.version_id
        )
        found: Finding | ArchiveFormat | None = await self.ledger.known(reference)
        if found is None:
            found = await drive(inspect(reference), lambda start, length: store.read(reference.key, start, length))
        members: list[Event] = []
        if isinstance(found, ArchiveFormat):
            found, members = await self.unpack(reference, found, event.upload_id)
        rival: Rival | None = None
        for _ in range(_RIVALS):
            try:
                return await self.ledger.settle(
                    reference, looked_at, found, event.upload_id, rival=rival, announce=members
                )
            except ConflictError as conflict:
                rival = Rival(conflict.other, stands=await self._stands(conflict.other))
        raise ObjectChangedError(f"{reference.address()}: its instance changed hands {_RIVALS} times")

    async def _stands(self, reference: ObjectRef) -> bool:
        return await self.stores.of(reference).exists(reference.key)


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
