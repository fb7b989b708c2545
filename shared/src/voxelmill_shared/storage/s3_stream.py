"""The bytes of one content of an object, however often the connection breaks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, FlexibleChecksumError

from voxelmill_shared.errors import ObjectChangedError, ObjectDamagedError, StoreUnavailableError
from voxelmill_shared.storage.s3_errors import BROKEN_STREAM, status_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

STREAM_TRIES = 4
"""How often a body is asked for, or for its rest, before a broken connection is believed."""

_PIECE = 1 << 20
_MD5 = re.compile(r"[0-9a-f]{32}")
_NO_MD5 = frozenset({"aws:kms", "aws:kms:dsse"})
"""Under these kinds of encryption an ETag looks like an MD5 and is none (Amazon S3 API Reference, "Object")."""


def bare(etag: str) -> str:
    """Take the quotes off an ETag."""
    return etag.removeprefix("W/").strip('"')


def may_be_md5(etag: str) -> bool:
    """Whether an ETag looks like the MD5 of an object's bytes, as it is for one that was put in one piece."""
    return _MD5.fullmatch(etag) is not None


@dataclass(slots=True)
class Content:
    """What the server says about the content that it sends; empty until its first answer.

    `etag` without quotes; `size` of the whole object, in bytes; `md5` of its bytes if the server tells it.
    """

    etag: str = ""
    size: int = 0
    md5: str | None = None

    def take(self, answer: Mapping[str, Any]) -> None:
        """Read the headers of an answer to a GET."""
        self.etag = bare(answer["ETag"])
        total = answer.get("ContentRange", "").rpartition("/")[2]
        self.size = int(total) if total.isdigit() else answer.get("ContentLength", -1)
        encrypted = answer.get("ServerSideEncryption") in _NO_MD5 or "SSECustomerAlgorithm" in answer
        self.md5 = None if encrypted or not may_be_md5(self.etag) else self.etag


class ObjectStream:
    """A range of an object's bytes. A connection that breaks is taken up again where it broke, of the same content.

    Parameters
    ----------
    client
        An S3 client of aiobotocore.
    where
        `Bucket` and `Key`.
    key
        The object's key in its store, for errors.
    guard
        Gives a context that turns the client's errors into Voxelmill's.
    start, length
        The range; to the end if `length` is None.
    etag
        Which content is meant (without quotes); None for the one that is there.
    """

    def __init__(
        self,
        client: Any,
        where: Mapping[str, str],
        key: str,
        guard: Callable[[str], AbstractAsyncContextManager[None]],
        *,
        start: int = 0,
        length: int | None = None,
        etag: str | None = None,
    ) -> None:
        self.content = Content()
        self._client = client
        self._where = where
        self._key = key
        self._guard = guard
        self._next = start
        self._end = None if length is None else start + length
        self._etag = etag

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Give the bytes, at most 1 MiB at a time; none if the range begins past the end.

        Raises
        ------
        ObjectChangedError
            If there is another content than `etag`.
        ObjectDamagedError
            If bytes are missing, or are not those of the digest that the server has.
        """
        for tries_left in reversed(range(STREAM_TRIES)):
            async with self._guard(self._key):
                answer = await self._ask()
                if answer is None:
                    return
                left = self._check_range(answer)
                try:
                    async with answer["Body"] as body:
                        small = left <= _PIECE  # read at once, for joining the pieces would cost more
                        while piece := await (body.read() if small else body.read(_PIECE)):
                            self._next += len(piece)
                            left -= len(piece)
                            yield piece
                            if small:
                                break
                except FlexibleChecksumError as error:
                    raise ObjectDamagedError(f"{self._key}: {error}") from error
                except BROKEN_STREAM:
                    if not tries_left:
                        raise
                else:
                    if left:
                        raise ObjectDamagedError(f"{self._key}: {left} bytes are missing")
                    return

    async def _ask(self) -> dict[str, Any] | None:
        options = {}
        if self._next or self._end is not None:
            options["Range"] = f"bytes={self._next}-{'' if self._end is None else self._end - 1}"
        elif not (self._etag and may_be_md5(self._etag)):
            options["ChecksumMode"] = "ENABLED"  # the server may know another digest of what was put in parts
        wanted = self.content.etag or self._etag
        if wanted:
            options["IfMatch"] = f'"{wanted}"'
        try:
            answer: dict[str, Any] = await self._client.get_object(**self._where, **options)
        except ClientError as error:
            if status_of(error) == 416:
                return None  # past the end (RFC 9110, 15.5.17)
            if status_of(error) == 412 and self._etag:
                raise ObjectChangedError(self._key) from error
            raise
        self.content.take(answer)
        return answer

    def _check_range(self, answer: Mapping[str, Any]) -> int:
        """Make sure that an answer begins where it was asked to, and return how many bytes it has.

        A server, or a proxy before it, may ignore a range (RFC 9110, 14.2); the whole would be taken for a part.
        """
        sent: int = answer.get("ContentLength", -1)
        if sent < 0:
            raise StoreUnavailableError(f"{self._key}: the server does not say how many bytes it sends")
        begins, _, _ = answer.get("ContentRange", "").removeprefix("bytes ").partition("-")
        if int(begins or 0) != self._next or (self._end is not None and sent > self._end - self._next):
            raise StoreUnavailableError(f"{self._key}: the server was asked for a range and sent another one")
        return sent
