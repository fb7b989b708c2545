"""Objects of a local store that come in piece by piece."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contract.storage_kit import listed, md5
from voxelmill_shared.errors import StoreUnavailableError, UnsafeKeyError
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.local_partial import PartialBusyError, PartialGapError

KEY = "uploads/one/000000.dcm"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Give an empty folder as a store."""
    return LocalStore(tmp_path / "inbox")


async def test_it_stands_when_it_is_whole_and_not_before(store: LocalStore) -> None:
    """Until it is finished nobody sees it; then its MD5 is known without reading it."""
    partial = store.partial(KEY)
    async with partial.writing(0) as writer:
        await writer.write(b"abc")
        await writer.write(b"def")
        assert not await store.exists(KEY)
        assert await listed(store) == {}
        await writer.finish()
    assert await store.read(KEY) == b"abcdef"
    assert (await store.head(KEY)).etag == md5(b"abcdef")
    assert await partial.received() == 0


async def test_it_goes_on_where_it_stopped(store: LocalStore) -> None:
    """A writer that ends early leaves what it wrote, and says where to go on; another place is refused."""
    partial = store.partial(KEY)
    async with partial.writing(0) as writer:
        await writer.write(b"abc")
    assert await partial.received() == 3
    for start in (2, 4):
        with pytest.raises(PartialGapError) as caught:
            async with partial.writing(start):
                pass
        assert caught.value.received == 3
    async with partial.writing(3) as writer:
        await writer.write(b"def")
        await writer.finish()
    assert await store.read(KEY) == b"abcdef"
    assert (await store.head(KEY)).etag == md5(b"abcdef")


async def test_from_the_beginning_all_is_new(store: LocalStore) -> None:
    """What an earlier writer left is not mixed with what comes now."""
    partial = store.partial(KEY)
    async with partial.writing(0) as writer:
        await writer.write(b"long and old")
    async with partial.writing(0) as writer:
        await writer.write(b"new")
        await writer.finish()
    assert await store.read(KEY) == b"new"


async def test_one_writer_at_a_time(store: LocalStore) -> None:
    """A second writer is refused as long as the first one is at work, and may go on after it."""
    partial = store.partial(KEY)
    async with partial.writing(0) as first:
        await first.write(b"abc")
        for start in (0, 3):
            with pytest.raises(PartialBusyError):
                async with store.partial(KEY).writing(start):
                    pass
        await first.write(b"d")
    async with partial.writing(4) as second:
        await second.finish()
    assert await store.read(KEY) == b"abcd"


async def test_a_writer_in_another_process_that_is_killed_gives_way(store: LocalStore, tmp_path: Path) -> None:
    """While it lives it is in the way; after kill -9 what it wrote is gone on with."""
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from voxelmill_shared.storage.local import LocalStore\n"
        "async def main():\n"
        f"    async with LocalStore(Path(sys.argv[1])).partial({KEY!r}).writing(0) as writer:\n"
        "        await writer.write(b'abc')\n"
        "        print('written', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "inbox")], stdout=subprocess.PIPE)  # noqa: ASYNC220 - nothing else runs meanwhile
    try:
        assert other.stdout
        assert other.stdout.readline() == b"written\n"
        with pytest.raises(PartialBusyError):
            async with store.partial(KEY).writing(3):
                pass
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate(timeout=30)
    async with store.partial(KEY).writing(3) as writer:
        await writer.write(b"def")
        await writer.finish()
    assert await store.read(KEY) == b"abcdef"


async def test_what_was_dropped_is_not_put_into_place(store: LocalStore) -> None:
    """An upload that is aborted while somebody writes to it: the writer is told, and nothing stands."""
    partial = store.partial(KEY)
    async with partial.writing(0) as writer:
        await writer.write(b"abc")
        await partial.drop()
        with pytest.raises(PartialBusyError):
            await writer.finish()
    await partial.drop()
    assert not await store.exists(KEY)
    assert await partial.received() == 0


async def test_a_cancelled_writer_keeps_what_it_wrote(store: LocalStore) -> None:
    """A client that hangs up: the bytes that came are kept, whole pieces of them."""
    partial = store.partial(KEY)
    begun = asyncio.Event()

    async def write() -> None:
        async with partial.writing(0) as writer:
            while True:
                await writer.write(b"abc")
                begun.set()

    task = asyncio.create_task(write())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    received = await partial.received()
    assert received % 3 == 0
    assert received >= 3
    async with partial.writing(received):
        pass


@pytest.mark.parametrize("key", ["../out", "/etc/passwd", "a//b", "", "a\0b"])
async def test_unsafe_keys_are_refused_before_anything_is_written(store: LocalStore, key: str) -> None:
    """As by every other way into the store."""
    with pytest.raises(UnsafeKeyError):
        async with store.partial(key).writing(0):
            pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
async def test_a_full_disk_is_told_in_one_line(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store says so; nobody mistakes it for a defect."""
    await store.check()
    partial = store.partial(KEY)
    opened = os.open

    def full(path: object, flags: int, mode: int = 0o777) -> int:
        return opened("/dev/full", os.O_WRONLY) if str(path).endswith(".partial") else opened(path, flags, mode)

    monkeypatch.setattr(os, "open", full)
    monkeypatch.setattr(type(partial), "is_there", lambda *_: True)
    monkeypatch.setattr(os, "truncate", lambda *_: None)
    monkeypatch.setattr(os, "fsync", lambda *_: None)
    with pytest.raises(StoreUnavailableError, match="No space left"):
        async with partial.writing(0) as writer:
            await writer.write(b"abc")


async def test_what_nobody_goes_on_with_is_swept(store: LocalStore) -> None:
    """A day later the next process that uses the folder throws it away, as every unfinished file."""
    partial = store.partial(KEY)
    async with partial.writing(0) as writer:
        await writer.write(b"abc")
    yesterday = time.time() - 25 * 3600
    os.utime(partial.path, (yesterday, yesterday))
    again = LocalStore(store.root)
    await again.write("other", b"")
    assert await again.partial(KEY).received() == 0
