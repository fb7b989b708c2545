"""What S3 adds to the contract of stores: parts, what others put there, addresses for browsers, connections."""

from __future__ import annotations

import asyncio
import os
import urllib.error
import urllib.request
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from contract.storage_kit import MIB, listed, relayed
from voxelmill_shared.errors import StoreUnavailableError
from voxelmill_shared.storage.connect import open_store
from voxelmill_shared.storage.s3 import S3Store
from voxelmill_shared.storage.s3_upload import PART_BYTES, ByteBudget

if TYPE_CHECKING:
    from pathlib import Path

    from servers.seaweedfs import S3Server


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
async def test_upload_is_taken_up_where_it_failed(bucket: str, s3_environment: S3Server, tmp_path: Path) -> None:
    """The parts that the server has are not sent again, whoever sent them; those that changed since are."""
    body = os.urandom(MIB) * 16 + os.urandom(MIB) * 16 + os.urandom(3 * MIB)
    source = tmp_path / "source"
    source.write_bytes(body)
    async with relayed(s3_environment) as relay:
        store = S3Store(bucket, endpoint_url=relay.endpoint, tries=1)
        client = s3_environment.client()
        begun = client.create_multipart_upload(Bucket=bucket, Key="big")
        client.upload_part(Bucket=bucket, Key="big", UploadId=begun["UploadId"], PartNumber=1, Body=body[:PART_BYTES])
        client.upload_part(Bucket=bucket, Key="big", UploadId=begun["UploadId"], PartNumber=2, Body=bytes(PART_BYTES))
        seen: list[int] = []
        written = await store.resume_file("big", source, on_sent=seen.append)
        assert (written.size, sum(seen)) == (len(body), len(body))
        assert [relay.count("PUT", f"partNumber={number}") for number in (1, 2, 3)] == [0, 1, 1]
        assert await store.read("big") == body
        await store.close()
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    client.close()


@pytest.mark.s3
async def test_upload_that_shall_be_taken_up_is_left(bucket: str, s3_environment: S3Server, tmp_path: Path) -> None:
    """What fails half way leaves its parts for the next try, and only then."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(PART_BYTES + 1))
    client = s3_environment.client()
    async with relayed(s3_environment) as relay:
        store = S3Store(bucket, endpoint_url=relay.endpoint, tries=1)
        sent = 0

        def cut(data: bytes) -> bytes | None:
            nonlocal sent
            sent += b"Etag: " in data or b"ETag: " in data
            return None if sent > 1 else data

        relay.down = cut
        with pytest.raises(StoreUnavailableError):
            await store.resume_file("big", source)
        (left,) = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
        assert client.list_parts(Bucket=bucket, Key="big", UploadId=left["UploadId"])["Parts"]
        relay.down = lambda data: data
        await store.resume_file("big", source)
        assert await store.read("big") == source.read_bytes()
        await store.close()
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    client.close()


AWKWARD = ["a b+c%2B", "100%?x=1&y#z", "Zähne/牙/🦷.dcm", "~!@$^*()_-'\";:,<>[]{}|`"]


@pytest.mark.s3
@pytest.mark.parametrize("key", AWKWARD)
async def test_anyone_reads_and_writes_by_a_presigned_address(bucket: str, key: str) -> None:
    """For this object and this method only; the key may hold whatever a key may hold."""
    store = S3Store(bucket, "some/prefix")

    def request(url: str, method: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(url, data=body, method=method), timeout=10) as answer:
            content: bytes = answer.read()
        return content

    put = await store.presign(key, timedelta(minutes=1), "PUT")
    await asyncio.to_thread(request, put, "PUT", b"by the browser")
    assert await store.read(key) == b"by the browser"
    assert set(await listed(store)) == {key}
    get = await store.presign(key, timedelta(minutes=1))
    assert "X-Amz-Signature=" in get
    assert await asyncio.to_thread(request, get, "GET") == b"by the browser"
    with pytest.raises(urllib.error.HTTPError) as refused:
        await asyncio.to_thread(request, get, "PUT", b"x")
    assert refused.value.code == 403
    refused.value.close()
    await store.close()


@pytest.mark.s3
async def test_presigned_address_ends(bucket: str) -> None:
    """One that is asked to last for ever, or no time at all, is a mistake of the caller."""
    store = S3Store(bucket)
    for expires in (timedelta(0), timedelta(days=8)):
        with pytest.raises(ValueError, match="seven days"):
            await store.presign("a", expires)
    await store.close()


@pytest.mark.s3
async def test_connections_are_bounded_and_none_stays_open(bucket: str, s3_environment: S3Server) -> None:
    """More requests than connections wait for each other; closing the store hangs up all."""
    async with relayed(s3_environment) as relay:
        store = S3Store(bucket, endpoint_url=relay.endpoint, connections=3)
        await asyncio.gather(*(store.write(f"a/{number}", bytes(100_000)) for number in range(20)))
        assert relay.most_open == 3
        await store.close()
        async with asyncio.timeout(10):
            await relay.idle.wait()  # it has yet to see the end


async def test_uploads_together_hold_a_bounded_number_of_bytes() -> None:
    """Whoever wants more than is left waits, in the order of asking; what is larger than all gets all."""
    budget = ByteBudget(4)
    order: list[str] = []
    inside = asyncio.Event()
    leave = asyncio.Event()

    async def hold(name: str, size: int) -> None:
        async with budget.of(size):
            order.append(name)
            inside.set()
            if name == "first":
                await leave.wait()

    tasks = [asyncio.create_task(hold("first", 3 * MIB))]
    await inside.wait()
    tasks += [asyncio.create_task(hold("giant", 100 * MIB)), asyncio.create_task(hold("small", 1))]
    for _ in range(10):
        await asyncio.sleep(0)
    assert order == ["first"]
    leave.set()
    await asyncio.gather(*tasks)
    assert order == ["first", "giant", "small"]
    waiting = asyncio.create_task(hold("cancelled", 4 * MIB))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await hold("last", 4 * MIB)
    assert order[-1] == "last"
