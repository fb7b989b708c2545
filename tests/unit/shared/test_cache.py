"""The download cache does what it can, and is done without where it cannot."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from voxelmill_shared.errors import StoreUnavailableError
from voxelmill_shared.metrics import REGISTRY
from voxelmill_shared.storage.cache import CachedContent, DownloadCache
from voxelmill_shared.storage.s3_stream import Content

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Any

BODY = b"the bytes of one slice"
ETAG = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
CONTENT = CachedContent("http://server/bucket/key", ETAG)


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"voxelmill_cache_{name}_total", labels) or 0.0


def _write(target: Path) -> None:
    target.unlink(missing_ok=True)
    target.write_bytes(BODY)


def holds_body(target: Path) -> bool:
    return target.read_bytes() == BODY


class Source:
    """Brings the same bytes as often as it is asked, and counts."""

    def __init__(self, *, md5: str | None = ETAG) -> None:
        self.times = 0
        self.md5 = md5
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def to(self, target: Path) -> Callable[[], Coroutine[Any, Any, Content]]:
        async def download() -> Content:
            self.times += 1
            self.asked.set()
            await self.gate.wait()
            _write(target)
            return Content(ETAG, len(BODY), self.md5)

        return download


async def fetch(cache: DownloadCache, source: Source, target: Path, content: CachedContent = CONTENT) -> None:
    await cache.fetch(content, target, source.to(target))
    assert holds_body(target)


async def test_second_job_finds_what_the_first_one_downloaded(tmp_path: Path) -> None:
    """Also under another key, for the bytes agreed with the ETag; hits, misses and bytes are counted."""
    source, before = Source(), {name: metric("bytes", outcome=name) for name in ("hit", "miss")}
    await fetch(DownloadCache(tmp_path / "cache", 1000), source, tmp_path / "1")
    later = DownloadCache(tmp_path / "cache", 1000)
    await fetch(later, source, tmp_path / "2")
    await fetch(later, source, tmp_path / "3", CachedContent("http://other/bucket/key", ETAG))
    assert source.times == 1
    assert metric("bytes", outcome="miss") - before["miss"] == len(BODY)
    assert metric("bytes", outcome="hit") - before["hit"] == 2 * len(BODY)


async def test_etag_that_is_no_md5_names_the_bytes_of_its_own_object_only(tmp_path: Path) -> None:
    """It may mean something else elsewhere."""
    source, cache = Source(md5=None), DownloadCache(tmp_path / "cache", 1000)
    await fetch(cache, source, tmp_path / "1")
    await fetch(cache, source, tmp_path / "2")
    assert source.times == 1
    await fetch(cache, source, tmp_path / "3", CachedContent("http://server/bucket/another", ETAG))
    assert source.times == 2


async def test_who_wants_the_same_at_the_same_time_waits_for_one_download(tmp_path: Path) -> None:
    """Thumbnail and segment begin a series together."""
    source = Source()
    source.gate.clear()
    caches = [DownloadCache(tmp_path / "cache", 1000) for _ in range(2)]
    jobs = [
        asyncio.create_task(fetch(cache, source, tmp_path / f"{number}-{copy}"))
        for number, cache in enumerate(caches)
        for copy in range(3)
    ]
    async with asyncio.timeout(10):
        await source.asked.wait()
        source.gate.set()
        await asyncio.gather(*jobs)
    assert source.times == 1


async def test_download_that_fails_or_is_given_up_lets_the_next_one_try(tmp_path: Path) -> None:
    """Who waits is not told of another one's failure."""
    cache = DownloadCache(tmp_path / "cache", 1000)

    async def fails() -> Content:
        raise StoreUnavailableError("away")

    with pytest.raises(StoreUnavailableError):
        await cache.fetch(CONTENT, tmp_path / "1", fails)
    source = Source()
    source.gate.clear()
    first = asyncio.create_task(fetch(cache, source, tmp_path / "2"))
    async with asyncio.timeout(10):
        await source.asked.wait()
        second = asyncio.create_task(fetch(cache, source, tmp_path / "3"))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        source.gate.set()
        await second
    assert source.times == 2


HOLDER = """
import sys, time
from pathlib import Path
from voxelmill_shared.storage.cache_folder import CacheFolder
folder = CacheFolder(Path(sys.argv[1]), 1000)
folder.prepare()
assert folder.try_turn(sys.argv[2]) is not None
print("held", flush=True)
time.sleep(600)
"""


async def test_process_that_is_killed_while_it_downloads_holds_up_nobody(tmp_path: Path) -> None:
    """Its turn ends with it."""
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, str(tmp_path / "cache"), CONTENT.names()[0]), stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout
    assert await holder.stdout.readline() == b"held\n"
    source = Source()
    job = asyncio.create_task(fetch(DownloadCache(tmp_path / "cache", 1000), source, tmp_path / "1"))
    done, _ = await asyncio.wait({job}, timeout=0.3)
    assert not done
    assert not source.times
    holder.send_signal(signal.SIGKILL)
    await holder.wait()
    async with asyncio.timeout(10):
        await job
    assert source.times == 1


async def test_cache_that_cannot_be_used_is_done_without(tmp_path: Path) -> None:
    """A file in its place, and a folder into which others may write: downloaded all the same, counted, and logged."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name, reason in (("file", "EEXIST"), ("open", "EPERM")):
        source, before = Source(), metric("failures", reason=reason)
        cache = DownloadCache(tmp_path / name, 1000)
        await fetch(cache, source, tmp_path / "1")
        await fetch(cache, source, tmp_path / "2")
        assert source.times == 2
        assert metric("failures", reason=reason) > before


async def test_folder_into_which_others_may_write_is_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even where it looks like a cache: a link that others lay there would lead us to any file. One line says so."""
    root, precious = tmp_path / "open", tmp_path / "precious"
    precious.write_bytes(b"of somebody else")
    for folder in ("entries", "incoming", "turns"):
        (root / folder).mkdir(parents=True)
    root.chmod(0o777)
    (root / "bytes").symlink_to(precious)
    source = Source()
    cache = DownloadCache(root, 1000)
    for number in range(2):
        await fetch(cache, source, tmp_path / str(number))
    assert precious.read_bytes() == b"of somebody else"
    assert not [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "others may write to this folder" in said


async def test_full_disk_costs_the_cache_and_not_the_job(tmp_path: Path) -> None:
    """What is kept for later makes room, once; where there is nothing to throw out, the store's error stands."""
    cache = DownloadCache(tmp_path / "cache", 1000)
    await fetch(cache, Source(), tmp_path / "1")
    other = CachedContent("http://server/bucket/key", "another")
    full = 1

    async def download() -> Content:
        nonlocal full
        if full:
            full -= 1
            raise StoreUnavailableError("in: No space left on device") from OSError(errno.ENOSPC, os.strerror(28))
        (tmp_path / "2").write_bytes(b"other")
        return Content("another", 5, None)

    await cache.fetch(other, tmp_path / "2", download)
    assert (tmp_path / "2").read_bytes() == b"other"
    assert (tmp_path / "1").read_bytes() == BODY
    source = Source()
    await fetch(cache, source, tmp_path / "3")
    assert source.times == 1
    cache._folder.throw_out_all()
    full = 1
    with pytest.raises(StoreUnavailableError, match="No space"):
        await cache.fetch(other, tmp_path / "4", download)
