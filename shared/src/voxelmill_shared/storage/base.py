"""What every object store can do. One contract suite (`tests/contract/test_storage.py`) holds them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What a HEAD says. `etag` is without quotes; for an object put in one piece it is the MD5 of its bytes, in hex.

    (S3 has it so for single puts without KMS; the local store computes it, so that the same bytes have the same
    name in both.)
    """

    key: str
    size: int
    etag: str
    modified: datetime
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What was written."""

    key: str
    size: int
    etag: str
    sha256: str


class ObjectStore(Protocol):
    """One bucket, or a prefix of one. Keys are relative to it, raw, with `/` between parts.

    Errors: `ObjectMissingError`, `StoreUnavailableError` (worth a wait), `ObjectUnreadableError` (this object is
    refused, the store answers), `UnsafeKeyError` (empty, absolute, with
    `.` or `..` or an empty part, longer than 1,024 bytes of UTF-8, or with NUL).
    """

    @property
    def bucket(self) -> str:
        """The name that events use for this store."""
        ...

    def key_of(self, bucket: str, key: str) -> str | None:
        """Return the key by which this store knows an object of a real bucket, or None if it lies outside of it.

        A notification names the bucket as the server does (here: the S3 bucket, or the folder's name) and the whole
        key; a store may be a prefix of a bucket. The key is not checked.
        """
        ...

    async def head(self, key: str) -> ObjectStat:
        """Look at an object without reading it."""
        ...

    async def exists(self, key: str) -> bool:
        """Whether the object is there."""
        ...

    async def read(self, key: str, start: int = 0, length: int | None = None, *, etag: str | None = None) -> bytes:
        """Read bytes `start` to `start + length`, or to the end. Past the end: fewer bytes, or none.

        Raises
        ------
        ObjectChangedError
            If an `etag` is given (without quotes) and there is another content.
        """
        ...

    async def read_head(self, key: str, length: int) -> tuple[ObjectStat, bytes]:
        """Look at an object and read its first `length` bytes (fewer if it has no more), both of the same content."""
        ...

    @property
    def in_place(self) -> bool:
        """Whether `fetch` gives the object's own file, which its owner may change while it is being read."""
        ...

    async def fetch(self, key: str, directory: Path, *, etag: str | None = None) -> Path:
        """Bring an object onto the local disk and return its path; read it only, never write or delete it.

        The local store returns its own file without a copy; S3 downloads into `directory` (made if missing) under a
        name that does not depend on what the key holds, verifies what came, and keeps what was asked for by its ETag
        in the download cache, if there is one.

        Parameters
        ----------
        key
            The object.
        directory
            Where a copy is put, if one is made.
        etag
            Which content is meant (without quotes); None for the one that is there.

        Raises
        ------
        ObjectChangedError
            If there is another content than `etag`.
        ObjectDamagedError
            If what came are not the bytes that the store says it has, twice.
        """
        ...

    async def write(self, key: str, body: bytes, media_type: str = "application/octet-stream") -> StoredObject:
        """Put an object: whole and durable when this returns, never half of it to a reader."""
        ...

    async def write_file(self, key: str, path: Path, media_type: str = "application/octet-stream") -> StoredObject:
        """Put a file's content (multipart on S3 above 16 MiB). The file stays the caller's."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; no error if it is not there."""
        ...

    def list(self, prefix: str = "") -> AsyncIterator[ObjectStat]:
        """List in no promised order, by continuation token; every object that stood throughout appears once."""
        ...

    async def check(self) -> None:
        """Return if the store answers; raise `StoreUnavailableError` with the reason if not."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
