"""All services in one process: what `voxelmill run`, `demo` and `up` work with."""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy import URL

from voxelmill_cli.errors import (
    EXIT_INPUT_FAILED,
    EXIT_UNREACHABLE,
    NO_ROOM,
    CommandError,
    explain,
)
from voxelmill_index.service import build as build_index
from voxelmill_index.settings import IndexSettings
from voxelmill_ingest.service import build as build_ingest
from voxelmill_ingest.settings import IngestSettings
from voxelmill_mesh.service import build as build_mesh
from voxelmill_mesh.settings import MeshSettings
from voxelmill_segment.service import build as build_segment
from voxelmill_segment.settings import SegmentSettings
from voxelmill_shared.database import open_database
from voxelmill_shared.main import wrong_settings
from voxelmill_shared.parts import Parts, open_parts
from voxelmill_shared.settings import SharedSettings
from voxelmill_shared.storage.connect import open_store
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.worker import Worker
from voxelmill_thumbnail.service import build as build_thumbnail
from voxelmill_thumbnail.settings import ThumbnailSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from voxelmill_shared.service import Service
    from voxelmill_shared.worker import Progressed, Settled, Started

SettingsT = TypeVar("SettingsT", bound=SharedSettings)


@dataclass(frozen=True, slots=True)
class Engine:
    """The running services and what they work on."""

    parts: Parts
    workers: Sequence[asyncio.Task[None]]
    unseen: asyncio.Future[None]
    """Fails with what an observer could not do: a reader of our output that has gone, a full disk under it."""

    def check(self) -> None:
        """Raise what ended a service or kept an observer from telling, if there is anything."""
        if self.unseen.done():
            self.unseen.result()
        for worker in self.workers:
            if worker.done():
                worker.result()

    async def until(self, stop: asyncio.Event) -> None:
        """Wait until `stop` is set; raise what ended a service, if one ends before."""
        stopping = asyncio.create_task(stop.wait())
        anything: list[asyncio.Future[Any]] = [stopping, self.unseen, *self.workers]
        try:
            await asyncio.wait(anything, return_when=asyncio.FIRST_COMPLETED)
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
        handle = (state / "lock").open("a+b", buffering=0)  # a write that fails must not be tried again by close()
    except OSError as error:
        if error.errno in NO_ROOM:
            raise CommandError(explain(error, state), EXIT_INPUT_FAILED) from None
        raise CommandError(f"{state}: {error.strerror}; choose a folder that this user can write") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            owner = handle.read().decode(errors="replace").strip() or "unknown"
            raise CommandError(
                f"{state}: in use by another voxelmill process (pid {owner}); wait for it or choose another folder",
                EXIT_UNREACHABLE,
            ) from None
        try:
            handle.truncate(0)
            handle.write(f"{os.getpid()}\n".encode())
        except OSError as error:
            raise CommandError(explain(error, state), EXIT_INPUT_FAILED) from None
        yield


BUILDERS: Sequence[tuple[Callable[..., Service], type[Any]]] = (
    (build_ingest, IngestSettings),
    (build_thumbnail, ThumbnailSettings),
    (build_segment, SegmentSettings),
    (build_mesh, MeshSettings),
    (build_index, IndexSettings),
)


HURRIED_GRACE_SECONDS = 2.0
"""How long work in hand may take to end when someone has interrupted the command; the next start does it again."""


def read_settings(settings_type: type[SettingsT], values: Mapping[str, Any]) -> SettingsT:
    """Read settings from the environment, `values` over them.

    Raises
    ------
    CommandError
        If one is wrong: the line names its variable.
    """
    try:
        return settings_type(**values)
    except (ValidationError, SettingsError) as error:
        raise CommandError(f"{wrong_settings(error)[0]}; set it right and start again") from None


def check_addresses(settings: SharedSettings) -> None:
    """Look at how the addresses are written; nothing is contacted.

    Raises
    ------
    CommandError
        If one is of no known kind: the line names its variable.
    """
    openers: Sequence[tuple[str, Callable[[str], object]]] = (
        ("broker_url", open_transport),
        ("inbox_url", open_store),
        ("work_url", open_store),
        ("results_url", open_store),
        ("database_url", open_database),
    )
    for name, opener in openers:
        try:
            opener(getattr(settings, name))
        except ValueError as error:
            raise CommandError(f"VOXELMILL_{name.upper()}: {error}") from None


@asynccontextmanager
async def open_engine(
    settings: Mapping[str, Any],
    *,
    observers: Sequence[Callable[[Started | Progressed | Settled], None]] = (),
    patient: bool = True,
) -> AsyncIterator[Engine]:
    """Start every service, and drain them at the end.

    Parameters
    ----------
    settings
        Field values that go over those of the environment, for every service's settings.
    observers
        Told of every message that is taken and settled, and how far the work on it is.
    patient
        Whether messages wait for a stopped dependency as long as it takes (see `Worker`), and the end for work in
        hand. If not, someone waits for the answer.

    Raises
    ------
    CommandError
        If a setting of the environment is wrong.
    """
    # Here work is at hand, or soon: children start while the first objects are looked at.
    settings = {"children_at_start": True, **settings}
    read = [read_settings(settings_type, settings) for _, settings_type in BUILDERS]
    check_addresses(read[0])
    stop = asyncio.Event()
    unseen: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def observe(what: Started | Progressed | Settled) -> None:
        for observer in observers:
            try:
                observer(what)
            except OSError as error:  # a worker's observer must not raise: its message would never be settled
                if not unseen.done():
                    unseen.set_exception(error)
                    unseen.exception()  # looked at: no one may be left to ask

    async with open_parts(read[0]) as parts:
        workers: list[Worker] = []
        for (build, _), own in zip(BUILDERS, read, strict=True):
            grace = own.grace_seconds if patient else min(own.grace_seconds, HURRIED_GRACE_SECONDS)
            workers.append(
                Worker(
                    build(parts, own),
                    parts.transport,
                    ladder=own.waits(),
                    grace=timedelta(seconds=grace),
                    observers=[observe],
                    patient=patient,
                    progress_seconds=own.progress_seconds,
                )
            )
        tasks = [asyncio.create_task(worker.run(stop)) for worker in workers]
        engine = Engine(parts, tasks, unseen)
        ready = asyncio.ensure_future(asyncio.gather(*(worker.consuming.wait() for worker in workers)))
        try:
            anything: list[asyncio.Future[Any]] = [ready, *tasks]
            await asyncio.wait(anything, return_when=asyncio.FIRST_COMPLETED)
            engine.check()
            yield engine
        finally:
            ready.cancel()
            stop.set()
            await asyncio.gather(*tasks, return_exceptions=True)
        engine.check()
