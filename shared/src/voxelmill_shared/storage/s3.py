"""Objects in a bucket of any S3 server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from voxelmill_shared.concurrency import each
from voxelmill_shared.errors import ObjectMissingError, ObjectUnreadableError, StoreUnavailableError, UnsafeKeyError
from voxelmill_shared.storage.base import ObjectStat, StoredObject
from voxelmill_shared.storage.keys import MAX_KEY_BYTES, check_key, check_prefix, printable
from voxelmill_shared.storage.s3_errors import BROKEN_STREAM, answering, is_missing, is_refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import BinaryIO

PART_BYTES = 16 << 20
"""Larger files are sent in parts of this size, or of more where 10,000 of them would not do (S3's limit)."""

_MOST_PARTS = 10_000
_PARTS_IN_FLIGHT = 4
_CHUNK = 1 << 20
_STREAM_TRIES = 4


class S3Store:
    """A bucket, or what begins with a prefix in it, as an object store; see `ObjectStore` for the contract.

    Credentials, region and `AWS_ENDPOINT_URL` come from the environment in the ways that all AWS tools know. Without
    the right to list the bucket, S3 answers a missing object with "access denied": `StoreUnavailableError`, as that
    right is needed. An object that is refused although the bucket answers is an `ObjectUnreadableError`.

    Keys of others that no store of ours could hold (`a//b`) are listed, and reading them raises `UnsafeKeyError`, so
    that whoever reads the list can say so. Empty objects whose key ends in `/` are folders that a console drew, and
    are left out.

    Parameters
    ----------
    bucket
        The bucket.
    prefix
        What stands before every key, without the `/` at its end; empty for the whole bucket.
    name
        The name that events use for this store; the bucket's if None.
    endpoint_url
        The server; from the environment if None, else AWS.
    path_style
        Whether the bucket stands in the path of the address and not in its host name. None: it does for every server
        but AWS.
    tries
        How often a request is sent before its error is believed (botocore's standard mode, with growing waits).
    connect_seconds, read_seconds
        How long to wait for a connection, and for each piece of an answer.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        name: str | None = None,
        endpoint_url: str | None = None,
        region: str | None = None,
        path_style: bool | None = None,
        tries: int = 4,
        connect_seconds: float = 5.0,
        read_seconds: float = 60.0,
    ) -> None:
        prefix = prefix.strip("/")
        check_prefix(prefix)
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._name = name or bucket
        self._address = f"s3://{bucket}/{prefix}".rstrip("/")
        self._options: dict[str, Any] = {"endpoint_url": endpoint_url, "region_name": region}
        if path_style is None:
            path_style = bool(
                endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            )
        self._config = AioConfig(
            signature_version="s3v4",
            retries={"mode": "standard", "total_max_attempts": tries},
            connect_timeout=connect_seconds,
            read_timeout=read_seconds,
            max_pool_connections=32,
            s3={"addressing_style": "path" if path_style else "virtual"},
            # The newer checksums are not understood by older servers (Ceph 16); we send Content-MD5 ourselves.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._stack = AsyncExitStack()
        self._opened: Any = None
        self._opening = asyncio.Lock()
        self._bucket_seen = False

    @property
    def bucket(self) -> str:
        """The name that events use for this store."""
        return self._name

    def key_of(self, bucket: str, key: str) -> str | None:
        """Return the key behind the prefix, if it is this bucket and begins with the prefix."""
        if bucket != self._bucket or not key.startswith(self._prefix):
            return None
        return key.removeprefix(self._prefix) or None

    async def head(self, key: str) -> ObjectStat:
        """Look at an object without reading it."""
        full = self._full(key)
        client = await self._client()
        try:
            async with self._reading(key):
                answer = await client.head_object(Bucket=self._bucket, Key=full)
        except ObjectMissingError:
            if not self._bucket_seen:  # HEAD has no body that would tell a missing bucket from a missing object
                await self.check()
            raise
        return _stat(key, answer)

    async def exists(self, key: str) -> bool:
        """Whether the object is there."""
        try:
            await self.head(key)
        except ObjectMissingError:
            return False
        return True

    async def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read a range of an object, or all of it."""
        if start < 0 or (length is not None and length < 0):
            raise ValueError(f"no such range: start {start}, length {length}")
        if length == 0:
            await self.head(key)
            return b""
        content = bytearray()
        async for piece in self._stream(key, start, length):
            content += piece
        return bytes(content)

    async def read_head(self, key: str, length: int) -> tuple[ObjectStat, bytes]:
        """Look at an object and read its beginning, in one request: the answer to a range says what a HEAD says."""
        full = self._full(key)
        client = await self._client()
        async with self._reading(key):
            for tries_left in reversed(range(_STREAM_TRIES)):
                try:
                    answer = await client.get_object(Bucket=self._bucket, Key=full, Range=f"bytes=0-{length - 1}")
                    async with answer["Body"] as body:
                        head = await body.read()
                except BROKEN_STREAM:
                    if not tries_left:
                        raise
                except ClientError as error:
                    if error.response["ResponseMetadata"]["HTTPStatusCode"] != 416:
                        raise
                    # Not even a first byte (RFC 9110, 15.5.17); by now it may have got some.
                    stat = await self.head(key)
                    if not stat.size or not tries_left:
                        return stat, b""
                else:
                    return _stat(key, answer), head[:length]
        raise AssertionError("the last try raises or returns")

    async def fetch(self, key: str, directory: Path) -> Path:
        """Download an object into `directory`, whole or not at all."""
        name = hashlib.sha256(f"{self._address}\n{key}".encode()).hexdigest()[:32]
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        partial, target = directory / f"{name}.{secrets.token_hex(8)}", directory / name
        try:
            file = await asyncio.to_thread(partial.open, "xb")
            try:
                async for piece in self._stream(key, 0, None):
                    await asyncio.to_thread(file.write, piece)
            finally:
                await asyncio.to_thread(file.close)
            await asyncio.to_thread(partial.replace, target)
        except OSError as error:
            raise StoreUnavailableError(f"{directory}: {error.strerror}") from error
        finally:
            await asyncio.to_thread(partial.unlink, missing_ok=True)
        return target

    async def write(self, key: str, body: bytes, media_type: str = "application/octet-stream") -> StoredObject:
        """Put an object in one piece; the server checks its MD5 before it keeps it."""
        full = self._full(key)
        sha256 = await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
        client = await self._client()
        with answering(self._address, key):
            answer = await client.put_object(
                Bucket=self._bucket, Key=full, Body=body, ContentType=media_type, ContentMD5=_content_md5(body)
            )
        return StoredObject(key, len(body), _bare(answer["ETag"]), sha256)

    async def write_file(self, key: str, path: Path, media_type: str = "application/octet-stream") -> StoredObject:
        """Put a file's content, above 16 MiB in parts; what was begun and fails is taken back."""
        self._full(key)
        file = await asyncio.to_thread(path.open, "rb")
        try:
            size = os.fstat(file.fileno()).st_size
            if size <= PART_BYTES:
                return await self.write(key, await asyncio.to_thread(file.read), media_type)
            return await self._write_parts(key, file, max(PART_BYTES, -(-size // _MOST_PARTS)), media_type)
        finally:
            await asyncio.to_thread(file.close)

    async def delete(self, key: str) -> None:
        """Remove an object; no error if it is not there."""
        full = self._full(key)
        client = await self._client()
        with answering(self._address, key):
            await client.delete_object(Bucket=self._bucket, Key=full)

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectStat]:
        """List objects whose key begins with `prefix`, by continuation token."""
        check_prefix(prefix)
        client = await self._client()
        request = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        while True:
            with answering(self._address, prefix):
                page = await client.list_objects_v2(**request)
            for found in page.get("Contents", ()):
                if found["Key"].endswith("/") and not found["Size"]:
                    continue
                key = found["Key"].removeprefix(self._prefix)
                yield ObjectStat(key, found["Size"], _bare(found["ETag"]), found["LastModified"])
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    async def check(self) -> None:
        """Return if the server answers and has the bucket; raise `StoreUnavailableError` with the reason if not."""
        client = await self._client()
        with answering(self._address, ""):
            try:
                await client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if is_missing(error):
                    raise StoreUnavailableError(f"{self._address}: there is no such bucket") from error
                raise
        self._bucket_seen = True

    async def close(self) -> None:
        """Let go of connections. The next call opens them again."""
        stack, self._stack, self._opened = self._stack, AsyncExitStack(), None
        await stack.aclose()

    async def _client(self) -> Any:
        async with self._opening:
            if self._opened is None:
                with answering(self._address, ""):
                    context = get_session().create_client("s3", config=self._config, **self._options)
                    self._opened = await self._stack.enter_async_context(context)
            return self._opened

    def _full(self, key: str) -> str:
        check_key(key)
        full = self._prefix + key
        if len(full.encode()) > MAX_KEY_BYTES:
            raise UnsafeKeyError(f"{printable(key[:64])}...: with its prefix longer than {MAX_KEY_BYTES} bytes")
        return full

    @asynccontextmanager
    async def _reading(self, key: str) -> AsyncIterator[None]:
        try:
            with answering(self._address, key):
                yield
        except StoreUnavailableError as error:
            if not is_refused(error.__cause__):
                raise
            await self.check()  # HEAD has no body that would tell wrong credentials from a single object's refusal
            raise ObjectUnreadableError(str(error)) from error

    async def _stream(self, key: str, start: int, length: int | None) -> AsyncIterator[bytes]:
        """Give a range in pieces; a connection that breaks is taken up again where it broke, of the same content."""
        full = self._full(key)
        client = await self._client()
        end = "" if length is None else str(start + length - 1)
        etag: dict[str, str] = {}
        for tries_left in reversed(range(_STREAM_TRIES)):
            whole = not start and not end
            wanted = {} if whole else {"Range": f"bytes={start}-{end}"}
            async with self._reading(key):
                try:
                    answer = await client.get_object(Bucket=self._bucket, Key=full, **wanted, **etag)
                except ClientError as error:
                    if error.response["ResponseMetadata"]["HTTPStatusCode"] == 416:
                        return  # past the end (RFC 9110, 15.5.17)
                    raise
                etag = {"IfMatch": answer["ETag"]}
                try:
                    async with answer["Body"] as body:
                        async for piece in body.iter_chunks(_CHUNK):
                            start += len(piece)
                            yield piece
                except BROKEN_STREAM:
                    if not tries_left:
                        raise
                else:
                    return

    async def _write_parts(self, key: str, file: BinaryIO, part_bytes: int, media_type: str) -> StoredObject:
        client = await self._client()
        where = {"Bucket": self._bucket, "Key": self._full(key)}
        source = _Parts(file, part_bytes)

        async def send(_: int) -> list[dict[str, Any]]:
            sent = []
            while part := await source.next():
                answer = await client.upload_part(
                    **where, UploadId=upload, PartNumber=part.number, Body=part.body, ContentMD5=part.md5
                )
                sent.append({"ETag": answer["ETag"], "PartNumber": part.number})
            return sent

        with answering(self._address, key):
            upload = (await client.create_multipart_upload(**where, ContentType=media_type))["UploadId"]
            try:
                sent = await each(send, range(_PARTS_IN_FLIGHT), _PARTS_IN_FLIGHT)
                parts = sorted(chain.from_iterable(sent), key=itemgetter("PartNumber"))
                answer = await client.complete_multipart_upload(
                    **where, UploadId=upload, MultipartUpload={"Parts": parts}
                )
            except BaseException:
                with suppress(ClientError, BotoCoreError):  # the error that brought us here is the one to tell of
                    await asyncio.shield(client.abort_multipart_upload(**where, UploadId=upload))
                raise
        return StoredObject(key, source.size, _bare(answer["ETag"]), source.sha256.hexdigest())


@dataclass(frozen=True, slots=True)
class _Part:
    number: int
    body: bytes
    md5: str


class _Parts:
    """Reads a file part by part for several senders, and takes the digest of the whole on the way."""

    def __init__(self, file: BinaryIO, part_bytes: int) -> None:
        self._file = file
        self._part_bytes = part_bytes
        self._turn = asyncio.Lock()
        self._number = 0
        self.size = 0
        self.sha256 = hashlib.sha256()

    async def next(self) -> _Part | None:
        async with self._turn:  # the digest needs the parts in their order
            return await asyncio.to_thread(self._read)

    def _read(self) -> _Part | None:
        body = self._file.read(self._part_bytes)
        if not body:
            return None
        self._number += 1
        self.size += len(body)
        self.sha256.update(body)
        return _Part(self._number, body, _content_md5(body))


def _content_md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _bare(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')


def _stat(key: str, answer: dict[str, Any]) -> ObjectStat:
    """Read what the answer to a HEAD, or to a GET of a range, says of the object."""
    whole = answer.get("ContentRange", "").rpartition("/")[2]
    size = int(whole) if whole.isdigit() else answer["ContentLength"]
    return ObjectStat(key, size, _bare(answer["ETag"]), answer["LastModified"], _version(answer))


def _version(answer: dict[str, Any]) -> str | None:
    version = answer.get("VersionId")
    return version if version and version != "null" else None
