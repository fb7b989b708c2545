"""Inputs that were downloaded once stay on the local disk, for the next stage, the next run and the next process.

What names an entry is its content: the MD5 where the store's ETag is one and the bytes agreed with it, so that the same
bytes under another key or in another bucket are found too; else the object's address together with its ETag.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter

from voxelmill_shared.errors import StoreUnavailableError
from voxelmill_shared.metrics import REGISTRY
from voxelmill_shared.storage.cache_folder import MD5, CacheFolder
from voxelmill_shared.storage.s3_download import in_thread
from voxelmill_shared.storage.s3_stream import may_be_md5

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from voxelmill_shared.storage.s3_stream import Content

log = structlog.get_logger("voxelmill")

REQUESTS = Counter(
    "voxelmill_cache_requests",
    "Inputs that were wanted, by outcome: hit (it was on the disk), miss (it was downloaded).",
    ("outcome",),
    registry=REGISTRY,
)
BYTES = Counter("voxelmill_cache_bytes", "The bytes of these inputs.", ("outcome",), registry=REGISTRY)
THROWN_OUT = Counter("voxelmill_cache_thrown_out_bytes", "Bytes thrown out for others.", registry=REGISTRY)
FAILURES = Counter(
    "voxelmill_cache_failures",
    "What the cache could not do, by the system's name of the reason; the input was downloaded without it.",
    ("reason",),
    registry=REGISTRY,
)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1
_PATIENCE_SECONDS = 120.0
"""How long to wait for another's download before doing it oneself: a process may be stopped without being dead."""

_QUIET_SECONDS = 300.0
"""How long the same failure is not logged again."""


@dataclass(frozen=True, slots=True)
class CachedContent:
    """Which bytes are meant: those that `address` (server, bucket and key) has under this ETag (without quotes)."""

    address: str
    etag: str

    def names(self) -> Sequence[str]:
        """Give the names under which an entry may be found, the better one first."""
        return (self.name(as_md5=True), self.name()) if may_be_md5(self.etag) else (self.name(),)

    def name(self, *, as_md5: bool = False) -> str:
        """Give an entry's name; `as_md5` if its bytes agreed with the ETag."""
        if as_md5:
            return f"{MD5}{self.etag}"
        whole = f"{self.address}\n{self.etag}"
        return f"tag-{hashlib.sha256(whole.encode()).hexdigest()[:40]}"


class DownloadCache:
    """A bounded store of inputs on the local disk, shared by all processes that are given the same folder.

    Nothing fails for its sake: what it cannot do (a full disk, a folder of somebody else) is counted, logged once and
    done without it.

    Parameters
    ----------
    root
        Its folder. On the disk of the scratch folders, a hit costs a link; on another one, a copy.
    limit
        The most bytes that it keeps.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._folder = CacheFolder(root, limit)
        self._prepared = False
        self._told: dict[str, float] = {}

    async def fetch(
        self, content: CachedContent, target: Path, download: Callable[[], Coroutine[Any, Any, Content]]
    ) -> None:
        """Bring an object's bytes to `target`: from the cache if they are there, else by `download`, once.

        Whoever wants the same content at the same time, in this process or another one, waits for that download.
        """
        if not await self._is_usable():
            await self._missed(download)
            return
        names = content.names()
        if await self._take(names, target):
            return
        async with self._turn(names):
            if self._has(names) and await self._take(names, target):
                return  # another one has downloaded it meanwhile
            received = await self._missed(download)
            with self._trying():
                name = content.name(as_md5=received.md5 == content.etag)
                THROWN_OUT.inc(await in_thread(self._folder.offer, name, target))

    async def _is_usable(self) -> bool:
        """Whether the folder is there and ours alone. If not, nothing in it may be touched."""
        if not self._prepared:
            with self._trying():
                await in_thread(self._folder.prepare)
                self._prepared = True
        return self._prepared

    async def _missed(self, download: Callable[[], Coroutine[Any, Any, Content]]) -> Content:
        received = await self._download(download)
        REQUESTS.labels("miss").inc()
        BYTES.labels("miss").inc(received.size)
        return received

    async def _take(self, names: Sequence[str], target: Path) -> bool:
        with self._trying():
            size = await in_thread(self._folder.take, names, target)
            if size is not None:
                REQUESTS.labels("hit").inc()
                BYTES.labels("hit").inc(size)
                return True
        return False

    async def _download(self, download: Callable[[], Coroutine[Any, Any, Content]]) -> Content:
        try:
            return await download()
        except StoreUnavailableError as error:
            # A full disk: what is kept for later is worth less than the work that is to be done now.
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            if not self._prepared:
                raise
            with self._trying():
                thrown_out = await in_thread(self._folder.throw_out_all)
                THROWN_OUT.inc(thrown_out)
                if thrown_out:
                    log.warning("the disk is full: threw out the download cache", folder=str(self._root))
                    return await download()
            raise

    @asynccontextmanager
    async def _turn(self, names: Sequence[str]) -> AsyncIterator[None]:
        """Wait until nobody else downloads this content, or until somebody has."""
        turn = self._try_turn(names)
        until = time.monotonic() + _PATIENCE_SECONDS
        pause = _FIRST_PAUSE
        while turn is None and self._prepared and not self._has(names) and time.monotonic() < until:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            turn = self._try_turn(names)
        try:
            yield
        finally:
            if turn is not None:
                os.close(turn)

    def _try_turn(self, names: Sequence[str]) -> int | None:
        with self._trying():
            return self._folder.try_turn(names[0])  # opens an empty file, so not worth a thread
        return None

    def _has(self, names: Sequence[str]) -> bool:
        with self._trying():
            return self._folder.has(names)
        return False

    @contextmanager
    def _trying(self) -> Iterator[None]:
        """Go on without the cache where it fails; count it, and say so once in a while."""
        try:
            yield
        except OSError as error:
            reason = errno.errorcode.get(error.errno or 0, type(error).__name__)
            FAILURES.labels(reason).inc()
            self._prepared = False  # somebody may have removed the folder: look again
            now = time.monotonic()
            if now - self._told.get(reason, -_QUIET_SECONDS) >= _QUIET_SECONDS:
                self._told[reason] = now
                log.warning(
                    "the download cache cannot be used; downloading without it",
                    folder=str(self._root),
                    reason=error.strerror or str(error),
                    next="mend the folder, or set VOXELMILL_CACHE to another one or VOXELMILL_CACHE_BYTES to 0",
                )
