"""From what a user types to the stores that are meant."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from voxelmill_cli.errors import EXIT_INPUT_FAILED, EXIT_UNREACHABLE, CommandError
from voxelmill_shared.errors import ObjectMissingError, StoreUnavailableError, UnsafeKeyError
from voxelmill_shared.storage.keys import MAX_KEY_BYTES, check_prefix, printable
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.s3 import S3Store

if TYPE_CHECKING:
    from voxelmill_shared.storage.base import ObjectStat, ObjectStore

_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}")
"""What S3 and its clients take (Amazon S3 User Guide, "Bucket naming rules", with the older, longer names)."""
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/")


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """`s3://bucket/prefix`, looked at: `prefix` has no `/` at its ends."""

    bucket: str
    prefix: str

    @property
    def url(self) -> str:
        """The address."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def overlaps(self, other: BucketAddress) -> bool:
        """Whether one of the two is the other one or lies in it."""
        mine, theirs = f"{self.prefix}/".lstrip("/"), f"{other.prefix}/".lstrip("/")
        return self.bucket == other.bucket and (mine.startswith(theirs) or theirs.startswith(mine))


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, or a prefix of one (`address`), and what was found there."""

    store: S3Store
    address: str
    found: list[ObjectStat]


def parse_address(address: str) -> Path | BucketAddress:
    """Read the address of a bucket or of a folder. Nothing is contacted.

    Parameters
    ----------
    address
        A path, `file:///path` (percent-encoded), or `s3://bucket/prefix`.

    Raises
    ------
    CommandError
        If it is neither, or written wrong.
    """
    if not address:
        raise CommandError("the address is empty; give a folder or s3://bucket/prefix")
    known = _SCHEME.match(address)
    if known is None:
        return Path(address)
    match known["scheme"].lower():
        case "s3":
            return _bucket_of(address)
        case "file":
            parts = urlsplit(address)
            if parts.netloc not in {"", "localhost"} or len(parts.path) < 2:
                raise CommandError(f"{printable(address)}: write file:///absolute/path")
            return Path(unquote(parts.path, errors="surrogateescape"))
    raise CommandError(
        f"{printable(address)}: an address is a folder, file:///path or s3://bucket/prefix (a folder of such a name: "
        f"./{printable(address)})"
    )


def _bucket_of(address: str) -> BucketAddress:
    shown = printable(address)
    if address[2:5] != "://":
        raise CommandError(f"{shown}: write s3://bucket or s3://bucket/prefix")
    bucket, _, prefix = address[5:].partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise CommandError(
            f"{shown}: no bucket can have this name (3 or more letters, digits, '.', '-'); write s3://bucket/prefix"
        )
    prefix = prefix.strip("/")
    try:
        check_prefix(f"{prefix}/" if prefix else "")
    except UnsafeKeyError as error:
        raise CommandError(f"{shown}: {error}; write s3://bucket/prefix") from None
    if len(prefix.encode()) > MAX_KEY_BYTES - 2:
        raise CommandError(f"{shown[:64]}...: leaves no room for a key; choose a shorter prefix")
    return BucketAddress(bucket, prefix)


def open_bucket(address: str) -> S3Store:
    """Open `s3://bucket/prefix`. Nothing is contacted yet.

    Raises
    ------
    CommandError
        If the address is of another kind.
    """
    parsed = parse_address(address)
    if not isinstance(parsed, BucketAddress):
        raise CommandError(
            f"{printable(address)}: not the address of a bucket; write s3://bucket or s3://bucket/prefix"
        )
    return S3Store(parsed.bucket, parsed.prefix)


async def reach(store: ObjectStore) -> None:
    """Return if a bucket answers.

    Raises
    ------
    CommandError
        If it does not, with exit code 3.
    """
    try:
        await store.check()
    except StoreUnavailableError as error:
        raise CommandError(
            f"{error}; set the address, AWS_ENDPOINT_URL and the credentials right and start again", EXIT_UNREACHABLE
        ) from None


def open_folder(address: str) -> tuple[LocalStore, str | None]:
    """Open a folder, or the folder of a file; the second value is the file's name.

    Raises
    ------
    CommandError
        If it is not there, or cannot be read.
    """
    path = _folder_of(address)
    shown = printable(address)
    try:
        path = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise CommandError(f"{shown}: no such file or folder; check the path") from None
    if not os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK):
        raise CommandError(f"{shown}: permission denied; make it readable for this user")
    if path.is_dir():
        return LocalStore(path), None
    if not path.is_file():
        raise CommandError(f"{shown}: neither a file nor a folder; give one of them")
    return LocalStore(path.parent), path.name


def make_folder(address: str) -> LocalStore:
    """Open a folder to write into; the first file makes it.

    Raises
    ------
    CommandError
        If something else stands there, or it cannot be written.
    """
    path = _folder_of(address)
    shown = printable(address)
    if path.exists() and not path.is_dir():
        raise CommandError(f"{shown}: not a folder; name a folder to download into")
    standing = path.absolute()
    while not standing.exists() and not standing.is_symlink():
        standing = standing.parent
    if not standing.is_dir():
        raise CommandError(f"{shown}: {printable(str(standing))} is not a folder; choose another one")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise CommandError(f"{shown}: permission denied; choose a folder that this user can write")
    return LocalStore(path)


def _folder_of(address: str) -> Path:
    parsed = parse_address(address)
    if isinstance(parsed, BucketAddress):
        raise CommandError(
            f"{printable(address)}: this side is a folder of this machine, and the other one a bucket; between two "
            "buckets use your store's own tools"
        )
    return parsed


async def find_objects(address: str, *, or_none: bool = False) -> Place:
    """Find what an address names: everything under it as a prefix, or the one object of that key.

    Parameters
    ----------
    address
        `s3://bucket/prefix` or `s3://bucket/key`.
    or_none
        Whether nothing may be found.

    Returns
    -------
    Place
        The store to close, and the objects by their keys in it, sorted.

    Raises
    ------
    CommandError
        If there is neither, or the bucket cannot be reached.
    """
    store = open_bucket(address)
    try:
        await reach(store)
        found = sorted([stat async for stat in store.list()], key=lambda stat: stat.key)
        one = None if found else await find_one(address)
    except BaseException:
        await store.close()
        raise
    if one is None and (found or or_none):
        return Place(store, address.rstrip("/"), found)
    await store.close()
    if one is None:
        raise CommandError(f"{printable(address)}: nothing lies there; see `voxelmill storage list`", EXIT_INPUT_FAILED)
    return one


async def find_one(address: str) -> Place | None:
    """Find the object whose key an address is; its store is what lies above it."""
    parsed = parse_address(address)
    if not isinstance(parsed, BucketAddress) or not parsed.prefix or address.endswith("/"):
        return None
    above, _, name = parsed.prefix.rpartition("/")
    store = S3Store(parsed.bucket, above)
    try:
        stat = await store.head(name)
    except BaseException as error:
        await store.close()
        if isinstance(error, ObjectMissingError):
            return None
        raise
    return Place(store, BucketAddress(parsed.bucket, above).url, [stat])
