"""A large file into a bucket, in parts: bounded in memory, and taken back or taken up again when it fails."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from voxelmill_shared.concurrency import each

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from datetime import datetime
    from pathlib import Path
    from typing import BinaryIO

PART_BYTES = 16 << 20
"""Larger files are sent in parts of this size, or of more where 10,000 of them would not do (S3's limit)."""

_MOST_PARTS = 10_000
_PARTS_IN_FLIGHT = 4
_UNIT = 1 << 20
_MEMORY_UNITS = 6 * PART_BYTES // _UNIT


def part_bytes(size: int) -> int:
    """Return the size of the parts in which a file of `size` bytes is sent."""
    return max(PART_BYTES, -(-size // _MOST_PARTS))


def _md5(body: bytes = b"") -> Any:
    return hashlib.md5(body, usedforsecurity=False)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[BinaryIO]:
    """Open a file for reading in a thread, and close it, also if the task is cancelled while it is being opened."""
    opening = asyncio.ensure_future(asyncio.to_thread(path.open, "rb"))
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        with suppress(OSError):
            (await opening).close()
        raise
    try:
        yield file
    finally:
        file.close()


class ByteBudget:
    """A bound on the bytes that all uploads of a store hold in memory together; first come, first served.

    A piece that is larger than the whole budget gets all of it.
    """

    def __init__(self, units: int = _MEMORY_UNITS) -> None:
        self._total = units
        self._units = asyncio.Semaphore(units)
        self._queue = asyncio.Lock()

    @asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        """Wait until so many bytes may be held, and hold them."""
        wanted = min(-(-size // _UNIT), self._total)
        taken = 0
        try:
            async with self._queue:  # two that had half of what they want each would wait for each other
                while taken < wanted:
                    await self._units.acquire()
                    taken += 1
            yield
        finally:
            for _ in range(taken):
                self._units.release()


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """A multipart upload that nobody has completed: its parts take room, and no list shows them."""

    key: str
    begun: datetime
    bytes: int


async def unfinished_uploads(client: Any, bucket: str, prefix: str) -> list[UnfinishedUpload]:
    """Find the unfinished uploads of all keys that begin with `prefix`, and the bytes that the server has of them."""
    found = []
    for upload in await listed_uploads(client, bucket, prefix):
        size = 0
        async for part in listed_parts(client, {"Bucket": bucket, "Key": upload["Key"]}, upload["UploadId"]):
            size += part["Size"]
        found.append(UnfinishedUpload(upload["Key"], upload["Initiated"], size))
    return found


async def listed_uploads(client: Any, bucket: str, prefix: str) -> list[Any]:
    """List the unfinished uploads of all keys that begin with `prefix`, as the server describes them."""
    found: list[Any] = []
    request = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = await client.list_multipart_uploads(**request)
        found += page.get("Uploads", ())
        if not page.get("IsTruncated"):
            return found
        request |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


async def listed_parts(client: Any, where: Mapping[str, str], upload_id: str) -> AsyncIterator[Any]:
    """List the parts that the server has of an upload, as it describes them."""
    marker: dict[str, int] = {}
    while True:
        page = await client.list_parts(**where, UploadId=upload_id, **marker)
        for part in page.get("Parts", ()):
            yield part
        if not page.get("IsTruncated"):
            return
        marker = {"PartNumberMarker": page["NextPartNumberMarker"]}


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What the server has now."""

    size: int
    etag: str
    sha256: str


class MultipartUpload:
    """One file on its way into a bucket, in parts.

    What fails is taken back, so that no part costs money for ever; with `resume` it is left, and the next upload of
    the same file under the same key sends only the parts that the server does not have.

    Parameters
    ----------
    client
        An S3 client of aiobotocore.
    where
        `Bucket` and `Key`.
    file, size
        The open file and its size in bytes.
    budget
        The bound on what is in memory.
    resume
        Whether to take up an unfinished upload of this key, and to leave this one unfinished if it fails. Two such
        uploads of one key must not run at a time.
    on_sent
        Is told the number of bytes of each part that the server has.
    """

    def __init__(
        self,
        client: Any,
        where: Mapping[str, str],
        file: BinaryIO,
        size: int,
        budget: ByteBudget,
        *,
        resume: bool = False,
        on_sent: Callable[[int], None] | None = None,
    ) -> None:
        self._client = client
        self._where = where
        self._budget = budget
        self._resume = resume
        self._on_sent = on_sent
        self._source = _Parts(file, part_bytes(size))
        self._standing: dict[int, str] = {}
        self._id = ""

    async def send(self, media_type: str) -> Uploaded:
        """Send what the server lacks, and let it put the parts together."""
        await self._begin(media_type)
        try:
            sent = sorted(chain.from_iterable(await each(self._send_some, range(_PARTS_IN_FLIGHT), _PARTS_IN_FLIGHT)))
            etag = await self._complete(sent)
        except BaseException:
            if not self._resume:
                await self._abort()
            raise
        return Uploaded(self._source.size, etag, self._source.sha256.hexdigest())

    async def _begin(self, media_type: str) -> None:
        if self._resume and await self._find():
            return
        creating = asyncio.ensure_future(self._client.create_multipart_upload(**self._where, ContentType=media_type))
        try:
            self._id = (await asyncio.shield(creating))["UploadId"]
        except asyncio.CancelledError:
            # The server may have begun it already, and without its id nobody could take it back.
            with suppress(ClientError, BotoCoreError):
                self._id = (await creating)["UploadId"]
                if not self._resume:
                    await self._abort()
            raise

    async def _find(self) -> bool:
        """Look for the latest unfinished upload of this key, and for the parts that it has."""
        listed = await listed_uploads(self._client, self._where["Bucket"], self._where["Key"])
        found = [upload for upload in listed if upload["Key"] == self._where["Key"]]
        if not found:
            return False
        self._id = max(found, key=lambda upload: upload["Initiated"])["UploadId"]
        async for part in listed_parts(self._client, self._where, self._id):
            self._standing[part["PartNumber"]] = part["ETag"].strip('"')
        return True

    async def _send_some(self, _: int) -> list[tuple[int, str]]:
        sent: list[tuple[int, str]] = []
        while True:
            async with self._budget.of(self._source.part_bytes):
                part = await self._source.next()
                if part is None:
                    return sent
                etag = self._standing.get(part.number)
                if etag != part.md5.hex():  # else the server has these very bytes
                    answer = await self._client.upload_part(
                        **self._where,
                        UploadId=self._id,
                        PartNumber=part.number,
                        Body=part.body,
                        ContentMD5=base64.b64encode(part.md5).decode(),
                    )
                    etag = answer["ETag"]
                sent.append((part.number, etag))
                if self._on_sent:
                    self._on_sent(len(part.body))

    async def _complete(self, sent: list[tuple[int, str]]) -> str:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in sent]
        try:
            answer = await self._client.complete_multipart_upload(
                **self._where, UploadId=self._id, MultipartUpload={"Parts": parts}
            )
        except (ClientError, BotoCoreError) as error:
            # The first answer may have been lost, and then there is no such upload any more: look what stands.
            try:
                found = await self._client.head_object(**self._where)
            except (ClientError, BotoCoreError):
                raise error from None
            if found["ContentLength"] != self._source.size or found["ETag"].strip('"') != self._source.etag():
                raise
            return self._source.etag()
        # Ceph 16 answers with an empty one.
        return str(answer["ETag"]).strip('"') or self._source.etag()

    async def _abort(self) -> None:
        with suppress(ClientError, BotoCoreError):  # the error that brought us here is the one to tell of
            await asyncio.shield(self._client.abort_multipart_upload(**self._where, UploadId=self._id))


@dataclass(frozen=True, slots=True)
class _Part:
    number: int
    body: bytes
    md5: bytes


class _Parts:
    """Reads a file part by part for several senders, and takes the digests of the whole on the way."""

    def __init__(self, file: BinaryIO, part_bytes: int) -> None:
        self._file = file
        self.part_bytes = part_bytes
        self._turn = asyncio.Lock()
        self._md5s: list[bytes] = []
        self.size = 0
        self.sha256 = hashlib.sha256()

    def etag(self) -> str:
        """Name the whole as S3 does where it does not encrypt with keys of its own: the MD5 of the parts' MD5s."""
        return f"{_md5(b''.join(self._md5s)).hexdigest()}-{len(self._md5s)}"

    async def next(self) -> _Part | None:
        async with self._turn:  # the digest needs the parts in their order
            return await asyncio.to_thread(self._read)

    def _read(self) -> _Part | None:
        body = self._file.read(self.part_bytes)
        if not body:
            return None
        self.size += len(body)
        self.sha256.update(body)
        self._md5s.append(_md5(body).digest())
        return _Part(len(self._md5s), body, self._md5s[-1])
