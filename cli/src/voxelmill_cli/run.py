"""`voxelmill run`: a source through every service, event by event, and the results laid out for a person."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from voxelmill_cli.engine import only_one, open_engine, state_settings
from voxelmill_cli.errors import EXIT_DONE, EXIT_INPUT_FAILED, EXIT_UNREACHABLE, CommandError
from voxelmill_cli.export import Exported, export, folder_names, one_at_a_time, own_folder
from voxelmill_cli.model import weights_folder
from voxelmill_cli.progress import Tracker
from voxelmill_cli.quiet import wait_until_quiet
from voxelmill_cli.send import Sender, check_folder
from voxelmill_cli.sources import STATE_FOLDER, dataset_name, open_source
from voxelmill_cli.storage.places import BucketAddress, open_bucket, parse_address, reach
from voxelmill_ingest.archive import content_digest, member_name
from voxelmill_shared import metrics
from voxelmill_shared.concurrency import each
from voxelmill_shared.errors import TransientError
from voxelmill_shared.events import (
    Envelope,
    ObjectKind,
    ObjectRef,
    ObjectRejected,
    ObjectUploaded,
    Severity,
    StageFailed,
    UploadCompleted,
)
from voxelmill_shared.results import ResultKeys
from voxelmill_shared.storage.keys import is_text, printable
from voxelmill_shared.transport.base import Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from voxelmill_cli.engine import Engine
    from voxelmill_cli.progress import Display
    from voxelmill_cli.sources import Source
    from voxelmill_shared.events import Event
    from voxelmill_shared.plan import Plan

RUN_LADDER = (1.0, 5.0)
"""Someone is waiting at a terminal: what fails for seconds is tried again, what fails for longer is listed."""

DELETIONS = 16
SOURCE_NAME = "voxelmill/run"


@dataclass(slots=True)
class RunSummary:
    """What a run came to."""

    destination: str
    data: Path
    state: Path
    """The folder of the run's own broker, catalog and results, somewhere below `data`."""
    exported: list[Exported] = field(default_factory=list)
    rejected: list[ObjectRejected] = field(default_factory=list)
    skipped: list[ObjectRejected] = field(default_factory=list)
    failed: list[StageFailed] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    kept: Path | None = None
    """Where the local copy stands of what was sent into a bucket, if it still does."""
    objects: int = 0
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 if all is done; 1 if some input failed, or if there was nothing to do."""
        return (
            EXIT_INPUT_FAILED
            if self.rejected or self.failed or self.lost or self.unnamed or not self.exported
            else EXIT_DONE
        )


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the user asked for."""

    source: str
    destination: str
    plan: Plan
    keep_local: bool = False
    cleanup_input: bool = False


async def publish(engine: Engine, events: Sequence[Event]) -> None:
    """Publish events from the command, with confirms."""
    envelopes = [Envelope.wrap(event, SOURCE_NAME) for event in events]
    await engine.parts.transport.publish(
        [Message(envelope.encode(), envelope.routing_key, str(envelope.id)) for envelope in envelopes]
    )
    for envelope in envelopes:
        metrics.PUBLISHED.labels("cli", envelope.routing_key).inc()


async def run(request: RunRequest, display: Display) -> RunSummary:
    """Do it.

    Raises
    ------
    CommandError
        If the source or the destination cannot be used, or another process works there.
    """
    started = time.monotonic()
    places = find_places(request)
    source = await open_source(request.source, places.base)
    state = places.base / STATE_FOLDER / state_name(source)
    tracker = Tracker(display)
    try:
        async with _destination(places) as sender:  # looked at before the work, for later it would be in vain
            with only_one(state):
                settings = _settings(request, state, source)
                async with open_engine(settings, observers=[tracker], patient=False) as engine:
                    unnamed: list[str] = []
                    keys = await _hand_in(engine, source, tracker, unnamed)
                    await wait_until_quiet(engine, tracker)
                    summary = await _summarise(engine, request, tracker, state, places.base, source)
                    summary.unnamed = unnamed
                    summary.objects = len(keys) + len(unnamed)
                if sender is not None:
                    await _send(summary, sender, display)
                if request.cleanup_input and summary.exit_code == EXIT_DONE:
                    await _check(summary, sender)
                    await _delete_input(source, tracker)
                if sender is not None:
                    await _keep_or_remove(summary, request)
    finally:
        await source.store.close()
    summary.seconds = time.monotonic() - started
    return summary


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run works: in `base`, which is the destination unless that is a bucket."""

    base: Path
    bucket: BucketAddress | None = None


def find_places(request: RunRequest) -> Places:
    """Look at how source and destination are written; nothing is contacted or made.

    Raises
    ------
    CommandError
        If an address is written wrong, or one of the two lies in the other one.
    """
    if not request.source.strip():
        raise CommandError("the source is empty; name a folder, a file, or s3://bucket/prefix")
    if not request.destination.strip():
        raise CommandError("the output is empty; name a folder, or s3://bucket/prefix")
    source, destination = parse_address(request.source), parse_address(request.destination)
    if isinstance(destination, BucketAddress):
        if isinstance(source, BucketAddress) and source.overlaps(destination):
            raise CommandError(
                f"{request.destination}: overlaps the source {request.source}; choose another bucket or prefix, "
                "so that no result is taken for input"
            )
        digest = hashlib.sha256(f"{request.source}\n{request.destination}".encode("utf-8", "surrogateescape"))
        return Places(Path.cwd() / f".voxelmill-run-{digest.hexdigest()[:12]}", destination)
    destination = destination.resolve()
    if not isinstance(source, BucketAddress) and destination == source.resolve():
        raise CommandError(f"{request.destination}: is the source itself; choose another folder for the results")
    return Places(destination)


@asynccontextmanager
async def _destination(places: Places) -> AsyncIterator[Sender | None]:
    if places.bucket is None:
        yield None
        return
    store = open_bucket(places.bucket.url)
    try:
        await reach(store)
        yield Sender(store, places.bucket)
    finally:
        await store.close()


def state_name(source: Source) -> str:
    """Name the folder of a source's broker, ledger and results: two sources with equal file names share nothing."""
    digest = hashlib.sha256(f"{source.url}\n{source.only or ''}".encode("utf-8", "surrogateescape")).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', source.name)[:40]}-{digest[:8]}"


def _settings(request: RunRequest, state: Path, source: Source) -> dict[str, Any]:
    plan = request.plan
    return {
        **state_settings(state),
        "inbox_url": source.url,
        "ladder": RUN_LADDER,
        "model": plan.model,
        "organ": plan.organ,
        "quality": plan.quality,
        "reduction_percent": plan.reduction_percent,
        "max_error_mm": plan.max_error_mm,
        "formats": plan.formats,
        "task": plan.task,
        "resolution": plan.resolution,
        "weights_digest": plan.weights_digest,
        "weights": weights_folder().path,
    }


async def _hand_in(engine: Engine, source: Source, tracker: Tracker, unnamed: list[str]) -> list[str]:
    """Announce every object of the source as one upload, which is evidence that its series are complete.

    `unnamed` is given the objects whose names are no UTF-8: no event can name them.
    """
    references = []
    async for stat in source.objects():
        if is_text(stat.key):
            references.append(
                ObjectRef(
                    bucket=source.store.bucket, key=stat.key, etag=stat.etag, size=stat.size, version_id=stat.version_id
                )
            )
        else:
            unnamed.append(printable(stat.key))
    if not references and not unnamed:
        raise CommandError(f"{source.name}: holds no files; give a folder, file, archive or prefix with images")
    tracker.announce(len(references))
    listing = "\n".join(sorted(f"{reference.key} {reference.content()}" for reference in references))
    upload = "run-" + hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    await publish(
        engine,
        [ObjectUploaded(object=reference, found_by="command", upload_id=upload) for reference in references]
        + [UploadCompleted(upload_id=upload, objects=len(references))],
    )
    return [reference.key for reference in references]


async def _summarise(
    engine: Engine, request: RunRequest, tracker: Tracker, state: Path, base: Path, source: Source
) -> RunSummary:
    summary = RunSummary(destination=request.destination, data=base, state=state)
    for rejected in _as_people_know_them(tracker, source):
        (summary.rejected if rejected.severity is Severity.REJECT else summary.skipped).append(rejected)
    taken = _datasets(tracker, source)
    results = engine.parts.stores.results
    keys = {uid: ResultKeys.of(tracker.jobs[uid]) for uid in taken if uid in tracker.jobs}
    done = {uid: job for uid, job in keys.items() if await results.exists(job.receipt)}
    folders = folder_names({uid: taken[uid] for uid in done}, request.plan.subject)
    with one_at_a_time(base / STATE_FOLDER):
        for uid, job in sorted(done.items(), key=lambda pair: folders[pair[0]]):
            folder = own_folder(base / folders[uid], uid)
            summary.exported.append(await export(results, job, request.plan.subject, folder))
    summary.failed = list(tracker.failed)
    summary.lost = sorted(set(taken) - set(done))
    return summary


def _as_people_know_them(tracker: Tracker, source: Source) -> list[ObjectRejected]:
    """Give what was not taken, sorted, the members of archives as `archive!member`."""
    archives = {
        content_digest(event.object): event.object.key
        for event in tracker.validated.values()
        if event.kind is ObjectKind.ARCHIVE
    }
    named = []
    for event in tracker.rejected.values():
        reference = event.object
        if reference.bucket != source.store.bucket:
            reference = reference.model_copy(update={"key": member_name(reference.key, archives)})
        named.append(event.model_copy(update={"object": reference}))
    return sorted(named, key=lambda event: event.object.key)


def _datasets(tracker: Tracker, source: Source) -> dict[str, str]:
    """Name each series' data set: the folder that its first object lies in, or the file's name."""
    names: dict[str, str] = {}
    for address in sorted(tracker.validated):
        event = tracker.validated[address]
        if event.kind is ObjectKind.ARCHIVE or event.series_instance_uid in names:
            continue
        path = PurePosixPath(event.object.key)
        if event.kind is ObjectKind.NIFTI:
            name = dataset_name(path.name)
        elif event.object.bucket != source.store.bucket or path.parent.name == "":
            name = source.name  # out of an archive, or directly in the source
        else:
            name = path.parent.name
        names[event.series_instance_uid] = name
    return names


async def _send(summary: RunSummary, sender: Sender, display: Display) -> None:
    """Put the laid out results into the bucket, one series after the other."""
    summary.kept = summary.data
    for number, exported in enumerate(summary.exported):
        display.line(f"{exported.folder.name}: sending to {sender.address.url}")
        try:
            summary.exported[number] = await sender.send(exported)
        except TransientError as error:
            raise CommandError(
                f"{error}; the results wait in {summary.data}: start the same command again and only the rest is sent",
                EXIT_UNREACHABLE,
            ) from None


async def _check(summary: RunSummary, sender: Sender | None) -> None:
    """Hold the results, where they are to stay, to their digests."""
    for exported in summary.exported:
        await check_folder(exported)
        if sender is not None:
            await sender.check(exported)


async def _keep_or_remove(summary: RunSummary, request: RunRequest) -> None:
    """Remove the local copy, which this run alone has made, last of all; what failed keeps it, to go on from there."""
    if summary.exit_code == EXIT_DONE and not request.keep_local:
        await asyncio.to_thread(shutil.rmtree, summary.data)
        summary.kept = None


async def _delete_input(source: Source, tracker: Tracker) -> None:
    """Delete what was worked on, and nothing that was skipped or that has been replaced meanwhile."""

    async def delete(reference: ObjectRef) -> None:
        if await source.store.exists(reference.key) and (await source.store.head(reference.key)).etag == reference.etag:
            await source.delete(reference.key)

    taken = [event.object for event in tracker.validated.values() if event.object.bucket == source.store.bucket]
    await each(delete, taken, DELETIONS)
