"""What the object store itself holds, and every write that it has seen, by the stream of its filer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from voxelmill_ingest.triggers.filer_entries import BUCKETS
from voxelmill_ingest.triggers.filer_stream import FilerStream
from voxelmill_ingest.triggers.reach import SourceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from faults.broker import LoopThread
    from servers.seaweedfs import S3Server

INBOX, WORK, RESULTS = "inbox", "work", "results"
PATIENCE_SECONDS = 60.0
CONNECTIONS = 4


class Store:
    """Asks a SeaweedFS directly, past any proxy. What fails is tried again: it may be being killed."""

    def __init__(self, server: S3Server) -> None:
        self.client: Any = server.client()

    def make_buckets(self) -> None:
        """Make the three buckets."""
        for bucket in (INBOX, WORK, RESULTS):
            self.client.create_bucket(Bucket=bucket)

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Put objects into the inbox, some at a time, each until the store has said that it has it."""
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            list(
                threads.map(
                    lambda one: self._insist("put_object", Bucket=INBOX, Key=one[0], Body=one[1]), objects.items()
                )
            )

    def listed(self, bucket: str, prefix: str) -> dict[str, str]:
        """The keys under a prefix, and their ETags."""
        found: dict[str, str] = {}
        more: dict[str, str] = {}
        while True:
            page = self._insist("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
            found |= {one["Key"]: one["ETag"].strip('"') for one in page.get("Contents", ())}
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, bucket: str, key: str) -> bytes | None:
        """The content of an object; None if there is none."""
        try:
            return self._insist("get_object", Bucket=bucket, Key=key, whole=True)
        except self.client.exceptions.NoSuchKey:
            return None

    def delete(self, bucket: str, keys: list[str]) -> None:
        """Delete objects."""
        for begin in range(0, len(keys), 500):
            some = [{"Key": key} for key in keys[begin : begin + 500]]
            self._insist("delete_objects", Bucket=bucket, Delete={"Objects": some})

    def _insist(self, what: str, *, whole: bool = False, **arguments: Any) -> Any:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = getattr(self.client, what)(**arguments)
                return answer["Body"].read() if whole else answer
            except self.client.exceptions.NoSuchKey:
                raise
            except (BotoCoreError, ClientError, OSError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def close(self) -> None:
        """Let go of it."""
        self.client.close()


class WriteLog:
    """Counts every write of every result, as the filer tells it.

    After a kill -9 the filer may not tell of the last minute: then fewer writes are counted than there were, but those
    that were told at once, which is the rule.
    """

    def __init__(self, filer: str, loop: LoopThread) -> None:
        self._stream = FilerStream(filer, f"{BUCKETS}{RESULTS}/")
        self._since = time.time_ns()
        self._lock = threading.Lock()
        self._known: set[tuple[int, str]] = set()
        self._writes: Counter[str] = Counter()
        self._loop = loop
        self._task = asyncio.run_coroutine_threadsafe(self._read(), loop.loop)

    def writes(self, prefix: str) -> dict[str, int]:
        """How often each key under a prefix was written."""
        with self._lock:
            return {key: times for key, times in self._writes.items() if key.startswith(prefix)}

    def wait_for(self, key: str, times: int) -> None:
        """Return when a key was written so often.

        Raises
        ------
        TimeoutError
            If the filer does not tell of it.
        """
        until = time.monotonic() + PATIENCE_SECONDS
        while self.writes(key).get(key, 0) < times:
            if time.monotonic() > until:
                raise TimeoutError(f"{key} was not written {times} times")
            time.sleep(0.02)

    def forget(self, prefix: str) -> None:
        """Keep no more than is needed."""
        with self._lock:
            for key in [key for key in self._writes if key.startswith(prefix)]:
                del self._writes[key]

    def close(self) -> None:
        """Stop listening."""
        self._task.cancel()
        self._loop.run(asyncio.sleep(0.1))

    async def _read(self) -> None:
        while True:
            try:
                async with aclosing(self._stream.changes(self._since)) as changes:
                    async for change in changes:
                        if change.ts_ns and change.notification is not None:
                            self._take(change.ts_ns, change.notification.key)
            except SourceUnavailableError:
                await asyncio.sleep(0.1)

    def _take(self, ts_ns: int, key: str) -> None:
        with self._lock:
            self._since = max(self._since, ts_ns)
            if (ts_ns, key) not in self._known:
                self._known.add((ts_ns, key))
                self._writes[key] += 1
