"""What a local folder adds to the contract of object stores: links, odd files, odd names, crashes and full disks."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from voxelmill_shared.errors import (
    ObjectMissingError,
    ObjectUnreadableError,
    StoreFullError,
    StoreUnavailableError,
    UnsafeKeyError,
)
from voxelmill_shared.storage.local import TEMPORARY, LocalStore

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.storage.base import ObjectStat


def md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give the folder of the store; beside it lies one that is not the store's."""
    folder = tmp_path / "root"
    folder.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    return folder


@pytest.fixture
def store(root: Path) -> LocalStore:
    """Give a store that hides what the command keeps beside a user's files."""
    return LocalStore(root, hidden={".voxelmill"})


async def listed(store: LocalStore, prefix: str = "") -> dict[str, ObjectStat]:
    return {found.key: found async for found in store.list(prefix)}


async def test_links_that_lead_out_are_named_and_not_followed(store: LocalStore, root: Path) -> None:
    """Neither a linked file nor a linked folder brings anything from outside in, or takes anything out."""
    (root / "file").symlink_to(root.parent / "outside" / "secret")
    (root / "folder").symlink_to(root.parent / "outside")
    (root / "up").symlink_to("..")
    (root / "a.dcm").write_bytes(b"x")
    found = await listed(store)
    assert {key: stat.etag == "" for key, stat in found.items()} == {
        "a.dcm": False,
        "file": True,
        "folder": True,
        "up": True,
    }
    assert found["file"].size == 0
    assert not await listed(store, "folder/")
    for key in ("file", "folder/secret", "up/outside/secret"):
        with pytest.raises(UnsafeKeyError, match="out of"):
            await store.read(key)
    for operation in (store.write("folder/new", b"x"), store.delete("folder/secret")):
        with pytest.raises(UnsafeKeyError, match="out of"):
            await operation
    assert {path.name for path in (root.parent / "outside").iterdir()} == {"secret"}


async def test_writing_over_a_link_replaces_the_link(store: LocalStore, root: Path) -> None:
    """What the link leads to is not touched."""
    (root / "file").symlink_to(root.parent / "outside" / "secret")
    await store.write("file", b"new")
    assert await store.read("file") == b"new"
    assert (root.parent / "outside" / "secret").read_bytes() == b"secret"


async def test_links_inside_are_followed_and_circles_end(store: LocalStore, root: Path) -> None:
    """A linked file is an object by that name; a linked folder is listed where it really lies, once."""
    (root / "blobs").mkdir()
    (root / "blobs" / "1").write_bytes(b"one")
    (root / "a.dcm").symlink_to("blobs/1")
    (root / "again").symlink_to("blobs")
    (root / "blobs" / "circle").symlink_to("..")
    (root / "self").symlink_to("self")
    (root / "dangling").symlink_to("nothing")
    assert set(await listed(store)) == {"a.dcm", "blobs/1", "self"}
    assert await store.read("a.dcm") == await store.read("again/1") == b"one"
    with pytest.raises(UnsafeKeyError):
        await store.read("self")
    with pytest.raises(ObjectMissingError):
        await store.read("dangling")


async def test_what_is_no_file_is_named_and_never_waited_for(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe without a writer would hold a reader up for ever."""
    monkeypatch.chdir(root)  # a socket's path has a short limit
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        (root / "a.dcm").write_bytes(b"x")
        assert {key for key, stat in (await listed(store)).items() if stat.etag == ""} == {"pipe", "socket"}
        for key in ("pipe", "socket"):
            with pytest.raises(UnsafeKeyError, match="regular"):
                await asyncio.wait_for(store.read(key), 5)


async def test_a_key_that_is_too_long_is_named(store: LocalStore, root: Path) -> None:
    """A file so deep that no event could carry its key to a store is listed, so that its owner hears of it."""
    folder = root.joinpath(*["f" * 250] * 5)
    folder.mkdir(parents=True)
    (folder / "a.dcm").write_bytes(b"four")
    ((key, stat),) = (await listed(store)).items()
    assert (key.rpartition("/")[2], stat.etag, stat.size) == ("a.dcm", "", 4)


async def test_hidden_names_are_no_part_of_the_store(store: LocalStore, root: Path) -> None:
    """They are neither listed nor given nor written, at any depth, nor through a link."""
    for folder in (".voxelmill", "a/.voxelmill", TEMPORARY, "lost+found"):
        (root / folder).mkdir(parents=True)
        (root / folder / "x").write_bytes(b"x")
    (root / "link").symlink_to(".voxelmill/x")
    (root / ".hidden").write_bytes(b"an object like any other")
    assert set(await listed(store)) == {".hidden"}
    assert not await listed(store, ".voxelmill/")
    for key in (".voxelmill/x", "a/.voxelmill/x", f"{TEMPORARY}/x", "link", ".voxelmill"):
        with pytest.raises(UnsafeKeyError):
            await store.head(key)
        if key != "link":
            with pytest.raises(UnsafeKeyError):
                await store.write(key, b"x")


async def test_file_and_folder_of_one_name_are_refused(store: LocalStore) -> None:
    """`a` and `a/b` cannot both exist here; what was there first stays."""
    await store.write("a", b"file")
    with pytest.raises(UnsafeKeyError, match="one name"):
        await store.write("a/b", b"x")
    await store.write("c/d", b"file")
    with pytest.raises(UnsafeKeyError, match="one name"):
        await store.write("c", b"x")
    assert set(await listed(store)) == {"a", "c/d"}


async def test_name_that_no_disk_can_hold_is_refused(store: LocalStore) -> None:
    """S3 takes a part of more than 255 bytes; a file system does not, and says so."""
    with pytest.raises(UnsafeKeyError, match="such a name"):
        await store.write("n" * 256, b"x")
    with pytest.raises(UnsafeKeyError, match="such a name"):
        await store.read("n" * 256)


async def test_names_that_are_no_utf8_are_not_lost(store: LocalStore, root: Path) -> None:
    """They are listed by a key that reads them, below a folder of the same kind too; a backslash is a letter."""
    folder = os.fsencode(root) + b"/stra\xdfe"
    os.mkdir(folder)  # noqa: PTH102 - Path cannot speak of bytes
    for name in (b"caf\xe9.dcm", b"a\\b"):
        with open(folder + b"/" + name, "wb") as file:  # noqa: ASYNC230, PTH123 - Path cannot speak of bytes
            file.write(name)
    found = await listed(store)
    assert len(found) == 2
    for key in found:
        assert os.fsencode(await store.fetch(key, root)).startswith(folder)
        assert await store.read(key) == os.fsencode(key.split("/")[1])
        assert (await listed(store, key)).keys() == {key}
    await store.write("n\udce9w", b"x")
    assert os.path.exists(os.fsencode(root) + b"/n\xe9w")  # noqa: ASYNC240, PTH110 - Path cannot speak of bytes


async def test_digest_is_computed_once_until_the_file_changes(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list over and over costs a look at each file, not its bytes; a change is seen even if size and time agree."""
    (root / "a").write_bytes(b"old!")
    old = time.time() - 3600
    os.utime(root / "a", (old, old))
    monkeypatch.setattr("voxelmill_shared.storage.etags._SETTLED_SECONDS", -1)
    first = await store.head("a")
    monkeypatch.setattr("os.pread", lambda *_: pytest.fail("the file was read again"))
    assert (await listed(store))["a"] == first
    monkeypatch.undo()
    with (root / "a").open("r+b") as file:
        file.write(b"new!")
    os.utime(root / "a", (old, old))
    assert (await store.head("a")).etag != first.etag


async def test_what_one_process_has_written_others_need_not_read_for_its_digest(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it was written; as long as it stays as it was, also if size and time agree, and at the same place."""
    await store.write("whole", b"abc")
    partial = store.partial("pieces")
    async with partial.writing(0) as writer:
        await writer.write(b"a")
        await writer.write(b"bc")
        await writer.finish()
    known = {"whole": md5(b"abc"), "pieces": md5(b"abc")}
    if not all("user.voxelmill.md5" in os.listxattr(root / key) for key in known):
        pytest.skip("this file system has no extended attributes: there each process reads what others have written")
    monkeypatch.setattr("os.pread", lambda *_: pytest.fail("the file was read"))
    others = LocalStore(root)
    assert {key: (await others.head(key)).etag for key in known} == known
    monkeypatch.undo()

    time.sleep(0.2)  # noqa: ASYNC251 - until a change can be told from the move into its place
    before = (root / "whole").stat()
    with (root / "whole").open("r+b") as file:
        file.write(b"xyz")
    os.utime(root / "whole", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (await LocalStore(root).head("whole")).etag == md5(b"xyz")
    shutil.copy2(root / "pieces", root / "copy")  # with attributes and times
    with (root / "copy").open("r+b") as file:
        file.write(b"xyz")
    os.utime(root / "copy", ns=(before.st_atime_ns, (root / "pieces").stat().st_mtime_ns))
    assert (await LocalStore(root).head("copy")).etag == md5(b"xyz")


async def test_young_file_is_read_again(store: LocalStore, root: Path) -> None:
    """Two changes within one tick of the clock look the same from outside, so a young file's digest is not kept."""
    (root / "a").write_bytes(b"1")
    before = (root / "a").stat()
    first = await store.head("a")
    with (root / "a").open("r+b") as file:
        file.write(b"2")
    os.utime(root / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (await store.head("a")).etag != first.etag


async def test_times_beyond_the_calendar_are_no_error(store: LocalStore, root: Path) -> None:
    """A broken clock makes files of the year 2446 and later; they are listed all the same."""
    (root / "a").write_bytes(b"x")
    os.utime(root / "a", (2**33, 2**33))
    assert (await listed(store))["a"].modified.year >= 2038


async def test_full_disk_is_unavailable_and_leaves_nothing(store: LocalStore, root: Path) -> None:
    """What cannot be written whole is not written at all. The limit on file sizes stands for the end of the disk."""
    await store.write("a", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(StoreFullError, match="a: "):
            await store.write("a", bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert await store.read("a") == b"old"
    assert not list((root / TEMPORARY).iterdir())


WRITER = """
import asyncio, pathlib, sys
from voxelmill_shared.storage.local import LocalStore

def chunks():
    yield bytes(1 << 20)
    print("half", flush=True)
    sys.stdin.read()

LocalStore(pathlib.Path(sys.argv[1]))._write("a", chunks())
"""


def write_half_and_be_killed(root: Path) -> None:
    """Run a process that is killed while it writes the object `a`."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()


async def test_killed_writer_leaves_the_old_object_and_its_rest_is_swept(root: Path) -> None:
    """Half of what was being written is never seen, and does not stay for ever."""
    await LocalStore(root).write("a", b"old")
    await asyncio.to_thread(write_half_and_be_killed, root)
    store = LocalStore(root)
    assert await store.read("a") == b"old"
    assert set(await listed(store)) == {"a"}
    (left,) = (root / TEMPORARY).iterdir()
    old = time.time() - 2 * 24 * 3600
    os.utime(left, (old, old))
    await store.write("b", b"x")
    assert not left.exists()


async def test_missing_folder_is_no_empty_store(tmp_path: Path) -> None:
    """A disk that is not mounted must not look as if everything had been deleted; the first write makes the folder."""
    store = LocalStore(tmp_path / "later" / "root")
    assert not await store.exists("a")
    with pytest.raises(StoreUnavailableError, match="no such folder"):
        await listed(store)
    await store.write("a", b"x")
    assert set(await listed(store)) == {"a"}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
async def test_what_may_not_be_read_holds_up_nothing_else(store: LocalStore, root: Path) -> None:
    """A closed file is listed and cannot be read; a closed folder is told of after everything else."""
    (root / "closed").mkdir()
    (root / "closed" / "b").write_bytes(b"x")
    for name in ("a", "z"):
        (root / name).write_bytes(b"x")
    (root / "a").chmod(0)
    (root / "closed").chmod(0)
    found = []
    with pytest.raises(StoreUnavailableError, match="closed"):
        found += [stat async for stat in store.list()]
    (root / "closed").chmod(0o755)
    found = await listed(store)
    assert set(found) == {"a", "closed/b", "z"}
    assert found["a"].etag == ""
    with pytest.raises(ObjectUnreadableError):
        await store.read("a")


async def test_every_write_is_on_the_disk_when_it_returns(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file and every folder whose entries changed are synchronised, the file before it gets its name."""
    done: list[str] = []
    sync = os.fsync

    def noting(handle: int) -> None:
        done.append(os.readlink(f"/proc/self/fd/{handle}"))  # noqa: PTH115 - /proc speaks of descriptors
        sync(handle)

    await store.check()
    monkeypatch.setattr("os.fsync", noting)
    await store.write("a/b/c", b"x")
    root = str(store.root)
    assert done[0].startswith(f"{root}/{TEMPORARY}/")
    assert done[1:] == [root, f"{root}/a", f"{root}/a/b"]
