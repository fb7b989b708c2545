"""Uploads from their beginning to their end: complete, which is evidence for ingest that all has come, or aborted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect

from voxelmill_gateway.problems import Problem, not_found
from voxelmill_gateway.tables import OUTBOX
from voxelmill_gateway.uploads import rows
from voxelmill_gateway.uploads.bucket_inbox import BucketInbox
from voxelmill_gateway.uploads.content import declared_suffix, media_type_of
from voxelmill_gateway.uploads.folder_inbox import FolderInbox
from voxelmill_gateway.uploads.inbox import Taken
from voxelmill_gateway.uploads.model import Upload, UploadFile, UploadKind, UploadState
from voxelmill_gateway.uploads.pieces import TooLongError, bounded
from voxelmill_shared.catalog.scope import Scope
from voxelmill_shared.database import reading, transaction
from voxelmill_shared.events import AccessRecorded, Envelope, ObjectRef, ObjectUploaded, UploadCompleted
from voxelmill_shared.outbox import add
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.s3 import S3Store
from voxelmill_shared.uploads import new_upload_id, upload_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from voxelmill_gateway.access.callers import Caller
    from voxelmill_gateway.gateway import Gateway
    from voxelmill_gateway.uploads.inbox import Found, Inbox
    from voxelmill_gateway.uploads.ranges import Span

MOST_NAMED: Final = 1000
"""How many files a problem names; the others are counted."""
_ANNOUNCED_AT_ONCE: Final = 500
_DIGITS: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class NewFile:
    """What a client says of a file. Nothing of `name` is kept but a known suffix."""

    name: str
    size: int
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Sessions:
    """The uploads of a gateway."""

    gate: Gateway

    @property
    def inbox(self) -> Inbox:
        """The inbox, as what it is."""
        match self.gate.stores.inbox:
            case LocalStore() as store:
                return FolderInbox(store)
            case S3Store() as store:
                return BucketInbox(store, self.gate.engine, self.gate.scratch)
            case other:
                raise TypeError(f"{type(other).__name__}: no kind of inbox that uploads go to")

    @property
    def idle(self) -> timedelta:
        """After which time that nobody sees to it an upload is aborted."""
        return timedelta(seconds=self.gate.settings.gateway_upload_idle_seconds)

    async def begin(
        self, project: str, who: str, files: Sequence[NewFile] = (), kind: UploadKind = UploadKind.REST
    ) -> tuple[Upload, list[UploadFile]]:
        """Begin an upload.

        Raises
        ------
        Problem
            413 if there are too many files or one is too large, 507 if there is no room for them.
        """
        await self._check(files)
        now = datetime.now(UTC)
        upload = Upload(new_upload_id(), project, who, kind, UploadState.OPEN, None, now, now)
        planned = [_planned(upload, number, file) for number, file in enumerate(files)]
        async with transaction(self.gate.engine) as connection:
            await rows.add_upload(connection, upload, planned)
        return upload, planned

    async def find(self, scope: Scope, upload_id: str) -> Upload:
        """Return an upload.

        Raises
        ------
        Problem
            404 if there is none of this id that the caller may see.
        """
        async with reading(self.gate.engine) as connection:
            upload = await rows.find_upload(connection, scope, upload_id) if _is_id(upload_id) else None
        if upload is None:
            raise not_found(f"upload {upload_id[:64]}" if _is_id(upload_id) else "upload")
        return upload

    async def find_file(self, upload: Upload, number: int) -> UploadFile:
        """Return a file of an upload.

        Raises
        ------
        Problem
            404 if it has none of this number.
        """
        async with reading(self.gate.engine) as connection:
            file = await rows.find_file(connection, upload.upload_id, number)
        if file is None:
            raise not_found(f"file {number} of upload {upload.upload_id}")
        return file

    async def seen_to(self, upload: Upload) -> Upload:
        """Write down that somebody sees to an upload, and return it as it is then."""
        now = datetime.now(UTC)
        async with transaction(self.gate.engine) as connection:
            await rows.touch(connection, upload.upload_id, now)
        return replace(upload, changed=now)

    async def receive(self, upload: Upload, file: UploadFile, span: Span, pieces: AsyncIterator[bytes]) -> Taken:
        """Take in bytes of a file. A file that is done may be sent once more if it is the same.

        Raises
        ------
        Problem
            409 if the upload has ended, the file is there with other bytes, or somebody else is writing it.
        """
        if file.done:
            return await self._compare(file, span, pieces)
        check_open(upload)
        try:
            taken = await self.inbox.take(upload, file, span, bounded(pieces, span.length))
        except ClientDisconnect:
            await self._write_down(upload, file, await self.inbox.received(file))
            raise
        except Problem:
            # Who aborted it, or completed it, meanwhile is the better reason.
            check_open(await self.find(Scope(frozenset({upload.project})), upload.upload_id))
            raise
        if not await self._write_down(upload, file, taken):
            ended = await self.find(Scope(frozenset({upload.project})), upload.upload_id)
            if ended.state is UploadState.ABORTED:
                await self.inbox.discard(ended, [file])  # it came after the others were removed
                check_open(ended)
        return taken

    async def complete(self, upload: Upload, caller: Caller) -> Upload:
        """End an upload of which everything has come. Once more is no error.

        The events stand in the outbox with the row that says so, so that neither is without the other.

        Raises
        ------
        Problem
            409 if files are missing or have other sizes than were declared, or if it was aborted.
        """
        if upload.state is UploadState.COMPLETE:
            self.gate.relay.notify()
            return upload
        check_open(upload)
        async with reading(self.gate.engine) as connection:
            files = await rows.files_of(connection, upload.upload_id)
        if not files:
            raise Problem(409, "Nothing has come", "the upload has no files; send one, or abort it")
        files = await self._all_done(upload, files)
        await self.inbox.tidy(upload)
        return await self._announce(upload, files, caller)

    async def _announce(self, upload: Upload, files: Sequence[UploadFile], caller: Caller) -> Upload:
        """Write down that an upload is complete and by whom, and tell ingest of its files, all in one transaction."""
        now = datetime.now(UTC)
        brought = AccessRecorded(
            who=caller.who,
            action="uploaded",
            project=upload.project,
            detail=f"upload {upload.upload_id}, {len(files)} files",
            period_start=now,
        )
        envelopes = await asyncio.to_thread(self._envelopes, upload, files)
        envelopes.append(Envelope.wrap(brought, self.gate.source))
        async with transaction(self.gate.engine) as connection:
            if await rows.close(connection, upload.upload_id, UploadState.COMPLETE, now, objects=len(files)):
                for first in range(0, len(envelopes), _ANNOUNCED_AT_ONCE):
                    await add(connection, OUTBOX, envelopes[first : first + _ANNOUNCED_AT_ONCE])
        self.gate.relay.notify()
        ended = await self.find(Scope(frozenset({upload.project})), upload.upload_id)
        if ended.state is not UploadState.COMPLETE:
            check_open(ended)
        return ended

    async def abort(self, upload: Upload) -> None:
        """End an upload without its files, and remove what has come. Once more is no error.

        Where the store is out of reach, and where somebody still has an address that he may write to, the sweep
        removes the rest.

        Raises
        ------
        Problem
            409 if it is complete.
        """
        async with transaction(self.gate.engine) as connection:
            await rows.close(connection, upload.upload_id, UploadState.ABORTED, datetime.now(UTC))
            files = await rows.files_of(connection, upload.upload_id)
        now = await self.find(Scope(frozenset({upload.project})), upload.upload_id)
        if now.state is UploadState.COMPLETE:
            raise Problem(409, "The upload is complete", "what has been handed on to ingest cannot be taken back")
        await self.inbox.discard(upload, files)

    async def add_whole(self, upload: Upload, number: int, suffix: str, pieces: AsyncIterator[bytes]) -> UploadFile:
        """Take in a file of unknown size as the next one of an upload.

        Raises
        ------
        Problem
            413 if it is larger than files may be.
        """
        key = upload_key(upload.project, upload.upload_id, number, suffix)
        media_type = media_type_of(suffix)
        most = self.gate.settings.gateway_upload_bytes
        try:
            size, etag = await self.inbox.take_whole(key, media_type, bounded(pieces, most))
        except TooLongError:
            raise too_large(most) from None
        file = UploadFile(number, key, size, media_type, received=size, etag=etag, done=True)
        async with transaction(self.gate.engine) as connection:
            await rows.add_file(connection, upload.upload_id, file)
        return file

    async def settle(self, upload: Upload, files: Sequence[UploadFile]) -> tuple[list[UploadFile], Found]:
        """Look which of some files are done by now; return all as they are, and what was found."""
        found = await self.inbox.find(upload, [file for file in files if not file.done])
        if found.done:
            async with transaction(self.gate.engine) as connection:
                await rows.set_done(connection, upload.upload_id, found.done)
        done = {file.number: replace(file, received=file.size) for file in found.done}
        return [
            file if file.done else done.get(file.number, replace(file, received=found.partly.get(file.number, 0)))
            for file in files
        ], found

    async def _all_done(self, upload: Upload, files: Sequence[UploadFile]) -> list[UploadFile]:
        now, found = await self.settle(upload, files)
        missing = [file.number for file in now if not file.done and file.number not in found.wrong]
        if not missing and not found.wrong:
            return now
        wrong = [
            {"number": number, "declared": files[number].size, "received": size} for number, size in found.wrong.items()
        ]
        words = [
            f"{len(missing)} of {len(files)} files have not come" if missing else "",
            f"{len(wrong)} have another size than was declared" if wrong else "",
        ]
        raise Problem(
            409,
            "Files are missing",
            f"{' and '.join(filter(None, words))}; send them and complete again, or abort the upload",
            missing=missing[:MOST_NAMED],
            missing_total=len(missing),
            wrong_size=wrong[:MOST_NAMED],
        )

    async def _check(self, files: Sequence[NewFile]) -> None:
        settings = self.gate.settings
        most = settings.gateway_upload_files
        if len(files) > most:
            raise Problem(
                413,
                "Too many files",
                f"{len(files)} files, and an upload may have {most}; make several uploads of them",
            )
        if any(file.size > settings.gateway_upload_bytes for file in files):
            raise too_large(settings.gateway_upload_bytes)
        room = await self.inbox.room()
        wanted = sum(file.size for file in files)
        if room is not None and wanted > room:
            raise Problem(
                507,
                "No room",
                f"{wanted >> 20} MiB are to come, and the inbox has room for {room >> 20} MiB; make room there",
            )

    async def _compare(self, file: UploadFile, span: Span, pieces: AsyncIterator[bytes]) -> Taken:
        try:
            if (span.start, span.end) == (0, file.size) and await self.inbox.holds(file, bounded(pieces, span.length)):
                return Taken(file.size, file.etag)
        except TooLongError:
            pass
        raise Problem(
            409,
            "The file is there already",
            f"file {file.number} is done, and this is not the same; begin another upload for it",
            headers={"Upload-Offset": str(file.size)},
        )

    async def _write_down(self, upload: Upload, file: UploadFile, taken: Taken) -> bool:
        """Write down what has come of a file; tell whether its upload is still open."""
        now = datetime.now(UTC)
        async with transaction(self.gate.engine) as connection:
            is_open = await rows.touch(connection, upload.upload_id, now)
            if taken.etag is None:
                await rows.set_received(connection, upload.upload_id, file.number, taken.received)
            else:
                await rows.set_done(connection, upload.upload_id, [replace(file, etag=taken.etag)])
        return is_open

    def _envelopes(self, upload: Upload, files: Sequence[UploadFile]) -> list[Envelope]:
        bucket = self.gate.stores.inbox.bucket
        source = self.gate.source
        announced = [
            ObjectUploaded(
                object=ObjectRef(bucket=bucket, key=file.key, etag=file.etag or "", size=file.size),
                found_by="gateway",
                upload_id=upload.upload_id,
            )
            for file in files
        ]
        ended = UploadCompleted(upload_id=upload.upload_id, objects=len(files))
        return [Envelope.wrap(event, source) for event in (*announced, ended)]


def check_open(upload: Upload) -> None:
    """Refuse to change an upload that has ended.

    Raises
    ------
    Problem
        409.
    """
    if upload.state is not UploadState.OPEN:
        raise Problem(409, f"The upload is {upload.state}", "begin another one (POST /uploads)", state=upload.state)


def too_large(most: int) -> Problem:
    """Say that a file is larger than files may be."""
    return Problem(413, "Too large", f"a file may have {most} bytes (VOXELMILL_GATEWAY_UPLOAD_BYTES); split it")


def _planned(upload: Upload, number: int, file: NewFile) -> UploadFile:
    suffix = declared_suffix(file.name, file.media_type)
    key = upload_key(upload.project, upload.upload_id, number, suffix)
    return UploadFile(number, key, file.size, media_type_of(suffix))


def _is_id(text: str) -> bool:
    return len(text) == 32 and _DIGITS.issuperset(text)
