"""Putting a folder into a bucket, and bringing a bucket into a folder: what is there already is not sent again."""

from __future__ import annotations

import asyncio
import mimetypes
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from botocore.exceptions import ClientError

from voxelmill_cli.errors import EXIT_DONE, EXIT_INPUT_FAILED, EXIT_UNREACHABLE, NO_ROOM, CommandError
from voxelmill_cli.storage.content import has_content
from voxelmill_cli.storage.partial import Partials
from voxelmill_cli.storage.places import find_objects, make_folder, open_bucket, open_folder, reach
from voxelmill_cli.storage.walk import Item, walk
from voxelmill_shared.concurrency import each
from voxelmill_shared.errors import (
    ObjectChangedError,
    ObjectMissingError,
    ObjectUnreadableError,
    StoreUnavailableError,
    UnsafeKeyError,
)
from voxelmill_shared.storage.keys import check_key, printable
from voxelmill_shared.storage.local import TEMPORARY
from voxelmill_shared.storage.s3_errors import is_refused

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from voxelmill_shared.storage.s3 import S3Store

T = TypeVar("T")

_LONGEST_NAME = 255
"""In bytes: what the file systems of Linux, macOS and Windows take."""

_OF_ONE_OBJECT = (ObjectChangedError, ObjectMissingError, ObjectUnreadableError, UnsafeKeyError)
"""What is wrong with one object and not with its store: the others go on."""


class Tell(Protocol):
    """Is told what is settled, sent or not: a number of files, and of bytes."""

    def __call__(self, files: int, size: int, /) -> None:
        """Be told."""


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
    """One direction: how an object is brought over if it is not there already."""

    tally: Tally
    store: S3Store
    jobs: int
    dry_run: bool

    async def run(
        self,
        wanted: Sequence[Item],
        tell: Tell,
        stands: Callable[[Item], Coroutine[Any, Any, bool]],
        bring: Callable[[Item, Callable[[int], None]], Coroutine[Any, Any, None]],
    ) -> None:
        """Bring over what does not stand there."""
        self.tally.objects = len(wanted) + len(self.tally.failed)
        self.tally.bytes = sum(item.size for item in wanted)
        waiting = iter(wanted)

        async def work(_: int) -> None:
            for item in waiting:  # all jobs take from one iterator: a task for each of a million files would not do
                await self._one(item, tell, stands, bring)

        with _ending_early():
            await each(work, range(self.jobs), self.jobs)
        self.tally.failed[:] = sorted((printable(key), reason) for key, reason in self.tally.failed)

    async def _one(
        self,
        item: Item,
        tell: Tell,
        stands: Callable[[Item], Coroutine[Any, Any, bool]],
        bring: Callable[[Item, Callable[[int], None]], Coroutine[Any, Any, None]],
    ) -> None:
        told = 0

        def part(size: int) -> None:
            nonlocal told
            told += size
            tell(0, size)

        try:
            if await stands(item):
                self.tally.present += 1
            else:
                if not self.dry_run:
                    await bring(item, part)
                self.tally.sent += 1
                self.tally.sent_bytes += item.size
        except _OF_ONE_OBJECT as error:
            self._fail(item, error)
        except StoreUnavailableError as error:
            if not isinstance(error.__cause__, ClientError) or is_refused(error.__cause__):
                raise
            await self.store.check()  # else the store itself is away, and so are all objects
            self._fail(item, error)
        tell(1, max(0, item.size - told))

    def _fail(self, item: Item, error: Exception) -> None:
        reason = str(error).removeprefix(f"{printable(item.key)}: ")
        self.tally.failed.append((item.key, reason))


@contextmanager
def _ending_early() -> Iterator[None]:
    """Say what to do when the store goes away in the middle, or the disk is full; what is done stays done."""
    try:
        yield
    except StoreUnavailableError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM:
            line = f"{error}; make room there or choose another folder, start it again and it goes on where it was"
            raise CommandError(line, EXIT_INPUT_FAILED) from None
        line = f"{error}; start it again when that is mended and it goes on where it was"
        raise CommandError(line, EXIT_UNREACHABLE) from None


async def upload(
    source: str, destination: str, *, jobs: int, dry_run: bool, begin: Callable[[int, int], Tell]
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
        Is told the number of files and of bytes when they are known; what it returns is told what is settled.

    Raises
    ------
    CommandError
        If the source is not there, an address is written wrong, or the bucket cannot be reached.
    """
    store = open_bucket(destination)
    folder, only = open_folder(source)
    tally = Tally()
    try:
        await reach(store)
        if only is None:
            walked = await asyncio.to_thread(walk, folder.root)
            wanted, tally.failed = walked.items, walked.failed
            there = {stat.key: stat async for stat in store.list()}
        else:
            wanted = [Item(only, await asyncio.to_thread(lambda: (folder.root / only).stat().st_size))]
            there = {stat.key: stat async for stat in store.list(only)}

        async def stands(item: Item) -> bool:
            path = await folder.fetch(item.key, folder.root)  # raises what is wrong with the file
            check_key(item.key)  # which a folder is less strict about
            known = there.get(item.key)
            if known is None:
                return False
            return await _reading(item, asyncio.to_thread(has_content, path, known.size, known.etag))

        async def bring(item: Item, part: Callable[[int], None]) -> None:
            path = await folder.fetch(item.key, folder.root)
            await _reading(item, store.resume_file(item.key, path, _media_type(item.key), on_sent=part))

        tell = begin(len(wanted), sum(item.size for item in wanted))
        await Transfer(tally, store, jobs, dry_run).run(wanted, tell, stands, bring)
    finally:
        await store.close()
    return tally


async def _reading(item: Item, work: Coroutine[Any, Any, T]) -> T:
    """Say of a file that cannot be read, or went while it was, that this is so; the others go on."""
    try:
        return await work
    except OSError as error:
        raise ObjectUnreadableError(f"{printable(item.key)}: {error.strerror or error}") from error


def _media_type(key: str) -> str:
    if PurePosixPath(key).suffix.lower() in {".dcm", ".dicom", ".ima"}:
        return "application/dicom"
    guessed, encoding = mimetypes.guess_type(key)
    return guessed if guessed and not encoding else "application/octet-stream"


async def download(
    source: str, destination: str, *, jobs: int, dry_run: bool, begin: Callable[[int, int], Tell]
) -> Tally:
    """Bring what lies under a prefix, or one object, into a folder.

    Each file is verified against the ETag where that is an MD5 and against the length always, and moved to its place
    whole. Files that stand there with the same content are not fetched, and of a file whose download was broken off
    only the rest is, so a command that was ended goes on.

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
        If nothing lies there, an address is written wrong, the bucket cannot be reached, or the disk is full.
    """
    folder = make_folder(destination)
    place = await find_objects(source)
    tally = Tally()
    wanted = [Item(stat.key, stat.size, stat.etag) for stat in place.found]
    partials = Partials(folder.root / TEMPORARY, place.address)
    try:
        tell = begin(len(wanted), sum(item.size for item in wanted))
        transfer = Transfer(tally, place.store, jobs, dry_run)

        async def stands(item: Item) -> bool:
            _check_parts(item.key)
            try:
                path = await folder.fetch(item.key, folder.root)
            except ObjectMissingError:
                return False
            return await _reading(item, asyncio.to_thread(has_content, path, item.size, item.etag))

        async def bring(item: Item, part: Callable[[int], None]) -> None:
            async with partials.fetched(place.store, item, part) as path:
                await folder.take_file(item.key, path)

        if not dry_run:
            await asyncio.to_thread(partials.sweep)
        await transfer.run(wanted, tell, stands, bring)
    finally:
        await place.store.close()
        with suppress(OSError):  # it is not there, or something in it waits for its rest
            await asyncio.to_thread((folder.root / TEMPORARY).rmdir)
    return tally


def _check_parts(key: str) -> None:
    """Refuse before its download what no disk can hold, and a key that leads out of the folder."""
    check_key(key)
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in key.split("/")):
        raise UnsafeKeyError(f"{printable(key)}: no disk can hold a name of more than {_LONGEST_NAME} bytes")
