"""What the tests of ingest share: ingest's own parts on a real database and real stores, with a clock to turn."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import delete, select

from voxelmill_ingest.archive import TARGET, Unpacker
from voxelmill_ingest.assembler import Assembler
from voxelmill_ingest.assembly import Patience
from voxelmill_ingest.handler import CompleteUpload, IngestObject
from voxelmill_ingest.ledger import Ledger
from voxelmill_ingest.service import MIGRATIONS, VERSION_TABLE
from voxelmill_ingest.tables import objects, outbox
from voxelmill_ingest.unpack import Bounds
from voxelmill_shared.child import Child, Limits
from voxelmill_shared.database import open_database, reading, transaction
from voxelmill_shared.events import Envelope, Event, ObjectRef, ObjectUploaded, UploadCompleted, open_envelope
from voxelmill_shared.migrations import upgrade
from voxelmill_shared.outbox import OutboxRelay
from voxelmill_shared.outcome import Done
from voxelmill_shared.parts import Scratch
from voxelmill_shared.plan import Plan
from voxelmill_shared.results import SeriesManifest
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.stores import Stores
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import TOPOLOGY

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from voxelmill_shared.events import SeriesValidated

EventT = TypeVar("EventT", bound=Event)
CHEST = "ct_chest_lidc0314_2mm_j2k"
ABDOMEN = "totalseg_ct_dicom_20"
PATIENCE = Patience()


@dataclass
class Clock:
    """Time that passes when a test says so."""

    time: datetime = field(default_factory=lambda: datetime(2030, 1, 1, tzinfo=UTC))

    def __call__(self) -> datetime:
        """The present."""
        return self.time

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.time += timedelta(seconds=seconds)


class Ingest:
    """One replica of ingest. Replicas of one installation share folder, database and clock."""

    def __init__(
        self, folder: Path, database: str, clock: Clock, *, bounds: Bounds | None = None, plan: Plan | None = None
    ) -> None:
        self.folder = folder
        self.database = database
        self.clock = clock
        self.stores = Stores(*(LocalStore(folder / name, name) for name in ("inbox", "work", "results")))
        self.engine = open_database(database)
        self.transport = open_transport(f"embedded:{folder}/broker.db")
        self.child = Child(TARGET, Limits(2 << 30, 60))
        self.relay = OutboxRelay(self.engine, outbox, self.transport)
        self.ledger = Ledger(self.engine, "test", PATIENCE, clock)
        self.assembler = Assembler(
            self.ledger, self.stores.results, self.relay, plan or Plan(), owner=secrets.token_hex(4)
        )
        unpacker = Unpacker(self.stores, Scratch(folder / "scratch"), self.child, bounds or Bounds())
        self.ingest_object = IngestObject(self.stores, self.ledger, unpacker, self.relay, self.assembler)
        self.complete = CompleteUpload(self.ledger, self.assembler)

    async def open(self) -> Ingest:
        """Bring the tables up to date."""
        await upgrade(self.database, package=MIGRATIONS, version_table=VERSION_TABLE)
        await self.transport.declare(TOPOLOGY)
        return self

    async def close(self) -> None:
        """Let go of everything."""
        await self.child.close()
        await self.transport.close()
        await self.engine.dispose()
        for store in (self.stores.inbox, self.stores.work, self.stores.results):
            await store.close()

    async def put(self, key: str, body: bytes) -> ObjectRef:
        """Put an object into the inbox."""
        stored = await self.stores.inbox.write(key, body)
        return ObjectRef(bucket="inbox", key=key, etag=stored.etag, size=stored.size)

    async def handle(self, event: Event) -> list[Event]:
        """Handle one event and return what was published; the members of archives are handled too."""
        handler: Any = self.ingest_object if isinstance(event, ObjectUploaded) else self.complete
        assert await handler(event) == Done()
        published = await self.published()
        for one in [one for one in published if isinstance(one, ObjectUploaded | UploadCompleted)]:
            published += await self.handle(one)
        return published

    async def upload(self, files: dict[str, bytes], upload_id: str | None = None) -> list[Event]:
        """Put and announce objects; say that the upload is complete if it has an id."""
        published: list[Event] = []
        for key, body in files.items():
            reference = await self.put(key, body)
            published += await self.handle(ObjectUploaded(object=reference, found_by="command", upload_id=upload_id))
        if upload_id is not None:
            published += await self.handle(UploadCompleted(upload_id=upload_id, objects=len(files)))
        return published

    async def completed(self) -> list[SeriesValidated]:
        """Let the timers ring; return the series that were published."""
        await self.assembler.complete_due()
        return await self.published()  # type: ignore[return-value] # the assembler publishes nothing else

    async def published(self) -> list[Event]:
        """Take the events out of the outbox."""
        async with transaction(self.engine) as connection:
            rows = (await connection.execute(select(outbox).order_by(outbox.c.id))).all()
            await connection.execute(delete(outbox))
        return [open_envelope(Envelope.decode(row.body)) for row in rows]

    async def statuses(self) -> dict[str, str]:
        """Return the status of every object in the ledger by key."""
        async with reading(self.engine) as connection:
            rows = await connection.execute(select(objects.c.key, objects.c.status))
            return {row.key: row.status for row in rows}

    async def manifest(self, event: SeriesValidated) -> SeriesManifest:
        """Read the manifest that an event names."""
        return SeriesManifest.model_validate_json(await self.stores.results.read(event.manifest.key))


def of(kind: type[EventT], events: Iterable[Event]) -> list[EventT]:
    """Return the events of one type."""
    return [event for event in events if isinstance(event, kind)]


def files_of(folder: Path, count: int | None = None) -> dict[str, bytes]:
    """Read the first files of a folder, by name."""
    return {f"{folder.name}/{path.name}": path.read_bytes() for path in sorted(folder.iterdir())[:count]}


def altered(body: bytes) -> bytes:
    """Return the same instance with other pixels: the last byte is changed."""
    return body[:-1] + bytes([body[-1] ^ 1])
