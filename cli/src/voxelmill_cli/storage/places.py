"""From what a user types to the stores that are meant."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxelmill_cli.errors import CommandError
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.s3 import S3Store

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.storage.base import ObjectStat


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, or a prefix of one, and what was found there."""

    store: S3Store
    found: list[ObjectStat]


def open_bucket(address: str) -> S3Store:
    """Open `s3://bucket/prefix`. Nothing is contacted yet.

    Raises
    ------
    CommandError
        If the address is of another kind.
    """
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    if not address.startswith("s3://") or not bucket:
        raise CommandError(f"{address}: not the address of a bucket; write s3://bucket or s3://bucket/prefix")
    return S3Store(bucket, prefix)


def open_folder(path: Path) -> tuple[LocalStore, str | None]:
    """Open a folder, or the folder of a file; the second value is the file's name.

    Raises
    ------
    CommandError
        If it is not there, or cannot be read.
    """
    _refuse_bucket(path)
    if not path.exists():
        raise CommandError(f"{path}: no such file or folder; check the path")
    if not os.access(path, os.R_OK):
        raise CommandError(f"{path}: permission denied; make it readable for this user")
    if path.is_file():
        return LocalStore(path.parent), path.name
    return LocalStore(path), None


def make_folder(path: Path) -> LocalStore:
    """Open a folder to write into; the first file makes it.

    Raises
    ------
    CommandError
        If something else stands there.
    """
    _refuse_bucket(path)
    if path.exists() and not path.is_dir():
        raise CommandError(f"{path}: not a folder; name a folder to download into")
    return LocalStore(path)


def _refuse_bucket(path: Path) -> None:
    if str(path).startswith("s3:/"):
        raise CommandError(f"{path}: one side is a folder of this machine, the other one a bucket")
