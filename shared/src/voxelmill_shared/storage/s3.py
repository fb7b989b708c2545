"""Objects in a bucket of any S3 server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import structlog
from botocore.exceptions import ClientError

from voxelmill_shared.errors import (
    ObjectDamagedError,
    ObjectMissingError,
    ObjectUnreadableError,
    StoreUnavailableError,
    UnsafeKeyError,
)
from voxelmill_shared.privacy import note_key
from voxelmill_shared.storage.base import ObjectStat, StoredObject
from voxelmill_shared.storage.cache import CachedContent
from voxelmill_shared.storage.keys import MAX_KEY_BYTES, check_key, check_prefix, printable
from voxelmill_shared.storage.s3_client import client_config, new_session
from voxelmill_shared.storage.s3_download import keep
from voxelmill_shared.storage.s3_errors import BROKEN_STREAM, answering, is_missing, is_refused
from voxelmill_shared.storage.s3_parts import Parts
from voxelmill_shared.storage.s3_plain import PlainGet, stat_of, stat_of_headers
from voxelmill_shared.storage.s3_stream import STREAM_TRIES, ObjectStream, bare
from voxelmill_shared.storage.s3_upload import PART_BYTES, ByteBudget, MultipartUpload, opened, unfinished_uploads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import timedelta
    from pathlib import Path

    from voxelmill_shared.storage.cache import DownloadCache
    from voxelmill_shared.storage.s3_stream import Content
    from voxelmill_shared.storage.s3_upload import UnfinishedUpload

log = structlog.get_logger("voxelmill")


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
    connections
        How many requests run at a time; further ones wait. Connections are opened when they are needed.
    cache
        Where what `fetch` brings with an ETag is kept for the next one.
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
        connections: int = 64,
        cache: DownloadCache | None = None,
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
        self._config = client_config(
            path_style=path_style,
            tries=tries,
            connect_seconds=connect_seconds,
            read_seconds=read_seconds,
            connections=connections,
        )
        self._stack = AsyncExitStack()
        self._session: Any = None
        self._opened: Any = None
        self._plain: PlainGet | None = None
        self._opening = asyncio.Lock()
        self._bucket_seen = False
        self._memory = ByteBudget()
        self._cache = cache

    @property
    def bucket(self) -> str:
        """The name that events use for this store."""
        return self._name

    @property
    def in_place(self) -> bool:
        """What `fetch` gives is a copy, and nobody changes it."""
        return False

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
        return stat_of(key, answer)

    async def exists(self, key: str) -> bool:
        """Whether the object is there."""
        try:
            await self.head(key)
        except ObjectMissingError:
            return False
        return True

    async def read(self, key: str, start: int = 0, length: int | None = None, *, etag: str | None = None) -> bytes:
        """Read a range of an object, or all of it."""
        if start < 0 or (length is not None and length < 0):
            raise ValueError(f"no such range: start {start}, length {length}")
        if length == 0:
            await self.head(key)
            return b""
        pieces = [piece async for piece in (await self.stream(key, start, length, etag)).pieces()]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read_head(self, key: str, length: int) -> tuple[ObjectStat, bytes]:
        """Look at an object and read its beginning, in one request: the answer to a range says what a HEAD says."""
        full = self._full(key)
        client = await self._client()
        async with self._reading(key):
            if self._plain is None:
                self._plain = await PlainGet.of(client, self._session, self._bucket)
            if answered := await self._plain.beginning(full, length):
                headers, head = answered
                return stat_of_headers(key, headers), head
            for tries_left in reversed(range(STREAM_TRIES)):
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
                    return stat_of(key, answer), head[:length]
        raise AssertionError("the last try raises or returns")

    async def fetch(self, key: str, directory: Path, *, etag: str | None = None) -> Path:
        """Download an object into `directory`, whole and verified or not at all, or take it from the cache."""
        self._full(key)
        name = hashlib.sha256(f"{self._address}\n{key}".encode()).hexdigest()[:32]
        target = directory / name
        if self._cache and etag:
            client = await self._client()
            content = CachedContent(f"{client.meta.endpoint_url}/{self._bucket}/{self._full(key)}", etag)
            await self._cache.fetch(content, target, lambda: self._download(key, target, etag))
        else:
            await self._download(key, target, etag)
        return target

    async def stream(
        self, key: str, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> ObjectStream:
        """Begin to read an object, from `start`, of the content that `etag` names; nothing is asked for yet."""
        where = {"Bucket": self._bucket, "Key": self._full(key)}
        return ObjectStream(await self._client(), where, key, self._reading, start=start, length=length, etag=etag)

    async def write(self, key: str, body: bytes, media_type: str = "application/octet-stream") -> StoredObject:
        """Put an object in one piece; the server checks its MD5 before it keeps it."""
        full = self._full(key)
        sha256, md5 = await asyncio.to_thread(_digests, body)
        client = await self._client()
        with answering(self._address, key):
            answer = await client.put_object(
                Bucket=self._bucket, Key=full, Body=body, ContentType=media_type, ContentMD5=md5
            )
        return StoredObject(key, len(body), bare(answer["ETag"]), sha256)

    async def write_file(self, key: str, path: Path, media_type: str = "application/octet-stream") -> StoredObject:
        """Put a file's content, above 16 MiB in parts; what was begun and fails is taken back.

        A smaller file, and each part, is read into memory as a whole: its digest must be known before it is sent, and
        it may have to be sent again. All uploads of this store together hold at most 96 MiB.
        """
        return await self._send_file(key, path, media_type)

    async def resume_file(
        self,
        key: str,
        path: Path,
        media_type: str = "application/octet-stream",
        *,
        on_sent: Callable[[int], None] | None = None,
    ) -> StoredObject:
        """Put a file's content as `write_file`, but leave the parts of an upload that fails, and take them up again.

        Parts that the server has are compared by MD5, so a file that has changed since is right all the same. Only one
        such upload of a key may run at a time. What nobody takes up again stays until the bucket's lifecycle rule for
        incomplete uploads removes it.

        Parameters
        ----------
        key, path, media_type
            As for `write_file`.
        on_sent
            Is told the number of bytes of each part that the server has, those of earlier uploads too.
        """
        return await self._send_file(key, path, media_type, resume=True, on_sent=on_sent)

    async def unfinished_uploads(self) -> list[UnfinishedUpload]:
        """Find the multipart uploads here that nobody has completed."""
        client = await self._client()
        with answering(self._address, ""):
            found = await unfinished_uploads(client, self._bucket, self._prefix)
        return [replace(one, key=one.key.removeprefix(self._prefix)) for one in found]

    async def presign(self, key: str, expires: timedelta, method: Literal["GET", "PUT"] = "GET") -> str:
        """Make an address (SigV4) by which anyone reads or writes this object for a while; see `Parts.addresses`.

        Raises
        ------
        ValueError
            If `expires` is less than a second or more than seven days.
        """
        addresses = await self.parts.addresses(expires)
        return addresses.get(key) if method == "GET" else addresses.put(key)

    @property
    def parts(self) -> Parts:
        """What somebody else puts here: by addresses that are signed for him, whole or in parts."""
        return Parts(
            self._client, lambda: self._session, self._bucket, self._prefix, self._address, self._full, self._memory
        )

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
                yield ObjectStat(key, found["Size"], bare(found["ETag"]), found["LastModified"])
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
        stack, self._stack, self._opened, self._plain = self._stack, AsyncExitStack(), None, None
        await stack.aclose()

    async def _client(self) -> Any:
        async with self._opening:
            if self._opened is None:
                with answering(self._address, ""):
                    self._session = new_session()
                    context = self._session.create_client("s3", config=self._config, **self._options)
                    self._opened = await self._stack.enter_async_context(context)
            return self._opened

    def _full(self, key: str) -> str:
        note_key(self._name, key)
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

    async def _download(self, key: str, target: Path, etag: str | None) -> Content:
        try:
            return await keep(await self.stream(key, etag=etag), f"{self._address}/{printable(key)}", target)
        except ObjectDamagedError as error:
            log.warning("downloading again what came damaged", reason=str(error))
            return await keep(await self.stream(key, etag=etag), f"{self._address}/{printable(key)}", target)

    async def _send_file(
        self,
        key: str,
        path: Path,
        media_type: str,
        *,
        resume: bool = False,
        on_sent: Callable[[int], None] | None = None,
    ) -> StoredObject:
        full = self._full(key)
        async with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= PART_BYTES:
                async with self._memory.of(size):
                    stored = await self.write(key, await asyncio.to_thread(file.read), media_type)
                if on_sent:
                    on_sent(stored.size)
                return stored
            where = {"Bucket": self._bucket, "Key": full}
            client = await self._client()
            upload = MultipartUpload(client, where, file, size, self._memory, resume=resume, on_sent=on_sent)
            with answering(self._address, key):
                sent = await upload.send(media_type)
            return StoredObject(key, sent.size, sent.etag, sent.sha256)


def _digests(body: bytes) -> tuple[str, str]:
    """Return the SHA-256 in hex, and the MD5 as a header has it."""
    md5 = hashlib.md5(body, usedforsecurity=False).digest()
    return hashlib.sha256(body).hexdigest(), base64.b64encode(md5).decode()
