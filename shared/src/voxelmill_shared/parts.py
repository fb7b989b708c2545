"""The adapters that a service is built from, opened from settings in one place."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxelmill_shared.child import Limits
from voxelmill_shared.database_limits import DEFAULT_LIMITS, DatabaseLimits
from voxelmill_shared.errors import DiskFullError
from voxelmill_shared.storage.cache import DownloadCache
from voxelmill_shared.storage.connect import open_store
from voxelmill_shared.storage.stores import Stores
from voxelmill_shared.transport.connect import open_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from voxelmill_shared.settings import SharedSettings
    from voxelmill_shared.storage.base import ObjectStore
    from voxelmill_shared.transport.base import Transport


_HELD: set[str] = set()
"""The names of the scratch folders that this process works in. The number in them does not tell: in a container that is
started again, the process has the number that the one before it had."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """Folders for work in progress on the local disk. Each carries the process id of its owner in its name.

    No work begins where less than `free_bytes` are free: it would end in the middle, and its inputs would be fetched
    for nothing.
    """

    root: Path
    free_bytes: int = 0

    @contextmanager
    def folder(self, purpose: str) -> Iterator[Path]:
        """Give a fresh folder and remove it with all that is in it at the end.

        Raises
        ------
        DiskFullError
            If too little of the disk is free for work to begin.
        """
        self.measure()
        with self.hold(self.fresh(purpose)) as folder:
            yield folder

    def measure(self) -> None:
        """Return if enough of the disk is free.

        Raises
        ------
        DiskFullError
            If not; the reason says how much.
        """
        if not self.free_bytes:
            return
        place = self.root
        while not place.is_dir() and place != place.parent:  # made when it is first needed
            place = place.parent
        free = shutil.disk_usage(place).free
        if free < self.free_bytes:
            raise DiskFullError(
                f"{self.root}: {free >> 20} MiB are free, and work begins with {self.free_bytes >> 20} MiB"
                " (VOXELMILL_SCRATCH_FREE_MIB)"
            )

    async def check(self) -> None:
        """Return if enough of the disk is free for work to begin; for `/readyz`.

        Raises
        ------
        DiskFullError
            If not.
        """
        self.measure()

    def fresh(self, purpose: str) -> Path:
        """Name a folder that nobody has had, for `hold` to make: whoever must tell others of it before it is there."""
        return self.root / f"{purpose}-{os.getpid()}-{secrets.token_hex(8)}"

    @contextmanager
    def hold(self, folder: Path) -> Iterator[Path]:
        """Make a folder that `fresh` has named, for this user alone, and remove it and what is in it at the end."""
        self.root.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        _HELD.add(folder.name)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _HELD.discard(folder.name)

    def sweep(self) -> None:
        """Remove what killed processes left behind."""
        if not self.root.is_dir():
            return
        for folder in self.root.iterdir():
            pid = folder.name.split("-")[1:2]
            if pid and pid[0].isdigit() and folder.name not in _HELD and not _another_lives(int(pid[0])):
                shutil.rmtree(folder, ignore_errors=True)


def _another_lives(pid: int) -> bool:
    if pid == os.getpid():
        return False
    with suppress(ProcessLookupError):
        try:
            os.kill(pid, 0)
        except PermissionError:
            return True
        return True
    return False


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that `build` of a service may use."""

    transport: Transport
    stores: Stores
    database_url: str
    scratch: Scratch
    limits: Limits
    children_at_start: bool = False
    database_limits: DatabaseLimits = DEFAULT_LIMITS

    @property
    def work_dir(self) -> Path:
        """The root of the scratch folders."""
        return self.scratch.root


@asynccontextmanager
async def open_parts(settings: SharedSettings) -> AsyncIterator[Parts]:
    """Open transport and stores, and close them at the end. Nothing is contacted yet."""
    transport = open_transport(settings.broker_url)
    cache = DownloadCache(settings.cache_folder(), settings.cache_bytes) if settings.cache_bytes else None

    def opened(url: str, name: str) -> ObjectStore:
        return open_store(url, bucket=name, connections=settings.store_connections, cache=cache)

    stores = Stores(
        inbox=opened(settings.inbox_url, "inbox"),
        work=opened(settings.work_url, "work"),
        results=opened(settings.results_url, "results"),
    )
    scratch = Scratch(settings.scratch, settings.scratch_free_mib << 20)
    scratch.sweep()
    try:
        yield Parts(
            transport=transport,
            stores=stores,
            database_url=settings.database_url,
            scratch=scratch,
            limits=Limits(settings.child_memory_mib << 20, settings.child_seconds),
            children_at_start=settings.children_at_start,
            database_limits=settings.database_limits(),
        )
    finally:
        await transport.close()
        for store in (stores.inbox, stores.work, stores.results):
            await store.close()
