"""What others put into a bucket by presigned addresses, whole and in parts (a real SeaweedFS)."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from contract.storage_kit import MIB, md5
from voxelmill_shared.errors import ObjectMissingError
from voxelmill_shared.storage.s3 import S3Store
from voxelmill_shared.storage.s3_parts import Part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.s3

HOUR = timedelta(hours=1)
PART = 5 * MIB
"""The smallest that a part may be which is not the last (Amazon S3 User Guide, "multipart upload limits")."""
KEY = "uploads/a b/000001+ä.dcm"


@pytest.fixture
async def store(bucket: str) -> AsyncIterator[S3Store]:
    """Give a store behind a prefix."""
    opened = S3Store(bucket, "some/in box")
    yield opened
    await opened.close()


async def put(address: str, body: bytes) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.put(address, content=body)


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("token", ["", "a/token+with="])
async def test_address_is_the_one_that_the_library_of_aws_makes(
    store: S3Store, method: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key, bucket, times, credentials that end: the same address, to the signature."""
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    client = await store._client()
    operation = "get_object" if method == "GET" else "put_object"
    theirs = await client.generate_presigned_url(
        operation, Params={"Bucket": store.parts.bucket, "Key": f"some/in box/{KEY}"}, ExpiresIn=3600
    )
    moment = httpx.URL(theirs).params["X-Amz-Date"]
    now = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    addresses = await store.parts.addresses(HOUR, now=now)
    ours = addresses.get(KEY) if method == "GET" else addresses.put(KEY)
    assert httpx.URL(ours).raw_path.partition(b"?")[0] == httpx.URL(theirs).raw_path.partition(b"?")[0]
    assert dict(httpx.URL(ours).params) == dict(httpx.URL(theirs).params)
    assert addresses.until == now + HOUR


async def test_an_address_takes_as_many_bytes_as_were_said(store: S3Store) -> None:
    """An object of another size than the one that was declared is refused by the server itself."""
    addresses = await store.parts.addresses(HOUR)
    address = addresses.put(KEY, 5)
    assert (await put(address, b"123456")).status_code == 403
    assert not await store.exists(KEY)
    assert (await put(address, b"12345")).status_code == 200
    assert await store.read(KEY) == b"12345"
    async with httpx.AsyncClient() as client:
        assert (await client.get(addresses.get(KEY))).content == b"12345"


async def test_parts_come_by_addresses_in_any_order(store: S3Store) -> None:
    """Each part by its own address; they are listed by number, and the object is all of them in order."""
    body = os.urandom(2 * PART + 7)
    pieces = [body[:PART], body[PART : 2 * PART], body[2 * PART :]]
    upload = await store.parts.begin(KEY, "application/dicom")
    addresses = await store.parts.addresses(HOUR)
    assert await store.parts.sent(KEY, upload) == []
    answers = await asyncio.gather(
        *(
            put(addresses.put_part(KEY, upload, number, len(pieces[number - 1])), pieces[number - 1])
            for number in (3, 1, 2)
        )
    )
    assert [answer.status_code for answer in answers] == [200] * 3
    sent = await store.parts.sent(KEY, upload)
    assert sent == [Part(number, len(piece), md5(piece)) for number, piece in enumerate(pieces, 1)]
    assert not await store.exists(KEY)
    await store.parts.complete(KEY, upload, sent)
    assert await store.read(KEY) == body
    with pytest.raises(ObjectMissingError):
        await store.parts.sent(KEY, upload)


async def test_a_part_from_a_file(store: S3Store, tmp_path: Path) -> None:
    """What comes through us goes the same way; of a part that was sent twice the one that is named is taken."""
    upload = await store.parts.begin(KEY, "application/octet-stream")
    (tmp_path / "first").write_bytes(b"wrong")
    (tmp_path / "second").write_bytes(b"right")
    await store.parts.send(KEY, upload, 1, tmp_path / "first", 5)
    sent = await store.parts.send(KEY, upload, 1, tmp_path / "second", 5)
    assert sent == Part(1, 5, md5(b"right"))
    assert sent in await store.parts.sent(KEY, upload)
    await store.parts.complete(KEY, upload, [sent])
    assert await store.read(KEY) == b"right"


async def test_what_nobody_completes_is_thrown_away(store: S3Store, tmp_path: Path) -> None:
    """One upload by its name, or all below a prefix and no other; twice is no error."""
    (tmp_path / "part").write_bytes(b"part")
    uploads = {}
    for key in ("uploads/one/1", "uploads/one/2", "uploads/onecond/1"):
        uploads[key] = await store.parts.begin(key, "application/octet-stream")
        await store.parts.send(key, uploads[key], 1, tmp_path / "part", 4)
    for _ in range(2):
        await store.parts.abort("uploads/one/2", uploads["uploads/one/2"])
    with pytest.raises(ObjectMissingError):
        await store.parts.sent("uploads/one/2", uploads["uploads/one/2"])
    assert await store.parts.abort_all("uploads/one/") == 1
    assert await store.parts.abort_all("uploads/one/") == 0
    assert [one.key for one in await store.unfinished_uploads()] == ["uploads/onecond/1"]
    assert len(await store.parts.sent("uploads/onecond/1", uploads["uploads/onecond/1"])) == 1
    await store.parts.abort_all("")


async def test_an_upload_that_the_server_does_not_know(store: S3Store, tmp_path: Path) -> None:
    """It was aborted by a rule of the bucket, say: told apart from a server that is out of order."""
    (tmp_path / "part").write_bytes(b"part")
    upload = await store.parts.begin(KEY, "application/octet-stream")
    await store.parts.abort(KEY, upload)
    with pytest.raises(ObjectMissingError):
        await store.parts.send(KEY, upload, 1, tmp_path / "part", 4)
    with pytest.raises(ObjectMissingError):
        await store.parts.complete(KEY, upload, [Part(1, 4, md5(b"part"))])
