"""Stores that are down, silent, wrong or disturbed: what is said, and that no wrong byte comes through."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import uuid
import zlib
from typing import TYPE_CHECKING

import pytest

from contract.storage_kit import MIB, answering, listed, md5, relayed
from voxelmill_shared.errors import ObjectDamagedError, ObjectUnreadableError, StoreUnavailableError
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.s3 import S3Store
from voxelmill_shared.storage.s3_upload import PART_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from servers.seaweedfs import S3Server
    from voxelmill_shared.storage.base import ObjectStore


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give credentials that the stand-ins of servers do not look at."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")


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
    bucket_status: int, code: str, expected: type[Exception], credentials: None, tmp_path: Path
) -> None:
    """A wait for the one could be for ever, a wait for the other ends when the store is mended."""

    def answer(method: str, target: str) -> tuple[int, dict[str, str], bytes]:
        status = bucket_status if target.split("?", maxsplit=1)[0] == "/bucket" else 403
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>" if method == "GET" else ""
        return status, {}, body.encode()

    async with answering(answer) as endpoint:
        store = S3Store("bucket", endpoint_url=endpoint, tries=1)
        for operation in (store.read("a"), store.fetch("a", tmp_path)):
            with pytest.raises(expected):
                await operation
        with pytest.raises(StoreUnavailableError):
            await store.write("a", b"x")
        if code != "InvalidAccessKeyId":  # a HEAD does not say why it is refused
            with pytest.raises(expected):
                await store.head("a")
        await store.close()


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
async def test_download_that_breaks_is_taken_up_where_it_broke(
    bucket: str, s3_environment: S3Server, tmp_path: Path
) -> None:
    """A connection that is cut in the middle of a body costs a new request for the rest, not the download."""
    body = os.urandom(3 * MIB)
    cuts = 2
    passed = 0

    def cut(data: bytes) -> bytes | None:
        nonlocal cuts, passed
        passed += len(data)
        if passed > MIB and cuts:
            cuts, passed = cuts - 1, 0
            return None
        return data

    async with relayed(s3_environment) as relay:
        store = S3Store(bucket, endpoint_url=relay.endpoint)
        written = await store.write("big", body)
        relay.down = cut
        assert await store.read("big") == body
        assert not cuts
        assert relay.bytes_down < len(body) + MIB
        cuts = 2
        assert (await store.fetch("big", tmp_path, etag=written.etag)).read_bytes() == body
        assert not cuts
        await store.close()


@pytest.mark.s3
async def test_damaged_download_is_noticed_and_done_again(
    bucket: str, s3_environment: S3Server, tmp_path: Path
) -> None:
    """A byte that changes on its way never reaches a reader: once costs a second download, twice is an error."""
    body = b"HERE" + os.urandom(4000)
    damages = 1

    def damage(data: bytes) -> bytes:
        nonlocal damages
        if b"HERE" in data and damages:
            damages -= 1
            return data.replace(b"HERE", b"hERE", 1)
        return data

    async with relayed(s3_environment) as relay:
        store = S3Store(bucket, endpoint_url=relay.endpoint)
        await store.write("a", body)
        relay.down = damage
        assert (await store.fetch("a", tmp_path)).read_bytes() == body
        assert not damages
        damages = 2
        with pytest.raises(ObjectDamagedError, match=f"{bucket}/a: the MD5 of what came is"):
            await store.fetch("a", tmp_path / "twice")
        assert not list((tmp_path / "twice").iterdir())
        await store.close()


@pytest.mark.s3
async def test_lost_answer_to_the_end_of_an_upload_loses_no_upload(
    bucket: str, s3_environment: S3Server, tmp_path: Path
) -> None:
    """The server has put the parts together, and nobody heard of it: what stands is what was sent, so it is done."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(PART_BYTES + 1))
    async with relayed(s3_environment) as relay:
        store = S3Store(bucket, endpoint_url=relay.endpoint, tries=1)
        relay.down = lambda data: None if b"<CompleteMultipartUploadResult" in data else data
        written = await store.write_file("big", source)
        assert await store.head("big")
        assert written.etag == (await store.head("big")).etag
        assert relay.count("POST", "uploadId") == 1
        await store.close()


@pytest.mark.s3
async def test_upload_that_is_cancelled_while_it_begins_leaves_nothing(
    bucket: str, s3_environment: S3Server, tmp_path: Path
) -> None:
    """The server has begun it and its answer is on the way: it is waited for and taken back."""
    source = tmp_path / "source"
    source.write_bytes(bytes(PART_BYTES + 1))
    begun = asyncio.Event()

    def noting(data: bytes) -> bytes:
        if b"<InitiateMultipartUploadResult" in data:
            begun.set()
            upload.cancel()
        return data

    client = s3_environment.client()
    async with relayed(s3_environment) as relay:
        relay.down = noting
        store = S3Store(bucket, endpoint_url=relay.endpoint)
        upload = asyncio.create_task(store.write_file("big", source))
        with pytest.raises(asyncio.CancelledError):
            await upload
        assert begun.is_set()
        assert relay.count("DELETE", "uploadId") == 1
        await store.close()
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    client.close()


async def test_server_that_ignores_ranges_is_not_believed(credentials: None, tmp_path: Path) -> None:
    """The whole object where a part was asked for would be wrong bytes in the right number of pieces."""
    body = b"0123456789"
    headers = {"ETag": f'"{md5(body)}"', "Last-Modified": "Sat, 01 Jan 2000 00:00:00 GMT"}
    async with answering(lambda *_: (200, headers, body)) as endpoint:
        store = S3Store("bucket", endpoint_url=endpoint, tries=1)
        for start, length in ((3, None), (3, 4), (0, 4)):
            with pytest.raises(StoreUnavailableError, match="range"):
                await store.read("a", start, length)
        assert await store.read("a", 0, 10) == body
        assert (await store.fetch("a", tmp_path)).read_bytes() == body
        await store.close()


@pytest.mark.parametrize(
    ("etag", "more", "sound"),
    [
        ("", {}, True),
        ("0" * 32, {}, False),
        ("0" * 32, {"x-amz-server-side-encryption": "AES256"}, False),
        ("0" * 32, {"x-amz-server-side-encryption": "aws:kms"}, True),  # looks like an MD5 and is none
        ("0" * 32 + "-2", {}, True),  # nothing to compare with
        ("0" * 32 + "-2", {"x-amz-checksum-crc32": "right"}, True),
        ("0" * 32 + "-2", {"x-amz-checksum-crc32": "AAAAAA=="}, False),
    ],
)
@pytest.mark.parametrize("size", [100, 2 * MIB])
async def test_what_comes_is_held_against_every_digest_that_the_server_has(
    etag: str, more: dict[str, str], sound: bool, size: int, credentials: None, tmp_path: Path
) -> None:
    """The ETag where it is an MD5, else the server's checksum where it has one."""
    body = os.urandom(size)
    headers = {"ETag": f'"{etag or md5(body)}"', "Last-Modified": "Sat, 01 Jan 2000 00:00:00 GMT", **more}
    if more.get("x-amz-checksum-crc32") == "right":
        headers["x-amz-checksum-crc32"] = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    asked = 0

    def answer(*_: str) -> tuple[int, dict[str, str], bytes]:
        nonlocal asked
        asked += 1
        return 200, headers, body

    async with answering(answer) as endpoint:
        store = S3Store("bucket", endpoint_url=endpoint, tries=1)
        if sound:
            assert (await store.fetch("a", tmp_path)).read_bytes() == body
            assert asked == 1
        else:
            with pytest.raises(ObjectDamagedError):
                await store.fetch("a", tmp_path)
            assert asked == 2
            assert not any(tmp_path.iterdir())  # noqa: ASYNC240 - a look into a folder
        await store.close()
