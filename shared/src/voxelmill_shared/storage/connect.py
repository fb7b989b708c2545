"""From the address of a store to the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from voxelmill_shared.errors import VoxelmillError
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.s3 import S3Store

if TYPE_CHECKING:
    from voxelmill_shared.storage.base import ObjectStore
    from voxelmill_shared.storage.cache import DownloadCache


class StoreAddressError(VoxelmillError, ValueError):
    """An address that names no store."""


def open_store(
    url: str, *, bucket: str | None = None, connections: int = 64, cache: DownloadCache | None = None
) -> ObjectStore:
    """Open the store at an address. Nothing is contacted or made yet.

    Parameters
    ----------
    url
        `file:///path` (percent-encoded), a plain path, or `s3://bucket/prefix` (as it is, never percent-encoded).
    bucket
        The name that events use for the store; the bucket's or the folder's own name if None.
    connections
        How many requests to an S3 server may run at a time.
    cache
        Where downloads are kept. A folder needs none.

    Raises
    ------
    StoreAddressError
        If the address is of another kind, or lacks its path or bucket.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        if not url:
            raise StoreAddressError("the store's address is empty: give a folder or s3://bucket/prefix")
        return LocalStore(Path(url), bucket)
    match scheme.lower():
        case "file":
            parts = urlsplit(url)
            if parts.netloc not in {"", "localhost"} or len(parts.path) < 2:
                raise StoreAddressError(f"{url}: write file:///absolute/path")
            return LocalStore(Path(unquote(parts.path)), bucket)
        case "s3":
            name, _, prefix = rest.partition("/")
            if not name:
                raise StoreAddressError(f"{url}: write s3://bucket or s3://bucket/prefix")
            return S3Store(name, prefix, name=bucket, connections=connections, cache=cache)
    raise StoreAddressError(f"{url}: a store is a folder, file:///path or s3://bucket/prefix, not {scheme}://")
