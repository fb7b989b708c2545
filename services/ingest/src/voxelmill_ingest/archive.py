"""Archives: unpacked once into the work store, then announced member by member like any other upload."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from voxelmill_ingest.assembly import archive_upload
from voxelmill_ingest.findings import Refusal, Unpacked
from voxelmill_ingest.reasons import Reason
from voxelmill_ingest.settlement import ObjectChangedError
from voxelmill_ingest.unpack import ArchiveRefusedError, Bounds, Contents, Member, UnpackJob
from voxelmill_shared.concurrency import each
from voxelmill_shared.errors import ObjectMissingError
from voxelmill_shared.events import ObjectRef, ObjectRejected, ObjectUploaded, UploadCompleted
from voxelmill_shared.projects import project_of, project_prefix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxelmill_ingest.deidentify.copies import Deidentifier
    from voxelmill_ingest.findings import ArchiveFormat
    from voxelmill_shared.child import Child
    from voxelmill_shared.events import Event
    from voxelmill_shared.parts import Scratch
    from voxelmill_shared.storage.stores import Stores

TARGET = "voxelmill_ingest.unpack:unpack"
_TRANSFERS = 16


class _RefusedMember(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    reason: Reason
    detail: str
    size: int


class ArchiveIndex(BaseModel):
    """What came out of an archive. Written last, so that where it stands all members stand."""

    model_config = ConfigDict(frozen=True)

    members: tuple[ObjectRef, ...]
    refused: tuple[_RefusedMember, ...]


FOLDER = "archives"
"""Where the members of archives lie in the store for work, behind the prefix of their project."""


def content_digest(archive: ObjectRef) -> str:
    """Name an archive's content: its members lie in `archives/{digest}/{number}/{name}` of its project."""
    return hashlib.sha256(archive.content().encode()).hexdigest()[:24]


def member_name(key: str, archives: Mapping[str, str]) -> str:
    """Name a member as people know it, `archive!member`.

    Parameters
    ----------
    key
        Its key in the store for work.
    archives
        The archives' keys by the digest of their content.
    """
    parts = key.removeprefix(project_prefix(project_of(key))).split("/", 3)
    if len(parts) < len((FOLDER, "digest", "number", "name")) or parts[1] not in archives:
        return key
    return f"{archives[parts[1]]}!{parts[3]}"


@dataclass(frozen=True, slots=True)
class Unpacker:
    """Takes archives apart.

    `child` runs `TARGET`; only in it are archives read. With `deidentify` only copies of members get into the store,
    and no member's name leaves the archive.
    """

    stores: Stores
    scratch: Scratch
    child: Child
    bounds: Bounds
    deidentify: Deidentifier | None = None

    async def __call__(
        self, archive: ObjectRef, archive_format: ArchiveFormat, upload_id: str | None
    ) -> tuple[Unpacked | Refusal, list[Event]]:
        """Unpack an archive, or find that it has been unpacked; return what it is and the events of its members.

        Raises
        ------
        ObjectChangedError
            If the archive was replaced while it was read. Nothing is kept of it.
        """
        if archive.bucket == self.stores.work.bucket:
            return Refusal(reason=Reason.ARCHIVE_NESTED_TOO_DEEP, detail="a member of an archive is an archive"), []
        digest = content_digest(archive)
        # The same archive in two projects is unpacked in both: what is under a project's prefix is its own alone.
        own = project_prefix(project_of(archive.key))
        prefix = f"{own}{FOLDER}/{digest}" if self.deidentify is None else self.deidentify.folder(archive)
        index = await self._standing(f"{prefix}/index.json")
        if index is None:
            try:
                index = await self._unpack(archive, archive_format, prefix)
            except ArchiveRefusedError as error:
                return Refusal(reason=error.reason, detail=error.detail), []
        return Unpacked(members=len(index.members), refused=len(index.refused)), _events(
            archive, index, upload_id, archive_upload(upload_id, digest)
        )

    async def _standing(self, key: str) -> ArchiveIndex | None:
        try:
            return ArchiveIndex.model_validate_json(await self.stores.work.read(key))
        except (ObjectMissingError, ValidationError):
            return None  # not unpacked yet, or by another version: unpacking again writes the same keys

    async def _unpack(self, archive: ObjectRef, archive_format: ArchiveFormat, prefix: str) -> ArchiveIndex:
        with self.scratch.folder("unpack") as folder:
            path = await self.stores.of(archive).fetch(archive.key, folder / "archive")
            target = folder / "members"
            target.mkdir()
            try:
                contents: Contents = await self.child.call(UnpackJob(path, archive_format, target, self.bounds))
            except ArchiveRefusedError:
                await self._check_unchanged(archive)
                raise
            await self._check_unchanged(archive)

            async def keep(numbered: tuple[int, Member]) -> ObjectRef | _RefusedMember:
                number, member = numbered
                if self.deidentify is not None:
                    return await self._copy(self.deidentify, archive, f"{prefix}/{number:06d}", member)
                # The number keeps apart members of one name, and a file from a folder of the same name.
                key = f"{prefix}/{number:06d}/{member.name}"
                stored = await self.stores.work.write_file(key, member.path)
                bucket = self.stores.work.bucket
                return ObjectRef(bucket=bucket, key=key, etag=stored.etag, size=stored.size)

            kept = await each(keep, enumerate(contents.members), _TRANSFERS)
        refused = [_RefusedMember(**_fields(one)) for one in contents.refused]
        if self.deidentify is not None:
            refused = [_nameless(one, f"refused-{number:06d}") for number, one in enumerate(refused)]
        index = ArchiveIndex(
            members=tuple(one for one in kept if isinstance(one, ObjectRef)),
            refused=(*refused, *(one for one in kept if isinstance(one, _RefusedMember))),
        )
        await self.stores.work.write(f"{prefix}/index.json", index.model_dump_json().encode(), "application/json")
        return index

    async def _copy(
        self, deidentify: Deidentifier, archive: ObjectRef, place: str, member: Member
    ) -> ObjectRef | _RefusedMember:
        """Put a member's de-identified copy into the store, or refuse the member by its number."""
        written = member.path.with_suffix(".copy")
        number = member.path.name
        answer = await deidentify.copy_file(member.path, member.name, written)
        if isinstance(answer, Refusal):
            size = member.path.stat().st_size
            return _RefusedMember(name=number, reason=answer.reason, detail=answer.detail, size=size)
        address = f"{archive.address()}!{number}/{member.name}"
        return (await deidentify.keep(address, f"{place}{answer.suffix}", answer, written)).reference

    async def _check_unchanged(self, archive: ObjectRef) -> None:
        """Look again: what was read may be of another content than the one that it would be filed under."""
        stat = await self.stores.of(archive).head(archive.key)
        if stat.etag != archive.etag:
            raise ObjectChangedError(f"{archive.address()}: replaced while it was unpacked")


def _fields(member: Any) -> dict[str, Any]:
    return {name: getattr(member, name) for name in ("name", "reason", "detail", "size")}


def _nameless(member: _RefusedMember, name: str) -> _RefusedMember:
    return member.model_copy(update={"name": name, "detail": member.reason.explanation})


def _events(archive: ObjectRef, index: ArchiveIndex, upload_id: str | None, members_upload: str) -> list[Event]:
    """Announce the members as an upload of their own, and reject those that were not unpacked as `archive!member`."""
    events: list[Event] = [
        ObjectUploaded(object=member, found_by="archive", upload_id=members_upload) for member in index.members
    ]
    for one in index.refused:
        member = archive.model_copy(update={"key": f"{archive.key}!{one.name}", "size": one.size})
        events.append(
            ObjectRejected(
                object=member,
                severity=one.reason.severity,
                reason=one.reason.value,
                detail=one.detail,
                upload_id=upload_id,
            )
        )
    events.append(UploadCompleted(upload_id=members_upload, objects=len(index.members)))
    return events
