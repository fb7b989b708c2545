"""An inbox that is a folder: files come through the gateway, and go on where they stopped."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from voxelmill_gateway.problems import Problem
from voxelmill_gateway.uploads.inbox import Found, Taken
from voxelmill_gateway.uploads.pieces import TooLongError, gathered
from voxelmill_gateway.uploads.ranges import wrong_length
from voxelmill_shared.errors import ObjectMissingError, StoreUnavailableError
from voxelmill_shared.storage.local_partial import PartialBusyError, PartialGapError
from voxelmill_shared.uploads import upload_prefix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from voxelmill_gateway.uploads.model import Upload, UploadFile
    from voxelmill_gateway.uploads.ranges import Span
    from voxelmill_shared.storage.base import ObjectStat
    from voxelmill_shared.storage.local import LocalStore


@dataclass(frozen=True, slots=True)
class FolderInbox:
    """See `Inbox`."""

    store: LocalStore

    async def received(self, file: UploadFile) -> Taken:
        """Look how much of a file has come."""
        stat = await self._stands(file)
        if stat is not None:
            return Taken(stat.size, stat.etag)
        return Taken(await self.store.partial(file.key).received())

    async def take(self, upload: Upload, file: UploadFile, span: Span, pieces: AsyncIterator[bytes]) -> Taken:  # noqa: ARG002 - a bucket needs to know it
        """Take in the bytes of a request."""
        partial = self.store.partial(file.key)
        try:
            async with partial.writing(span.start) as writer:
                async for piece in gathered(pieces):
                    await writer.write(piece)
                if writer.received != span.end:
                    raise wrong_length(span, writer.received - span.start)
                if writer.received < file.size:
                    return Taken(writer.received)
                await writer.finish()
        except TooLongError:
            await partial.drop()  # what is there may be the beginning of something else
            raise wrong_length(span) from None
        except PartialBusyError:
            raise busy() from None
        except PartialGapError as gap:
            raise elsewhere(gap.received) from None
        stat = await self.store.head(file.key)
        return Taken(stat.size, stat.etag)

    async def take_whole(self, key: str, media_type: str, pieces: AsyncIterator[bytes]) -> tuple[int, str]:  # noqa: ARG002 - a file system keeps no media type
        """Take in a file of unknown size."""
        partial = self.store.partial(key)
        try:
            async with partial.writing(0) as writer:
                async for piece in gathered(pieces):
                    await writer.write(piece)
                await writer.finish()
        except BaseException:
            await partial.drop()
            raise
        stat = await self.store.head(key)
        return stat.size, stat.etag

    async def holds(self, file: UploadFile, pieces: AsyncIterator[bytes]) -> bool:
        """Tell whether a file that stands has exactly these bytes."""
        md5 = hashlib.md5(usedforsecurity=False)
        async for piece in gathered(pieces):
            await asyncio.to_thread(md5.update, piece)
        return md5.hexdigest() == file.etag

    async def find(self, upload: Upload, files: Sequence[UploadFile]) -> Found:  # noqa: ARG002 - a bucket needs to know it
        """Look which files stand; one of which all has come is put into its place, for a killed gateway has not."""
        done: list[UploadFile] = []
        wrong: dict[int, int] = {}
        partly: dict[int, int] = {}
        for file in files:
            stat = await self._stands(file)
            if stat is None:
                if size := await self.store.partial(file.key).received():
                    partly[file.number] = size
            elif stat.size == file.size:
                done.append(replace(file, etag=stat.etag, done=True))
            else:
                wrong[file.number] = stat.size
        return Found(done, wrong, partly)

    async def tidy(self, upload: Upload) -> None:
        """Nothing is left."""

    async def discard(self, upload: Upload, files: Sequence[UploadFile]) -> None:
        """Throw away everything that has come with an upload."""
        for file in files:
            await self.store.partial(file.key).drop()
        try:
            found = [stat.key async for stat in self.store.list(upload_prefix(upload.project, upload.upload_id))]
        except StoreUnavailableError:
            if self.store.root.is_dir():
                raise
            return  # nobody has ever written anything
        for key in found:
            await self.store.delete(key)

    async def room(self) -> int | None:
        """Return how many bytes are free."""
        await self.store.check()
        usage = await asyncio.to_thread(shutil.disk_usage, self.store.root)
        return usage.free

    async def _stands(self, file: UploadFile) -> ObjectStat | None:
        try:
            return await self.store.head(file.key)
        except ObjectMissingError:
            return await self._promoted(file)

    async def _promoted(self, file: UploadFile) -> ObjectStat | None:
        partial = self.store.partial(file.key)
        if not file.size or await partial.received() != file.size:
            return None
        try:
            async with partial.writing(file.size) as writer:
                await writer.finish()
        except (PartialBusyError, PartialGapError):
            return None  # somebody is still at it
        return await self.store.head(file.key)


def busy() -> Problem:
    """Say that somebody else is writing the same file."""
    return Problem(409, "Somebody else is writing this file", "wait for the other request to end, then ask HEAD again")


def elsewhere(received: int) -> Problem:
    """Say where a file goes on."""
    return Problem(
        409,
        "Not where the file goes on",
        f"{received} bytes are there; go on with the next one, or send the whole file anew without Content-Range",
        headers={"Upload-Offset": str(received)},
        received=received,
    )
