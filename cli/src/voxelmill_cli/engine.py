"""All services in one process: what `voxelmill run`, `demo` and `up` work with."""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import URL

from voxelmill_cli.errors import EXIT_UNREACHABLE, CommandError
from voxelmill_index.service import build as build_index
from voxelmill_index.settings import IndexSettings
from voxelmill_ingest.service import build as build_ingest
from voxelmill_ingest.settings import IngestSettings
from voxelmill_mesh.service import build as build_mesh
from voxelmill_mesh.settings import MeshSettings
from voxelmill_segment.service import build as build_segment
from voxelmill_segment.settings import SegmentSettings
from voxelmill_shared.parts import Parts, open_parts
from voxelmill_shared.worker import Worker
from voxelmill_thumbnail.service import build as build_thumbnail
from voxelmill_thumbnail.settings import ThumbnailSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from voxelmill_shared.service import Service
    from voxelmill_shared.worker import Settled, Started


@dataclass(frozen=True, slots=True)
class Engine:
    """The running services and what they work on."""

    parts: Parts
    workers: Sequence[asyncio.Task[None]]

    def check(self) -> None:
        """Raise what ended a service, if one has ended."""
        for worker in self.workers:
            if worker.done():
                worker.result()

    async def until(self, stop: asyncio.Event) -> None:
        """Wait until `stop` is set; raise what ended a service, if one ends before."""
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopping, *self.workers], return_when=asyncio.FIRST_COMPLETED)
            self.check()
        finally:
            stopping.cancel()


def sqlite_url(path: Path) -> str:
    """Write the address of a SQLite file; whatever its path holds (`?`, `#`, `%`) is part of the path."""
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def state_settings(state: Path) -> dict[str, Any]:
    """Give the settings that put everything but the inbox under one folder; the environment overrides none of them."""
    return {
        "broker_url": f"embedded://{quote(str(state / 'broker.db'))}",
        "work_url": str(state / "work"),
        "results_url": str(state / "results"),
        "database_url": sqlite_url(state / "voxelmill.db"),
        "scratch": state / "scratch",
    }


@contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Hold the folder for this process.

    Raises
    ------
    CommandError
        If another process holds it, or it cannot be written.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        handle = (state / "lock").open("a+")
    except OSError as error:
        raise CommandError(f"{state}: {error.strerror}; choose a folder that this user can write") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            owner = handle.read().strip() or "unknown"
            raise CommandError(
                f"{state}: in use by another voxelmill process (pid {owner}); wait for it or choose another folder",
                EXIT_UNREACHABLE,
            ) from None
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield


BUILDERS: Sequence[tuple[Callable[..., Service], type[Any]]] = (
    (build_ingest, IngestSettings),
    (build_thumbnail, ThumbnailSettings),
    (build_segment, SegmentSettings),
    (build_mesh, MeshSettings),
    (build_index, IndexSettings),
)


@asynccontextmanager
async def open_engine(
    settings: Mapping[str, Any],
    *,
    observers: Sequence[Callable[[Started | Settled], None]] = (),
) -> AsyncIterator[Engine]:
    """Start every service, and drain them at the end.

    Parameters
    ----------
    settings
        Field values that go over those of the environment, for every service's settings.
    observers
        Told of every message that is taken and settled.
    """
    shared = IngestSettings(**settings)
    stop = asyncio.Event()
    async with open_parts(shared) as parts:
        workers: list[Worker] = []
        for build, settings_type in BUILDERS:
            own = settings_type(**settings)
            workers.append(
                Worker(
                    build(parts, own),
                    parts.transport,
                    ladder=own.waits(),
                    grace=timedelta(seconds=own.grace_seconds),
                    observers=observers,
                )
            )
        tasks = [asyncio.create_task(worker.run(stop)) for worker in workers]
        engine = Engine(parts, tasks)
        try:
            ready = asyncio.ensure_future(asyncio.gather(*(worker.consuming.wait() for worker in workers)))
            anything: list[asyncio.Future[Any]] = [ready, *tasks]
            await asyncio.wait(anything, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            engine.check()
            yield engine
        finally:
            stop.set()
            await asyncio.gather(*tasks, return_exceptions=True)
        engine.check()
