"""The contract of object stores, held by the local folder and by S3 (a real SeaweedFS)."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from contract.storage_kit import MIB, listed, md5
from voxelmill_shared.errors import ObjectChangedError, ObjectMissingError, UnsafeKeyError
from voxelmill_shared.storage.connect import StoreAddressError, open_store
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.s3_upload import PART_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.storage.base import ObjectStore


async def test_what_is_written_is_read_back(store: ObjectStore) -> None:
    """Bytes come back as they were, and the receipt of the write says what they are."""
    body = os.urandom(100_000)
    written = await store.write("series/r1/volume.bin", body, "application/octet-stream")
    assert (written.key, written.size) == ("series/r1/volume.bin", len(body))
    assert written.etag == md5(body)
    assert written.sha256 == hashlib.sha256(body).hexdigest()
    assert await store.read("series/r1/volume.bin") == body


async def test_name_in_events_is_the_one_that_was_given(store: ObjectStore) -> None:
    """The store goes by the name of its role."""
    assert store.bucket == "results"


async def test_ranges(store: ObjectStore) -> None:
    """A range gives its bytes; what lies past the end gives fewer, or none."""
    await store.write("a", b"0123456789")
    assert await store.read("a", 3) == b"3456789"
    assert await store.read("a", 3, 4) == b"3456"
    assert await store.read("a", 0, 1) == b"0"
    assert await store.read("a", 3, 0) == b""
    assert await store.read("a", 8, 100) == b"89"
    assert await store.read("a", 10, 5) == b""
    assert await store.read("a", 1000) == b""


async def test_range_of_a_certain_content(store: ObjectStore) -> None:
    """A range may be asked for of one content: another one's bytes never come in its place."""
    first = await store.write("a", b"0123456789")
    assert await store.read("a", 3, 4, etag=first.etag) == b"3456"
    second = await store.write("a", b"abcdefghij")
    assert await store.read("a", 3, etag=second.etag) == b"defghij"
    with pytest.raises(ObjectChangedError):
        await store.read("a", 3, 4, etag=first.etag)
    with pytest.raises(ObjectChangedError):
        await store.read("a", etag=first.etag)
    with pytest.raises(ObjectMissingError):
        await store.read("b", etag=first.etag)


async def test_range_that_makes_no_sense_is_a_mistake_of_the_caller(store: ObjectStore) -> None:
    """Negative numbers are refused instead of meaning something else in each store."""
    await store.write("a", b"0123456789")
    with pytest.raises(ValueError, match="range"):
        await store.read("a", -1)
    with pytest.raises(ValueError, match="range"):
        await store.read("a", 0, -1)


async def test_empty_object(store: ObjectStore) -> None:
    """An object may be empty."""
    await store.write("empty", b"")
    assert await store.read("empty") == b""
    assert await store.read("empty", 0, 10) == b""
    assert (await store.head("empty")).size == 0
    assert await store.exists("empty")
    assert "empty" in await listed(store)


async def test_the_head_of_an_object_comes_with_what_is_known_of_it(store: ObjectStore) -> None:
    """One look gives size, MD5 and time of the whole object, and its first bytes."""
    await store.write("a", b"0123456789")
    for length, body in ((1, b"0"), (4, b"0123"), (10, b"0123456789"), (4096, b"0123456789")):
        assert await store.read_head("a", length) == (await store.head("a"), body)
    assert (await store.head("a")).size == 10
    await store.write("empty", b"")
    assert await store.read_head("empty", 4096) == (await store.head("empty"), b"")
    with pytest.raises(ObjectMissingError):
        await store.read_head("nothing", 4096)
    with pytest.raises(UnsafeKeyError):
        await store.read_head("../a", 4096)


async def test_head_and_list_agree(store: ObjectStore) -> None:
    """Both say size, time and MD5."""
    await store.write("a/b", b"body")
    head = await store.head("a/b")
    assert (head.key, head.size, head.etag) == ("a/b", 4, md5(b"body"))
    assert head.modified.tzinfo is not None
    found = (await listed(store))["a/b"]
    assert (found.size, found.etag) == (head.size, head.etag)
    assert abs((found.modified - head.modified).total_seconds()) <= 1


async def test_overwriting_changes_content_and_etag(store: ObjectStore) -> None:
    """The last write counts, also where the size is the same."""
    await store.write("a", b"old!")
    before = await store.head("a")
    written = await store.write("a", b"new!")
    after = await store.head("a")
    assert after.etag == written.etag == md5(b"new!")
    assert after.etag != before.etag
    assert await store.read("a") == b"new!"
    assert len(await listed(store)) == 1


async def test_what_is_missing_is_said_to_be_missing(store: ObjectStore, tmp_path: Path) -> None:
    """Looking at, reading and fetching nothing raise one error; a folder is no object."""
    await store.write("folder/a", b"x")
    for key in ("nothing", "folder", "folder/b", "folder/a/b"):
        assert not await store.exists(key)
        with pytest.raises(ObjectMissingError) as caught:
            await store.head(key)
        assert caught.value.key == key
        with pytest.raises(ObjectMissingError):
            await store.read(key)
        with pytest.raises(ObjectMissingError):
            await store.read(key, 0, 0)
        with pytest.raises(ObjectMissingError):
            await store.fetch(key, tmp_path / "fetched")


async def test_deleting_is_idempotent(store: ObjectStore) -> None:
    """Deleted is deleted, and once more is no error."""
    await store.write("a/b/c", b"x")
    await store.write("a/d", b"x")
    for _ in range(2):
        await store.delete("a/b/c")
        assert not await store.exists("a/b/c")
    assert set(await listed(store)) == {"a/d"}
    await store.delete("never/was")


async def test_deleting_the_last_object_of_a_folder_frees_its_name(store: ObjectStore) -> None:
    """There are no folders in an object store: a name is free when no key needs it any more."""
    await store.write("a/b/c", b"x")
    await store.delete("a/b/c")
    await store.write("a", b"now an object")
    assert await store.read("a") == b"now an object"


async def test_listing_is_by_plain_prefix(store: ObjectStore) -> None:
    """A prefix is text and may end in the middle of a part."""
    for key in ("a", "ab/1", "ab/2", "ab/c/3", "abc", "b/ab/1"):
        await store.write(key, b"x")
    assert set(await listed(store)) == {"a", "ab/1", "ab/2", "ab/c/3", "abc", "b/ab/1"}
    assert set(await listed(store, "ab")) == {"ab/1", "ab/2", "ab/c/3", "abc"}
    assert set(await listed(store, "ab/")) == {"ab/1", "ab/2", "ab/c/3"}
    assert set(await listed(store, "ab/c")) == {"ab/c/3"}
    assert set(await listed(store, "ab/c/3")) == {"ab/c/3"}
    assert not await listed(store, "c")
    assert not await listed(store, "ab/x/y")


async def test_list_goes_on_past_one_page(store: ObjectStore) -> None:
    """More than the 1,000 objects of one answer of S3: each appears, once."""
    keys = {f"{number % 7}/instance-{number:04}.dcm" for number in range(1050)}
    waiting = sorted(keys)

    async def write_some() -> None:
        while waiting:
            await store.write(waiting.pop(), b"x")

    await asyncio.gather(*(write_some() for _ in range(16)))
    assert set(await listed(store)) == keys


async def test_fetching_brings_a_file(store: ObjectStore, tmp_path: Path) -> None:
    """The file holds the object, whatever its key would do to a path; two keys give two files."""
    await store.write("a/1.dcm", b"one")
    await store.write("b/1.dcm", b"two")
    first = await store.fetch("a/1.dcm", tmp_path / "new" / "folder")
    second = await store.fetch("b/1.dcm", tmp_path / "new" / "folder")
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")
    await store.write("a/1.dcm", b"three")
    assert (await store.fetch("a/1.dcm", tmp_path / "new" / "folder")).read_bytes() == b"three"


async def test_fetching_one_content_brings_no_other(store: ObjectStore, tmp_path: Path) -> None:
    """Who names the content by its ETag gets that content, or is told that it is gone."""
    written = await store.write("a", b"old!")
    assert (await store.fetch("a", tmp_path / "f", etag=written.etag)).read_bytes() == b"old!"
    await store.write("a", b"new!")
    with pytest.raises(ObjectChangedError):
        await store.fetch("a", tmp_path / "f", etag=written.etag)
    await store.delete("a")
    with pytest.raises(ObjectMissingError):
        await store.fetch("a", tmp_path / "f", etag=written.etag)


@pytest.mark.parametrize("size", [0, 1000, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 3 * MIB])
async def test_files_of_any_size_are_written_whole(store: ObjectStore, tmp_path: Path, size: int) -> None:
    """Also those that S3 takes in parts; the digest is that of the whole, and the file stays the caller's."""
    source = tmp_path / "source"
    body = os.urandom(MIB) * (size // MIB) + os.urandom(size % MIB)
    source.write_bytes(body)
    written = await store.write_file("big/volume.nii.gz", source, "application/gzip")
    assert (written.size, written.sha256) == (size, hashlib.sha256(body).hexdigest())
    head = await store.head("big/volume.nii.gz")
    assert (head.size, head.etag) == (size, written.etag)
    if size <= PART_BYTES:
        assert written.etag == md5(body)
    assert await store.read("big/volume.nii.gz", max(0, size - 5)) == body[-5:]
    assert (await store.fetch("big/volume.nii.gz", tmp_path / "f")).read_bytes() == body
    assert source.read_bytes() == body


async def test_writing_a_file_that_is_not_there_is_the_callers_mistake(store: ObjectStore, tmp_path: Path) -> None:
    """It is no fault of the store, and nothing is written."""
    with pytest.raises(FileNotFoundError):
        await store.write_file("a", tmp_path / "nothing")
    assert not await store.exists("a")


async def test_writers_of_one_key_leave_one_whole_content_and_readers_never_see_half_of_one(store: ObjectStore) -> None:
    """Whoever wins, what is there is what one of them wrote, at every moment."""
    bodies = [bytes([65 + number]) * 300_000 for number in range(6)]
    await store.write("contended", bodies[0])
    writing = True

    async def read_on() -> int:
        reads = 0
        while writing:
            assert await store.read("contended") in bodies
            reads += 1
        return reads

    readers = [asyncio.create_task(read_on()) for _ in range(2)]
    for _ in range(5):
        await asyncio.gather(*(store.write("contended", body) for body in bodies))
    writing = False
    assert all([await reader for reader in readers])
    final = await store.read("contended")
    assert final in bodies
    assert (await store.head("contended")).etag == md5(final)


async def test_list_beside_writers_gives_what_stands_throughout(store: ObjectStore) -> None:
    """Objects that come and go beside it do not hide those that stay."""
    staying = {f"stay/{number}" for number in range(50)}
    for key in staying:
        await store.write(key, b"x")
    coming_and_going = True

    async def come_and_go(number: int) -> None:
        while coming_and_going:
            await store.write(f"stay/tmp-{number}", b"x")
            await store.delete(f"stay/tmp-{number}")

    others = [asyncio.create_task(come_and_go(number)) for number in range(3)]
    for _ in range(5):
        assert staying <= set(await listed(store))
    coming_and_going = False
    await asyncio.gather(*others)


async def test_hundred_small_files_are_quick(store: ObjectStore) -> None:
    """Previews come in hundreds: durable, but not slowly."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    await asyncio.gather(*(store.write(f"thumbnails/{number}.webp", b"x" * 3000) for number in range(100)))
    assert loop.time() - start < 15
    assert len(await listed(store)) == 100


def test_addresses_that_name_no_store_are_refused() -> None:
    """The reason says what to write instead."""
    for address in ("", "s3://", "s3:///prefix", "file://host/path", "file:///", "ftp://host/x", "gs://bucket"):
        with pytest.raises(StoreAddressError):
            open_store(address)


def test_plain_path_and_file_address_are_the_same_folder(tmp_path: Path) -> None:
    """A file address is percent-encoded, a path is not."""
    by_path, by_address = open_store(f"{tmp_path}/a b"), open_store(f"file://{tmp_path}/a%20b")
    assert isinstance(by_path, LocalStore)
    assert isinstance(by_address, LocalStore)
    assert by_path.root == by_address.root == tmp_path.resolve() / "a b"
    assert by_path.bucket == "a b"
