"""`voxelmill run`: a source through every service, event by event, and the results laid out for a person."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from voxelmill_cli.engine import only_one, open_engine, state_settings
from voxelmill_cli.errors import EXIT_DONE, EXIT_INPUT_FAILED, CommandError
from voxelmill_cli.export import Exported, export, folder_names, one_at_a_time, own_folder
from voxelmill_cli.progress import Tracker
from voxelmill_cli.quiet import wait_until_quiet
from voxelmill_cli.sources import STATE_FOLDER, dataset_name, is_s3, open_source
from voxelmill_ingest.archive import content_digest, member_name
from voxelmill_shared import metrics
from voxelmill_shared.concurrency import each
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
from voxelmill_shared.storage.connect import open_store
from voxelmill_shared.storage.keys import is_text, printable
from voxelmill_shared.transport.base import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxelmill_cli.engine import Engine
    from voxelmill_cli.progress import Display
    from voxelmill_cli.sources import Source
    from voxelmill_shared.events import Event
    from voxelmill_shared.plan import Plan

RUN_LADDER = (1.0, 5.0)
"""Someone is waiting at a terminal: what fails for seconds is tried again, what fails for longer is listed."""

UPLOADS = 16
SOURCE_NAME = "voxelmill/run"


@dataclass(slots=True)
class RunSummary:
    """What a run came to."""

    destination: str
    data: Path
    exported: list[Exported] = field(default_factory=list)
    rejected: list[ObjectRejected] = field(default_factory=list)
    skipped: list[ObjectRejected] = field(default_factory=list)
    failed: list[StageFailed] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
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
    local, base = _places(request)
    source = open_source(request.source, base)
    state = base / STATE_FOLDER / state_name(source)
    tracker = Tracker(display)
    try:
        with only_one(state):
            settings = _settings(request, state, source)
            async with open_engine(settings, observers=[tracker], patient=False) as engine:
                unnamed: list[str] = []
                keys = await _hand_in(engine, source, tracker, unnamed)
                await wait_until_quiet(engine, tracker)
                summary = await _summarise(engine, request, tracker, base, source)
                summary.unnamed = unnamed
                summary.objects = len(keys) + len(unnamed)
            if local is None:
                await _send(summary, base, request)
            if request.cleanup_input and summary.exit_code == EXIT_DONE:
                await _delete_input(source, tracker)
    finally:
        await source.store.close()
    summary.seconds = time.monotonic() - started
    return summary


def _places(request: RunRequest) -> tuple[Path | None, Path]:
    """Return the destination if it is a folder, and the folder to work in."""
    if not request.destination.strip():
        raise CommandError("the output is empty; name a folder, or s3://bucket/prefix")
    if is_s3(request.destination):
        digest = hashlib.sha256(f"{request.source}\n{request.destination}".encode("utf-8", "surrogateescape"))
        return None, Path.cwd() / f".voxelmill-run-{digest.hexdigest()[:12]}"
    local = Path(request.destination.removeprefix("file://")).resolve()
    if not is_s3(request.source) and local == Path(request.source.removeprefix("file://")).resolve():
        raise CommandError(f"{request.destination}: is the source itself; choose another folder for the results")
    return local, local


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
        "formats": plan.formats,
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


async def _summarise(engine: Engine, request: RunRequest, tracker: Tracker, base: Path, source: Source) -> RunSummary:
    summary = RunSummary(destination=request.destination, data=base)
    for rejected in _as_people_know_them(tracker, source):
        (summary.rejected if rejected.severity is Severity.REJECT else summary.skipped).append(rejected)
    taken = _datasets(tracker, source)
    results = engine.parts.stores.results
    keys = {uid: ResultKeys.of(tracker.jobs[uid]) for uid in taken if uid in tracker.jobs}
    done = {uid: job for uid, job in keys.items() if await results.exists(job.receipt)}
    folders = folder_names({uid: taken[uid] for uid in done}, request.plan.organ)
    with one_at_a_time(base / STATE_FOLDER):
        for uid, job in sorted(done.items(), key=lambda pair: folders[pair[0]]):
            folder = own_folder(base / folders[uid], uid)
            summary.exported.append(await export(results, job, request.plan.organ, folder))
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


async def _send(summary: RunSummary, base: Path, request: RunRequest) -> None:
    """Put the exported folders into the bucket; remove the local ones unless they are to be kept."""
    store = open_store(request.destination, bucket="destination")
    try:
        for exported in summary.exported:
            files = [path for path in sorted(exported.folder.rglob("*")) if path.is_file()]
            media_types = {artefact.name: artefact.media_type for artefact in exported.receipt.artefacts}

            async def put(path: Path, folder: Path = exported.folder, known: dict[str, str] = media_types) -> None:
                name = path.relative_to(folder).as_posix()
                key = f"{folder.relative_to(base).as_posix()}/{name}"
                await store.write_file(key, path, known.get(name, "application/json"))

            await each(put, files, UPLOADS)
    finally:
        await store.close()
    if summary.exit_code == EXIT_DONE and not request.keep_local:
        await asyncio.to_thread(
            shutil.rmtree, base
        )  # made by this run alone; what failed keeps it, to go on from there


async def _delete_input(source: Source, tracker: Tracker) -> None:
    """Delete what was worked on, and nothing that was skipped or that has been replaced meanwhile."""

    async def delete(reference: ObjectRef) -> None:
        if await source.store.exists(reference.key) and (await source.store.head(reference.key)).etag == reference.etag:
            await source.delete(reference.key)

    taken = [event.object for event in tracker.validated.values() if event.object.bucket == source.store.bucket]
    await each(delete, taken, UPLOADS)
