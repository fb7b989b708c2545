"""The segment service on a real broker, with children that a test steps through (`unit.segment.phases`)."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxelmill_segment.service import Targets, build
from voxelmill_segment.settings import SegmentSettings
from voxelmill_shared.child import Limits
from voxelmill_shared.events import DocumentRef, Envelope, Evidence, ObjectKind, ObjectRef, SeriesValidated
from voxelmill_shared.parts import Parts, Scratch
from voxelmill_shared.plan import ModelName, Plan
from voxelmill_shared.results import ManifestInstance, ResultKeys, SeriesManifest
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.stores import Stores
from voxelmill_shared.transport.base import Message
from voxelmill_shared.transport.topology import SEGMENT, TOPOLOGY
from voxelmill_shared.worker import Settled, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from voxelmill_shared.transport.base import Transport

TARGETS = Targets("unit.segment.phases:act", "unit.segment.phases:compute")
TESTS = Path(__file__).parents[1]
SECONDS = 30


class Site:
    """An installation in a folder: its stores, and series that lie in folders in which their phases leave marks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stores = Stores(*(LocalStore(root / name, name) for name in ("inbox", "work", "results")))
        self.scratch = Scratch(root / "scratch")

    def folder(self, name: str) -> Path:
        """The folder of a series."""
        return self.root / "inbox" / name

    def say(self, name: str, word: str) -> None:
        """Tell a series' computation what to do: go, refuse, kill, …; without a word it waits for the file `go`."""
        (self.folder(name) / "word").write_text(word)

    def mark(self, name: str, what: str) -> None:
        """Put a file into a series' folder."""
        (self.folder(name) / what).touch()

    def marks(self, name: str) -> set[str]:
        """What the phases of a series have left."""
        return {path.name for path in self.folder(name).iterdir() if not path.name.startswith(".")}

    def who(self, name: str, what: str) -> dict[str, Any]:
        """Return pid and device of the child that left a mark."""
        document: dict[str, Any] = json.loads((self.folder(name) / what).read_text())
        return document

    async def until(self, name: str, *what: str) -> None:
        """Wait for marks of a series."""
        deadline = time.monotonic() + SECONDS
        while not self.marks(name) >= set(what):
            assert time.monotonic() < deadline, f"{name}: waiting for {what}, seen: {self.marks(name)}"
            await asyncio.sleep(0.005)

    async def series(self, name: str, model: ModelName = ModelName.THRESHOLD) -> SeriesValidated:
        """Lay a series of one instance down, and return what ingest says of it."""
        stored = await self.stores.inbox.write(f"{name}/only.dcm", name.encode(), "application/dicom")
        reference = ObjectRef(bucket="inbox", key=stored.key, etag=stored.etag, size=stored.size)
        keys = ResultKeys(f"2.25.{sum(name.encode())}", 1, f"job-{name}")
        manifest = SeriesManifest(
            study_instance_uid="2.25.1",
            series_instance_uid=keys.series_instance_uid,
            revision=1,
            job_id=keys.job_id,
            modality="CT",
            kind=ObjectKind.DICOM,
            plan=Plan(model=model),
            instances=(ManifestInstance(object=reference, sop_instance_uid="2.25.3"),),
        )
        document = await self.stores.results.write(keys.manifest, manifest.to_json(), "application/json")
        return SeriesValidated(
            study_instance_uid=manifest.study_instance_uid,
            series_instance_uid=manifest.series_instance_uid,
            revision=1,
            job_id=keys.job_id,
            modality="CT",
            instances=1,
            manifest=DocumentRef(key=document.key, sha256=document.sha256),
            plan=manifest.plan,
            evidence=Evidence.UPLOAD,
        )


async def announce(transport: Transport, *events: SeriesValidated) -> None:
    """Publish what ingest says."""
    await transport.declare(TOPOLOGY)
    for event in events:  # one after the other: in this order they are taken
        envelope = Envelope.wrap(event, "test")
        await transport.publish([Message(envelope.encode(), envelope.routing_key, str(envelope.id))])


class Ends:
    """An observer that waits for settlements: (job, outcome) in their order, and the reasons."""

    def __init__(self) -> None:
        self.settled: list[tuple[str, str]] = []
        self.reasons: list[str] = []

    def __call__(self, what: object) -> None:
        if isinstance(what, Settled):
            self.settled.append((getattr(what.event, "job_id", ""), what.outcome))
            self.reasons.append(what.reason)

    async def until(self, number: int) -> list[tuple[str, str]]:
        """Return the settlements when there are so many."""
        deadline = time.monotonic() + SECONDS
        while len(self.settled) < number:
            assert time.monotonic() < deadline, self.settled
            await asyncio.sleep(0.005)
        return self.settled


@asynccontextmanager
async def segmenting(
    site: Site, transport: Transport, *, limits: Limits | None = None, **settings: Any
) -> AsyncIterator[Ends]:
    """Run the service in this process; its children play the phases."""
    parts = Parts(transport, site.stores, "", site.scratch, limits or Limits(4 << 30, 60))
    ends, stop = Ends(), asyncio.Event()
    service = build(parts, SegmentSettings(**settings), TARGETS)
    worker = Worker(
        service,
        transport,
        ladder=(timedelta(milliseconds=50), timedelta(milliseconds=50)),
        grace=timedelta(seconds=5),
        observers=[ends],
    )
    running = asyncio.create_task(worker.run(stop))
    ready = asyncio.create_task(worker.consuming.wait())
    await asyncio.wait([ready, running], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield ends
    finally:
        ready.cancel()
        stop.set()
        await running


async def waiting(transport: Transport) -> int:
    """How many series wait for a consumer."""
    return next(count.ready for count in await transport.counts() if count.queue == SEGMENT.name)
