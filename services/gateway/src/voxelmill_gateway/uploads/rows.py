"""Uploads in the gateway's tables. Every function takes an open connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, exists, func, insert, select, update

from voxelmill_gateway.tables import UPLOAD_FILES, UPLOADS
from voxelmill_gateway.uploads.model import Upload, UploadFile, UploadKind, UploadState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voxelmill_shared.catalog.scope import Scope


async def add_upload(connection: AsyncConnection, upload: Upload, files: Iterable[UploadFile]) -> None:
    """Write an upload with its files."""
    await connection.execute(
        insert(UPLOADS).values(
            upload_id=upload.upload_id,
            project=upload.project,
            who=upload.who,
            kind=upload.kind,
            state=upload.state,
            objects=upload.objects,
            created=upload.created,
            changed=upload.changed,
        )
    )
    if rows := [_values(upload.upload_id, file) for file in files]:
        await connection.execute(insert(UPLOAD_FILES), rows)


async def add_file(connection: AsyncConnection, upload_id: str, file: UploadFile) -> None:
    """Write one more file of an upload."""
    await connection.execute(insert(UPLOAD_FILES), [_values(upload_id, file)])


async def find_upload(connection: AsyncConnection, scope: Scope, upload_id: str) -> Upload | None:
    """Return an upload of one of the caller's projects, or none."""
    query = scope.over(select(UPLOADS).where(UPLOADS.c.upload_id == upload_id), UPLOADS.c.project)
    row = (await connection.execute(query)).first()
    return _upload(row) if row else None


async def find_file(connection: AsyncConnection, upload_id: str, number: int) -> UploadFile | None:
    """Return one file of an upload, or none."""
    row = (await connection.execute(_files(upload_id).where(UPLOAD_FILES.c.number == number))).first()
    return _file(row) if row else None


async def files_of(
    connection: AsyncConnection, upload_id: str, *, limit: int | None = None, offset: int = 0
) -> list[UploadFile]:
    """Return the files of an upload by number, or a page of them."""
    query = _files(upload_id).order_by(UPLOAD_FILES.c.number).limit(limit).offset(offset)
    return [_file(row) for row in await connection.execute(query)]


async def count_files(connection: AsyncConnection, upload_id: str) -> tuple[int, int, int]:
    """Return how many files an upload has, how many of them are done, and how many bytes have come."""
    done = func.count().filter(UPLOAD_FILES.c.done)
    query = select(func.count(), done, func.coalesce(func.sum(UPLOAD_FILES.c.received), 0))
    row = (await connection.execute(query.where(UPLOAD_FILES.c.upload_id == upload_id))).one()
    return int(row[0]), int(row[1]), int(row[2])


async def set_received(connection: AsyncConnection, upload_id: str, number: int, received: int) -> None:
    """Write down how many bytes of a file have come."""
    await connection.execute(_of_file(upload_id, number).where(~UPLOAD_FILES.c.done).values(received=received))


async def set_done(connection: AsyncConnection, upload_id: str, done: Sequence[UploadFile]) -> None:
    """Write down that files are whole, with their ETags."""
    if done:
        change = (
            update(UPLOAD_FILES)
            .where(UPLOAD_FILES.c.upload_id == upload_id, UPLOAD_FILES.c.number == bindparam("of_number"))
            .values(received=UPLOAD_FILES.c.size, etag=bindparam("its_etag"), done=True)
        )
        await connection.execute(change, [{"of_number": file.number, "its_etag": file.etag} for file in done])


async def set_multipart(
    connection: AsyncConnection, upload_id: str, number: int, multipart_id: str, before: str | None
) -> bool:
    """Give a file its upload in parts, instead of the one before; False if it has got another one meanwhile."""
    change = _of_file(upload_id, number).where(UPLOAD_FILES.c.multipart_id == before, ~UPLOAD_FILES.c.done)
    return bool((await connection.execute(change.values(multipart_id=multipart_id))).rowcount)


async def touch(connection: AsyncConnection, upload_id: str, now: datetime) -> bool:
    """Write down that somebody sees to an upload; False if it has ended."""
    return bool((await connection.execute(_open(upload_id).values(changed=now))).rowcount)


async def close(
    connection: AsyncConnection,
    upload_id: str,
    state: UploadState,
    now: datetime,
    *,
    objects: int | None = None,
    before: datetime | None = None,
) -> bool:
    """End an open upload, `before`: one that nobody has seen to since; False if it is none (any more)."""
    values: dict[str, Any] = {"state": state, "changed": now}
    if objects is not None:
        values["objects"] = objects
    change = _open(upload_id)
    if before is not None:
        change = change.where(UPLOADS.c.changed < before)
    return bool((await connection.execute(change.values(**values))).rowcount)


async def idle(connection: AsyncConnection, before: datetime, limit: int) -> list[Upload]:
    """Return open uploads that nobody has seen to since, the oldest first."""
    query = select(UPLOADS).where(UPLOADS.c.state == UploadState.OPEN, UPLOADS.c.changed < before)
    return [_upload(row) for row in await connection.execute(query.order_by(UPLOADS.c.changed).limit(limit))]


async def uncleared(connection: AsyncConnection, before: datetime, limit: int) -> list[Upload]:
    """Return uploads that were aborted before a moment and of which there may still be something in the store."""
    has_files = exists().where(UPLOAD_FILES.c.upload_id == UPLOADS.c.upload_id)
    query = select(UPLOADS).where(UPLOADS.c.state == UploadState.ABORTED, UPLOADS.c.changed < before, has_files)
    return [_upload(row) for row in await connection.execute(query.order_by(UPLOADS.c.changed).limit(limit))]


async def forget_files(connection: AsyncConnection, upload_id: str) -> None:
    """Remove the rows of an upload's files."""
    await connection.execute(delete(UPLOAD_FILES).where(UPLOAD_FILES.c.upload_id == upload_id))


def _files(upload_id: str) -> Any:
    return select(UPLOAD_FILES).where(UPLOAD_FILES.c.upload_id == upload_id)


def _of_file(upload_id: str, number: int) -> Any:
    return update(UPLOAD_FILES).where(UPLOAD_FILES.c.upload_id == upload_id, UPLOAD_FILES.c.number == number)


def _open(upload_id: str) -> Any:
    return update(UPLOADS).where(UPLOADS.c.upload_id == upload_id, UPLOADS.c.state == UploadState.OPEN)


def _values(upload_id: str, file: UploadFile) -> dict[str, Any]:
    return {
        "upload_id": upload_id,
        "number": file.number,
        "key": file.key,
        "size": file.size,
        "media_type": file.media_type,
        "received": file.received,
        "multipart_id": file.multipart_id,
        "etag": file.etag,
        "done": file.done,
    }


def _upload(row: Row[Any]) -> Upload:
    return Upload(
        upload_id=row.upload_id,
        project=row.project,
        who=row.who,
        kind=UploadKind(row.kind),
        state=UploadState(row.state),
        objects=row.objects,
        created=row.created,
        changed=row.changed,
    )


def _file(row: Row[Any]) -> UploadFile:
    return UploadFile(
        number=row.number,
        key=row.key,
        size=row.size,
        media_type=row.media_type,
        received=row.received,
        multipart_id=row.multipart_id,
        etag=row.etag,
        done=row.done,
    )
