"""An inbox that is a bucket: clients write straight into it by presigned addresses, or through the gateway.

What comes through the gateway goes by way of a file on the local disk: a client may be slow, and what waits for it
must not fill the memory. A small file goes into the bucket whole. A large one goes in parts, and goes on at the part
that was not whole.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from voxelmill_gateway.problems import Problem
from voxelmill_gateway.uploads import rows
from voxelmill_gateway.uploads.folder_inbox import busy, elsewhere
from voxelmill_gateway.uploads.inbox import Found, Taken
from voxelmill_gateway.uploads.model import planned_parts
from voxelmill_gateway.uploads.pieces import TooLongError, gathered
from voxelmill_gateway.uploads.ranges import wrong_length
from voxelmill_shared.concurrency import each
from voxelmill_shared.database import transaction
from voxelmill_shared.errors import NO_ROOM, DiskFullError, ObjectMissingError
from voxelmill_shared.uploads import upload_prefix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_gateway.uploads.model import PlannedPart, Upload, UploadFile
    from voxelmill_gateway.uploads.ranges import Span
    from voxelmill_shared.parts import Scratch
    from voxelmill_shared.storage.base import ObjectStat
    from voxelmill_shared.storage.s3 import S3Store
    from voxelmill_shared.storage.s3_parts import Part

_AT_A_TIME = 16
_WRITTEN: set[tuple[str, int]] = set()
"""The files, by upload and number, that somebody is writing through this process."""


@dataclass(frozen=True, slots=True)
class BucketInbox:
    """See `Inbox`. `engine` is the database of the uploads, `scratch` where files wait on the local disk."""

    store: S3Store
    engine: AsyncEngine
    scratch: Scratch

    async def received(self, file: UploadFile) -> Taken:
        """Look how much of a file has come: whole parts count, from the first on."""
        try:
            stat = await self.store.head(file.key)
        except ObjectMissingError:
            return Taken(sum(part.length for part, _ in await self._beginning(file)))
        return Taken(stat.size, stat.etag)

    async def take(self, upload: Upload, file: UploadFile, span: Span, pieces: AsyncIterator[bytes]) -> Taken:
        """Take in the bytes of a request."""
        with _writing(upload, file):
            try:
                if not planned_parts(file.size):
                    return await self._take_small(file, span, pieces)
                return await self._take_large(upload, file, span, pieces)
            except TooLongError:
                raise wrong_length(span) from None

    async def take_whole(self, key: str, media_type: str, pieces: AsyncIterator[bytes]) -> tuple[int, str]:
        """Take in a file of unknown size."""
        with self.scratch.folder("upload") as folder:
            path = folder / "file"
            await _spool(gathered(pieces), path)
            stored = await self.store.write_file(key, path, media_type)
        return stored.size, stored.etag

    async def holds(self, file: UploadFile, pieces: AsyncIterator[bytes]) -> bool:
        """Tell whether a file that stands has exactly these bytes: its ETag is made from the MD5s of its parts."""
        whole = hashlib.md5(usedforsecurity=False)
        of_parts: list[bytes] = []
        parts = _Parts(gathered(pieces))
        for planned in planned_parts(file.size):
            md5 = hashlib.md5(usedforsecurity=False)
            async for piece in parts.next(planned.length):
                await asyncio.to_thread(md5.update, piece)
            of_parts.append(md5.digest())
        if of_parts:
            joined = hashlib.md5(b"".join(of_parts), usedforsecurity=False).hexdigest()
            return file.etag == f"{joined}-{len(of_parts)}"
        async for piece in parts.next(file.size):
            await asyncio.to_thread(whole.update, piece)
        return file.etag == whole.hexdigest() or (await self._digest(file)) == whole.digest()

    async def find(self, upload: Upload, files: Sequence[UploadFile]) -> Found:
        """Look which files stand, in one list; what has come in parts and is whole is put together."""
        prefix = upload_prefix(upload.project, upload.upload_id)
        standing = {stat.key: stat async for stat in self.store.list(prefix)} if files else {}
        done: list[UploadFile] = []
        wrong: dict[int, int] = {}
        partly: dict[int, int] = {}

        async def look(file: UploadFile) -> None:
            stat = standing.get(file.key) or await self._put_together(file)
            if stat is None:
                if size := sum(part.length for part, _ in await self._beginning(file)):
                    partly[file.number] = size
            elif stat.size == file.size:
                done.append(replace(file, etag=stat.etag, done=True))
            else:
                wrong[file.number] = stat.size

        await each(look, files, _AT_A_TIME)
        return Found(sorted(done, key=lambda file: file.number), wrong, partly)

    async def tidy(self, upload: Upload) -> None:
        """Abort what was begun in parts and not used: two requests began the same file, say."""
        await self.store.parts.abort_all(upload_prefix(upload.project, upload.upload_id))

    async def discard(self, upload: Upload, files: Sequence[UploadFile]) -> None:
        """Throw away everything that has come with an upload, and what has come of uploads in parts."""
        prefix = upload_prefix(upload.project, upload.upload_id)
        for file in files:
            if file.multipart_id:
                await self.store.parts.abort(file.key, file.multipart_id)
        await self.store.parts.abort_all(prefix)
        found = [stat.key async for stat in self.store.list(prefix)]
        await each(self.store.delete, found, _AT_A_TIME)

    async def room(self) -> int | None:
        """Nobody knows."""
        return None

    async def begin(self, upload: Upload, file: UploadFile) -> str:
        """Return the bucket's name of the file's upload in parts, and begin one if there is none."""
        return file.multipart_id or await self._begin(upload, file)

    async def put_together(
        self, file: UploadFile, named: Mapping[int, str] | None = None
    ) -> tuple[ObjectStat | None, list[int]]:
        """Put a file together from its parts, if all are there.

        Parameters
        ----------
        file
            The file.
        named
            The ETags by number that its sender knows. None: those that came last are meant.

        Returns
        -------
        tuple
            What stands now, or none; then the numbers of the parts that are missing, have another size or ETag, or of
            which several came and nobody knows which is meant.
        """
        planned = planned_parts(file.size)
        try:
            sent = await self.store.parts.sent(file.key, file.multipart_id or "")
            chosen, wanting = _choose(planned, sent, named)
            if not wanting:
                await self.store.parts.complete(file.key, file.multipart_id or "", chosen)
        except ObjectMissingError:  # somebody has put it together, or aborted it
            wanting = [part.number for part in planned]
        if wanting and not await self.store.exists(file.key):
            return None, wanting
        return await self.store.head(file.key), []

    async def _put_together(self, file: UploadFile) -> ObjectStat | None:
        if file.multipart_id is None:
            return None
        stat, _ = await self.put_together(file)
        return stat

    async def _beginning(self, file: UploadFile) -> list[tuple[PlannedPart, Part]]:
        """Return the parts that are there and that may be put together, from the first on without a gap."""
        if file.multipart_id is None:
            return []
        try:
            sent = await self.store.parts.sent(file.key, file.multipart_id)
        except ObjectMissingError:
            return []
        planned = planned_parts(file.size)
        chosen, wanting = _choose(planned, sent, None)
        gap = min(wanting, default=len(planned) + 1)
        return list(zip(planned[: gap - 1], chosen, strict=False))

    async def _begin(self, upload: Upload, file: UploadFile) -> str:
        """Begin an upload in parts, instead of the one that there may be."""
        begun = await self.store.parts.begin(file.key, file.media_type)
        async with transaction(self.engine) as connection:
            mine = await rows.set_multipart(connection, upload.upload_id, file.number, begun, file.multipart_id)
            standing = await rows.find_file(connection, upload.upload_id, file.number)
        if mine:
            return begun
        await self.store.parts.abort(file.key, begun)
        if standing is None or standing.multipart_id is None:
            raise Problem(409, "Changed meanwhile", f"file {file.number}: it is done, or its upload has ended")
        return standing.multipart_id

    async def _take_small(self, file: UploadFile, span: Span, pieces: AsyncIterator[bytes]) -> Taken:
        if (span.start, span.end) != (0, file.size):
            raise elsewhere(0)
        with self.scratch.folder("upload") as folder:
            path = folder / "file"
            size = await _spool(gathered(pieces), path)
            if size != file.size:
                raise wrong_length(span, size)
            stored = await self.store.write_file(file.key, path, file.media_type)
        return Taken(stored.size, stored.etag)

    async def _take_large(self, upload: Upload, file: UploadFile, span: Span, pieces: AsyncIterator[bytes]) -> Taken:
        there = await self._beginning(file) if span.start else []
        received = sum(planned.length for planned, _ in there)
        if span.start != received:
            raise elsewhere(received)
        if span.start:
            multipart_id = file.multipart_id or ""
        else:
            multipart_id = await self._begin(upload, file)
            if file.multipart_id:
                await self.store.parts.abort(file.key, file.multipart_id)
        chosen = [part for _, part in there]
        body = _Parts(gathered(pieces))
        try:
            for planned in planned_parts(file.size)[len(there) :]:
                with self.scratch.folder("upload") as folder:
                    path = folder / "part"
                    came = await _spool(body.next(planned.length), path)
                    if came < planned.length:
                        break
                    chosen.append(await self.store.parts.send(file.key, multipart_id, planned.number, path, came))
                received += came
            else:
                await body.end()
                await self.store.parts.complete(file.key, multipart_id, chosen)
                stat = await self.store.head(file.key)
                return Taken(stat.size, stat.etag)
        except ObjectMissingError:
            raise busy() from None  # somebody else has begun it anew
        if body.came != span.length:
            raise wrong_length(span, body.came)
        return Taken(received)

    async def _digest(self, file: UploadFile) -> bytes | None:
        """Return the MD5 of a file of which the ETag is none: it was written in parts, or is encrypted there."""
        if file.etag and "-" not in file.etag:
            return None
        md5 = hashlib.md5(usedforsecurity=False)
        with self.scratch.folder("upload") as folder:
            path = await self.store.fetch(file.key, folder, etag=file.etag)
            await asyncio.to_thread(_feed, md5, path)
        return md5.digest()


class _Parts:
    """Cuts a body into parts."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""
        self.came = 0

    async def next(self, length: int) -> AsyncIterator[bytes]:
        """Give the bytes of the next part, fewer at the end of the body."""
        while length:
            if not self._left:
                try:
                    self._left = await anext(self._pieces)
                except StopAsyncIteration:
                    return
                self.came += len(self._left)
            piece, self._left = self._left[:length], self._left[length:]
            length -= len(piece)
            yield piece

    async def end(self) -> None:
        """Read what is left: a body that is too long is noticed here."""
        async for _ in self._pieces:
            continue


def _choose(
    planned: Sequence[PlannedPart], sent: Sequence[Part], named: Mapping[int, str] | None
) -> tuple[list[Part], list[int]]:
    """Return the parts that make the file, and the numbers of those that are wanting."""
    by_number: dict[int, list[Part]] = {}
    for part in sent:
        by_number.setdefault(part.number, []).append(part)
    chosen: list[Part] = []
    wanting: list[int] = []
    for one in planned:
        fitting = [part for part in by_number.get(one.number, ()) if part.size == one.length]
        if named is not None:
            fitting = [part for part in fitting if part.etag == named.get(one.number)]
        last = fitting[-1:]
        # Of several that came in the same moment nobody knows which is the last.
        unsure = any(part.came == last[0].came and part.etag != last[0].etag for part in fitting) if last else True
        if unsure:
            wanting.append(one.number)
        else:
            chosen += last
    return chosen, wanting


@contextmanager
def _writing(upload: Upload, file: UploadFile) -> Iterator[None]:
    """Be the only one in this process who writes a file."""
    name = (upload.upload_id, file.number)
    if name in _WRITTEN:
        raise busy()
    _WRITTEN.add(name)
    try:
        yield
    finally:
        _WRITTEN.discard(name)


async def _spool(pieces: AsyncIterator[bytes], path: Path) -> int:
    """Write pieces to a file on the local disk; return how many bytes they were."""
    size = 0
    file = await asyncio.to_thread(path.open, "wb", buffering=0)  # whole pieces come, and what is kept back could fail
    try:
        async for piece in pieces:
            await asyncio.to_thread(file.write, piece)
            size += len(piece)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFullError("the gateway's scratch folder is full (VOXELMILL_SCRATCH)") from error
        raise
    finally:
        await asyncio.to_thread(file.close)
    return size


def _feed(md5: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            md5.update(piece)
