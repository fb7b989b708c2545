"""The contract of object stores, held by the local folder and by S3 (a real SeaweedFS)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voxelmill_shared.errors import ObjectMissingError, ObjectUnreadableError, StoreUnavailableError, UnsafeKeyError
from voxelmill_shared.storage.connect import StoreAddressError, open_store
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.s3 import PART_BYTES, S3Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from servers.seaweedfs import S3Server
    from voxelmill_shared.storage.base import ObjectStat, ObjectStore

MIB = 1 << 20


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    """Give an empty store: a folder, or what begins with a prefix in a bucket."""
    if request.param == "local":
        opened = open_store(f"file://{tmp_path / 'store'}", bucket="results")
        await opened.check()
    else:
        opened = open_store(f"s3://{request.getfixturevalue('bucket')}/some/prefix", bucket="results")
    yield opened
    await opened.close()


async def listed(store: ObjectStore, prefix: str = "") -> dict[str, ObjectStat]:
    """List by key, and make sure that no object comes twice."""
    found = [stat async for stat in store.list(prefix)]
    by_key = {stat.key: stat for stat in found}
    assert len(by_key) == len(found)
    return by_key


def md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


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


ODD = [
    "a b",
    "a+b",
    "100%",
    "%2B",
    "a?b#c&d=e",
    "Zähne",
    "Za\u0308hne",
    "牙/齒",
    "🦷/🩻.dcm",
    "~!@$^*()_-'\";:,<>[]{}|`",
    "...",
]


@pytest.mark.parametrize("key", ODD)
async def test_odd_keys_are_kept_as_they_are(store: ObjectStore, key: str, tmp_path: Path) -> None:
    """Keys are raw: nothing is decoded, encoded or normalised on the way."""
    await store.write(f"odd/{key}", key.encode())
    assert set(await listed(store)) == {f"odd/{key}"}
    assert set(await listed(store, f"odd/{key[:1]}")) == {f"odd/{key}"}
    assert (await store.head(f"odd/{key}")).key == f"odd/{key}"
    assert await store.read(f"odd/{key}") == key.encode()
    assert (await store.fetch(f"odd/{key}", tmp_path / "f")).read_bytes() == key.encode()
    await store.delete(f"odd/{key}")
    assert not await listed(store)


# No control characters: XML, in which S3 answers, cannot hold most of them. No backslash: SeaweedFS makes it `/`.
# Parts within what every disk can hold.
PARTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=40)
KEYS = st.lists(PARTS.filter(lambda part: part not in {".", ".."}), min_size=1, max_size=4).map("/".join)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=KEYS)
async def test_any_key_is_kept_as_it_is(store: ObjectStore, key: str) -> None:
    """What `check_key` accepts can be written, listed and read by the same name."""
    key = f"{uuid.uuid4().hex}/{key}"
    await store.write(key, key.encode())
    assert set(await listed(store, key[:33])) == {key}
    assert await store.read(key) == key.encode()


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../a", "a/../../b", "a/./b", "a//b", "a/", "a\0b", "k" * 1025])
async def test_unsafe_keys_are_refused_by_everything(store: ObjectStore, key: str, tmp_path: Path) -> None:
    """No operation takes a key that would leave the store or could not be kept faithfully."""
    source = tmp_path / "source"
    source.write_bytes(b"x")
    for operation in (
        store.head(key),
        store.exists(key),
        store.read(key),
        store.fetch(key, tmp_path),
        store.write(key, b"x"),
        store.write_file(key, source),
        store.delete(key),
    ):
        with pytest.raises(UnsafeKeyError):
            await operation
    with pytest.raises(UnsafeKeyError):
        await listed(store, "../a")
    assert not await listed(store)


async def test_fetching_brings_a_file(store: ObjectStore, tmp_path: Path) -> None:
    """The file holds the object, whatever its key would do to a path; two keys give two files."""
    await store.write("a/1.dcm", b"one")
    await store.write("b/1.dcm", b"two")
    first = await store.fetch("a/1.dcm", tmp_path / "new" / "folder")
    second = await store.fetch("b/1.dcm", tmp_path / "new" / "folder")
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")
    await store.write("a/1.dcm", b"three")
    assert (await store.fetch("a/1.dcm", tmp_path / "new" / "folder")).read_bytes() == b"three"


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


async def test_store_that_is_down_is_unavailable(
    unused_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens, or the root is no folder: worth a retry, and said in one line that names the store."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    (tmp_path / "root").write_bytes(b"a file")
    down: list[ObjectStore] = [
        S3Store("bucket", endpoint_url=f"http://127.0.0.1:{unused_port}", tries=1),
        LocalStore(tmp_path / "root"),
    ]
    for store in down:
        for operation in (store.check(), listed(store)):
            with pytest.raises(StoreUnavailableError, match=r"bucket|root") as caught:
                await operation
            assert "\n" not in str(caught.value)
        with pytest.raises(StoreUnavailableError, match=r"bucket/a/b|root"):
            await store.write("a/b", b"x")
        await store.close()


@pytest.fixture
def unused_port() -> int:
    """Give a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def test_server_that_falls_silent_is_unavailable() -> None:
    """A connection on which nothing comes ends in an error, not in a wait without end."""
    connected: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: connected.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = S3Store("bucket", endpoint_url=f"http://127.0.0.1:{port}", tries=1, read_seconds=0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "x")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        with pytest.raises(StoreUnavailableError):
            await store.read("a")
    await store.close()
    assert connected
    for writer in connected:
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("bucket_status", "code", "expected"),
    [
        (200, "AccessDenied", ObjectUnreadableError),
        (200, "InvalidObjectState", ObjectUnreadableError),  # archived
        (200, "InvalidAccessKeyId", StoreUnavailableError),
        (403, "AccessDenied", StoreUnavailableError),
        (503, "AccessDenied", StoreUnavailableError),
    ],
)
async def test_object_that_is_refused_is_told_from_a_store_that_is(
    bucket_status: int, code: str, expected: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wait for the one could be for ever, a wait for the other ends when the store is mended."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = request.splitlines()[0].split(" ")
        status = bucket_status if target.split("?")[0] == "/bucket" else 403
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>" if method == "GET" else ""
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    store = S3Store("bucket", endpoint_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", tries=1)
    for operation in (store.read("a"), store.fetch("a", tmp_path)):
        with pytest.raises(expected):
            await operation
    with pytest.raises(StoreUnavailableError):
        await store.write("a", b"x")
    if code != "InvalidAccessKeyId":  # a HEAD does not say why it is refused
        with pytest.raises(expected):
            await store.head("a")
    await store.close()
    server.close()
    await server.wait_closed()


@pytest.mark.s3
async def test_missing_bucket_and_wrong_credentials_are_unavailable(
    s3_environment: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is "no such object": the store as a whole cannot be used, and the reason says why."""
    store = S3Store(f"no-such-bucket-{uuid.uuid4().hex[:8]}")
    for operation in (store.check(), store.write("a", b"x"), store.exists("a"), store.read("a"), listed(store)):
        with pytest.raises(StoreUnavailableError, match="no such bucket"):
            await operation
    await store.close()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = S3Store("whatever")
    with pytest.raises(StoreUnavailableError, match=r"secret key|access denied"):
        await store.write("a", b"x")
    await store.close()
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    store = S3Store("whatever")
    with pytest.raises(StoreUnavailableError, match="credentials"):
        await store.write("a", b"x")
    await store.close()
    assert s3_environment.endpoint.startswith("http://127.0.0.1:")


@pytest.mark.s3
async def test_multipart_upload_that_fails_leaves_nothing(
    bucket: str, s3_environment: S3Server, tmp_path: Path
) -> None:
    """A file that cannot be read to its end: no object, and no upload that costs money for ever."""
    source = tmp_path / "source"
    source.write_bytes(bytes(PART_BYTES + 1))
    store = S3Store(bucket)

    class DiesHalfWay(type(source)):  # type: ignore[misc]
        def open(self, *args: object, **options: object) -> object:
            file = super().open(*args, **options)
            read = file.read

            class File:
                fileno, close = file.fileno, file.close

                def read(self, size: int = -1) -> bytes:
                    if file.tell():
                        raise OSError(5, "Input/output error")
                    return bytes(read(size))

            return File()

    with pytest.raises(OSError, match="Input/output"):
        await store.write_file("big", DiesHalfWay(source))
    assert not await store.exists("big")
    await store.close()
    client = s3_environment.client()
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    client.close()


@pytest.mark.s3
async def test_what_other_tools_put_into_a_bucket(bucket: str, s3_environment: S3Server) -> None:
    """Folders that a console drew are no objects, and objects outside the prefix are not ours."""
    client = s3_environment.client()
    client.put_object(Bucket=bucket, Key="inbox/folder/", Body=b"")
    client.put_object(Bucket=bucket, Key="inbox/folder/a.dcm", Body=b"x")
    client.put_object(Bucket=bucket, Key="inbox-2/b.dcm", Body=b"x")
    client.close()
    store = open_store(f"s3://{bucket}/inbox/")
    assert store.bucket == bucket
    assert set(await listed(store)) == {"folder/a.dcm"}
    await store.close()


@pytest.mark.s3
async def test_download_that_breaks_is_taken_up_where_it_broke(bucket: str, s3_environment: S3Server) -> None:
    """A connection that is cut in the middle of a body costs a new request for the rest, not the download."""
    store = S3Store(bucket)
    body = os.urandom(3 * MIB)
    await store.write("big", body)
    await store.close()
    host, port = s3_environment.endpoint.removeprefix("http://").split(":")
    cuts = 2
    relays = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal cuts
        relays.add(asyncio.current_task())
        server_reader, server_writer = await asyncio.open_connection(host, int(port))

        async def up() -> None:
            while data := await reader.read(65536):
                server_writer.write(data)

        upward = asyncio.create_task(up())
        passed = 0
        try:
            while data := await server_reader.read(65536):
                passed += len(data)
                if passed > MIB and cuts:
                    cuts -= 1
                    break
                writer.write(data)
                await writer.drain()
        finally:
            upward.cancel()
            for end in (writer, server_writer):
                end.close()
                await end.wait_closed()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    through = S3Store(bucket, endpoint_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert await through.read("big") == body
    assert not cuts
    await through.close()
    for task in relays:
        task.cancel()
    await asyncio.gather(*relays, return_exceptions=True)
    server.close()
    await server.wait_closed()


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
