"""Putting a folder into a bucket, and bringing a bucket into a folder: what is there already is not sent again."""

from __future__ import annotations

import asyncio
import mimetypes
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from voxelmill_cli.errors import EXIT_DONE, EXIT_INPUT_FAILED, CommandError
from voxelmill_cli.storage.places import Place, make_folder, open_bucket, open_folder
from voxelmill_shared.concurrency import each
from voxelmill_shared.errors import (
    ObjectChangedError,
    ObjectDamagedError,
    ObjectMissingError,
    ObjectUnreadableError,
    UnsafeKeyError,
)
from voxelmill_shared.storage.keys import printable
from voxelmill_shared.storage.local import TEMPORARY
from voxelmill_shared.storage.s3_upload import PART_BYTES, file_etag

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from voxelmill_shared.storage.base import ObjectStat
    from voxelmill_shared.storage.local import LocalStore
    from voxelmill_shared.storage.s3 import S3Store

_OF_ONE_OBJECT = (
    ObjectChangedError,
    ObjectDamagedError,
    ObjectMissingError,
    ObjectUnreadableError,
    UnsafeKeyError,
)
"""What is wrong with one object and not with its store: the others go on."""


@dataclass(slots=True)
class Tally:
    """What became of the objects. `failed` holds a key and a reason for each that could not be brought over."""

    objects: int = 0
    bytes: int = 0
    sent: int = 0
    sent_bytes: int = 0
    present: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return EXIT_INPUT_FAILED if self.failed else EXIT_DONE

    def as_document(self) -> dict[str, Any]:
        """The tally as JSON."""
        return {
            "objects": self.objects,
            "bytes": self.bytes,
            "sent": self.sent,
            "sent_bytes": self.sent_bytes,
            "present": self.present,
            "failed": [{"key": key, "reason": reason} for key, reason in self.failed],
            "exit_code": self.exit_code,
        }


@dataclass(frozen=True, slots=True)
class Transfer:
    """One direction: how an object is brought over if it is not there already.

    `tell` is told the number of bytes that are settled, sent or not.
    """

    tally: Tally
    tell: Callable[[int], None]
    jobs: int
    dry_run: bool

    async def run(
        self,
        wanted: list[ObjectStat],
        stands: Callable[[ObjectStat], Coroutine[Any, Any, bool]],
        bring: Callable[[ObjectStat], Coroutine[Any, Any, None]],
    ) -> None:
        """Bring over what does not stand there."""

        async def one(stat: ObjectStat) -> None:
            try:
                if await stands(stat):
                    self.tally.present += 1
                else:
                    if not self.dry_run:
                        await bring(stat)
                    self.tally.sent += 1
                    self.tally.sent_bytes += stat.size
            except _OF_ONE_OBJECT as error:
                self.tally.failed.append((printable(stat.key), str(error)))
            self.tell(stat.size)

        self.tally.objects = len(wanted)
        self.tally.bytes = sum(stat.size for stat in wanted)
        await each(one, wanted, self.jobs)
        self.tally.failed.sort()


async def upload(
    source: Path,
    destination: str,
    *,
    jobs: int,
    dry_run: bool,
    begin: Callable[[int, int], Callable[[int], None]],
) -> Tally:
    """Put a folder or a file into a bucket.

    A file above 16 MiB goes in parts; if the command is ended, however it is, the next one takes up the parts that the
    server has. Files that stand there with the same content (by size and ETag) are not sent.

    Parameters
    ----------
    source
        A folder, whose files are put under their paths in it, or one file.
    destination
        `s3://bucket/prefix`.
    jobs
        How many files are sent at a time.
    dry_run
        Whether only to look.
    begin
        Is told the number of files and of bytes when they are known; what it returns is told the bytes that are
        settled.

    Raises
    ------
    CommandError
        If the source is not there.
    StoreUnavailableError
        If the bucket cannot be reached.
    """
    folder, only = open_folder(source)
    store = open_bucket(destination)
    tally = Tally()
    try:
        await store.check()
        wanted = await _files(folder, only, tally)
        there = {stat.key: stat async for stat in store.list()}
        transfer = Transfer(tally, begin(len(wanted), sum(stat.size for stat in wanted)), jobs, dry_run)

        async def stands(stat: ObjectStat) -> bool:
            known = there.get(stat.key)
            path = await folder.fetch(stat.key, folder.root)  # raises what is wrong with the file
            if known is None or known.size != stat.size:
                return False
            return known.etag == (stat.etag if stat.size <= PART_BYTES else await asyncio.to_thread(file_etag, path))

        async def bring(stat: ObjectStat) -> None:
            path = await folder.fetch(stat.key, folder.root)
            await store.resume_file(stat.key, path, _media_type(stat.key))

        await transfer.run(wanted, stands, bring)
    finally:
        await store.close()
        await folder.close()
    return tally


async def _files(folder: LocalStore, only: str | None, tally: Tally) -> list[ObjectStat]:
    """List what is to be sent; a folder that may not be read is written down as failed."""
    if only is not None:
        return [await folder.head(only)]
    found: list[ObjectStat] = []
    try:
        async for stat in folder.list():
            found.append(stat)  # noqa: PERF401 - what was given before an error counts
    except ObjectUnreadableError as error:  # comes after everything else
        tally.failed.append((str(folder.root), str(error)))
    return sorted(found, key=lambda stat: stat.key)


def _media_type(key: str) -> str:
    if PurePosixPath(key).suffix.lower() in {".dcm", ".dicom", ".ima"}:
        return "application/dicom"
    guessed, encoding = mimetypes.guess_type(key)
    return guessed if guessed and not encoding else "application/octet-stream"


async def download(
    source: str,
    destination: Path,
    *,
    jobs: int,
    dry_run: bool,
    begin: Callable[[int, int], Callable[[int], None]],
) -> Tally:
    """Bring what lies under a prefix, or one object, into a folder.

    Each file is verified against the ETag where that is an MD5 and against the length always, and moved to its place
    whole. Files that stand there with the same content are not fetched, so a command that was ended goes on.

    Parameters
    ----------
    source
        `s3://bucket/prefix` or `s3://bucket/key`.
    destination
        A folder; made if missing.
    jobs, dry_run, begin
        As for `upload`.

    Raises
    ------
    CommandError
        If nothing lies there.
    StoreUnavailableError
        If the bucket cannot be reached.
    """
    folder = make_folder(destination)
    place = await _find(source)
    tally = Tally()
    try:
        transfer = Transfer(tally, begin(len(place.found), sum(stat.size for stat in place.found)), jobs, dry_run)

        async def stands(stat: ObjectStat) -> bool:
            try:
                path = await folder.fetch(stat.key, folder.root)
            except ObjectMissingError:
                return False
            return await asyncio.to_thread(lambda: path.stat().st_size == stat.size and file_etag(path) == stat.etag)

        async def bring(stat: ObjectStat) -> None:
            path = await place.store.fetch(stat.key, folder.root / TEMPORARY, etag=stat.etag)
            try:
                await folder.write_file(stat.key, path)
            finally:
                await asyncio.to_thread(path.unlink, missing_ok=True)

        await transfer.run(place.found, stands, bring)
    finally:
        await place.store.close()
        await folder.close()
    return tally


async def _find(address: str) -> Place:
    """Find what an address names: everything under it as a prefix, or the one object of that key.

    Raises
    ------
    CommandError
        If there is neither.
    """
    store: S3Store = open_bucket(address)
    try:
        await store.check()
        found = sorted([stat async for stat in store.list()], key=lambda stat: stat.key)
        if found:
            return Place(store, found)
    except BaseException:
        await store.close()
        raise
    await store.close()
    above, _, name = address.rstrip("/").rpartition("/")
    if above.startswith("s3://") and len(above) > len("s3://"):
        store = open_bucket(above)
        try:
            return Place(store, [await store.head(name)])
        except ObjectMissingError:
            await store.close()
        except BaseException:
            await store.close()
            raise
    raise CommandError(f"{address}: nothing lies there; see `voxelmill storage list`", EXIT_INPUT_FAILED)
