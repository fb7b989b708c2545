"""The service, wired."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import structlog

from voxelmill_ingest.archive import TARGET, Unpacker
from voxelmill_ingest.assembler import Assembler
from voxelmill_ingest.backpressure import Backpressure
from voxelmill_ingest.deidentify.errors import DeidentificationMissingError
from voxelmill_ingest.duties import Duty
from voxelmill_ingest.handler import CompleteUpload, IngestObject
from voxelmill_ingest.ledger import PACE_SECONDS, Ledger
from voxelmill_ingest.reconciler import CountFound, Reconciler
from voxelmill_ingest.requested import RequestJob
from voxelmill_ingest.tables import outbox
from voxelmill_shared.child import Child
from voxelmill_shared.database import check, open_database
from voxelmill_shared.errors import TransientError
from voxelmill_shared.events import Event, JobRequested, ObjectUploaded, Stage, UploadCompleted
from voxelmill_shared.migrations import upgrade
from voxelmill_shared.outbox import OutboxRelay
from voxelmill_shared.service import Handler, Service, Subscription
from voxelmill_shared.transport.topology import INGEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_ingest.deidentify.copies import Deidentifier
    from voxelmill_ingest.settings import IngestSettings
    from voxelmill_shared.parts import Parts

log = structlog.get_logger("voxelmill")

LAST_DRAIN_SECONDS = 5.0
"""How long the end of the service may take to publish what is still in the outbox."""
MIGRATIONS = "voxelmill_ingest.migrations"
VERSION_TABLE = "alembic_version_ingest"


def _now() -> datetime:
    return datetime.now(UTC)


def build(
    parts: Parts,
    settings: IngestSettings,
    now: Callable[[], datetime] = _now,
    *,
    engine: AsyncEngine | None = None,
    pressure: Backpressure | None = None,
) -> Service:
    """Wire ingest.

    Parameters
    ----------
    parts, settings
        What it is made of.
    now
        The clock of its timers.
    engine
        The ledger's database, where there are replicas of this process: what one of them does at a time is then its
        own only as long as it holds the duty. The service disposes of it. None: this process is alone.
    pressure
        What holds back whoever announces objects; None: it is made of the settings.
    """
    replicas = engine is not None
    engine = engine or open_database(parts.database_url, parts.database_limits)
    owner = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
    source = f"voxelmill/ingest/{socket.gethostname()}/{os.getpid()}"
    relay = OutboxRelay(engine, outbox, parts.transport)
    ledger = Ledger(
        engine, source, settings.patience(), now, pace=PACE_SECONDS, enough=max(settings.concurrency // 2, 1)
    )
    assembler = Assembler(
        ledger,
        parts.stores.results,
        relay,
        settings.plan(),
        owner=owner,
        lease=timedelta(seconds=settings.lease_seconds),
    )
    background = [relay.run, assembler.run]
    if settings.reconcile_seconds:
        every = timedelta(seconds=settings.reconcile_seconds)
        reconciler = Reconciler(
            engine,
            parts.stores.inbox,
            parts.transport,
            source,
            every,
            grace=settings.reconcile_grace(),
            duty=Duty(engine, f"reconcile {settings.inbox_url}", owner) if replicas else None,
            pressure=pressure or Backpressure(parts.transport, settings.ingest_queue_limit),
        )
        background.append(reconciler.run)
    child = Child(TARGET, parts.limits)
    deidentify = _deidentifier(parts, settings, engine, now)
    unpacker = Unpacker(parts.stores, parts.scratch, child, settings.bounds(), deidentify)
    handlers: dict[type[Event], Handler] = {
        ObjectUploaded: CountFound(engine, IngestObject(parts.stores, ledger, unpacker, relay, assembler, deidentify)),
        UploadCompleted: CompleteUpload(ledger, assembler),
        JobRequested: RequestJob(ledger, assembler.kick),
    }
    return Service(
        name="ingest",
        stage=Stage.INGEST,
        subscriptions=(Subscription(INGEST, handlers, prefetch=settings.concurrency),),
        background=tuple(background),
        resources=(
            _database(engine, parts.database_url),
            _emptying(relay),
            _ending(child),
            *(() if deidentify is None else (_with_the_key(deidentify), deidentify.children)),
        ),
        checks={
            "database": partial(check, engine),
            "inbox": parts.stores.inbox.check,
            "work": parts.stores.work.check,
            "results": parts.stores.results.check,
            "disk": parts.scratch.check,
        },
    )


def _deidentifier(
    parts: Parts, settings: IngestSettings, engine: AsyncEngine, now: Callable[[], datetime]
) -> Deidentifier | None:
    options = settings.deidentify_options()
    if options is None or settings.ingest_deidentify_key is None:
        return None
    for library in ("cryptography", "pydicom"):
        if find_spec(library) is None:
            raise DeidentificationMissingError(
                f"VOXELMILL_INGEST_DEIDENTIFY: {library} is not installed; pip install 'voxelmill-ingest[deidentify]'"
            )
    from voxelmill_ingest.deidentify.copies import build_deidentifier  # noqa: PLC0415 - an extra, and 15 MB

    key = settings.ingest_deidentify_key.get_secret_value()
    return build_deidentifier(parts, engine, key, settings.ingest_project, options, now)


@asynccontextmanager
async def _with_the_key(deidentify: Deidentifier) -> AsyncIterator[None]:
    """Begin only with the key that the project began with."""
    await deidentify.mapping.check_key()
    yield


@asynccontextmanager
async def _database(engine: AsyncEngine, url: str) -> AsyncIterator[None]:
    await upgrade(url, package=MIGRATIONS, version_table=VERSION_TABLE)
    try:
        yield
    finally:
        await engine.dispose()


@asynccontextmanager
async def _emptying(relay: OutboxRelay) -> AsyncIterator[None]:
    """Publish at the end what the last messages stored. What cannot go out goes out at the next start."""
    try:
        yield
    finally:
        try:
            async with asyncio.timeout(LAST_DRAIN_SECONDS):
                await relay.drain()
        except (TransientError, TimeoutError) as error:
            log.warning("outbox not empty, the rest goes out at the next start", reason=str(error))


@asynccontextmanager
async def _ending(child: Child) -> AsyncIterator[None]:
    """End the child with the service; it starts with the first archive."""
    try:
        yield
    finally:
        await child.close()
