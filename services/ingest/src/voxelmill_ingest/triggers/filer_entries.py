"""What an entry of SeaweedFS's filer says of an object: one rule for its stream and for its webhook.

Both tell of every change in the filer's tree, in which a bucket is a folder under `/buckets`. Seen with weed 4.48: an
object that is put is a new entry; one that is put again has an old and a new entry with other chunks; tags, metadata
and a version that is no longer the current one change an entry and leave its chunks as they are; the parts of a
multipart upload are entries under `.uploads` of the bucket, and its completion is a new entry under the key; in a
versioned bucket each version is an entry `v_{id}` in the folder `{key}.versions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from voxelmill_ingest.triggers.notification import Notification, UnknownNotificationError

if TYPE_CHECKING:
    from collections.abc import Mapping

BUCKETS = "/buckets/"
"""Where a filer keeps its buckets (`filer -s3` and `weed mini` know no other place)."""
UPLOADS = ".uploads/"
"""Where a bucket keeps the parts of multipart uploads that are under way."""
VERSIONS = ".versions"
ETAG = "Seaweed-X-Amz-ETag"
VERSION_ID = "Seaweed-X-Amz-Version-Id"
DELETE_MARKER = "Seaweed-X-Amz-Delete-Marker"


@dataclass(frozen=True, slots=True)
class FilerEntry:
    """A file or folder of the filer, as far as it matters here.

    `data` names the stored bytes: two entries of one path with the same `data` hold the same content.
    """

    path: str
    is_directory: bool
    size: int
    etag: str
    version_id: str | None
    is_delete_marker: bool
    data: tuple[object, ...]

    @classmethod
    def of(
        cls,
        path: str,
        *,
        is_directory: bool,
        size: int,
        md5: bytes,
        extended: Mapping[str, bytes],
        data: tuple[object, ...],
    ) -> FilerEntry:
        """Read an entry from what both forms of it have.

        The gateway notes an object's ETag beside it; the MD5 is that of an entry which came another way.
        """
        etag = extended.get(ETAG, b"").decode(errors="replace").strip('"') or md5.hex()
        version = extended.get(VERSION_ID, b"").decode(errors="replace") or None
        return cls(path, is_directory, size, etag, version, DELETE_MARKER in extended, (size, etag, *data))


def uploaded(old: FilerEntry | None, new: FilerEntry | None) -> Notification | None:
    """Say which object a change of the filer's tree brought; None if it brought none.

    Folders, deletions, parts of uploads, what SeaweedFS keeps for itself under `/buckets/.system` and changes of tags
    or metadata bring none. An entry that was renamed is an object that is new under its new key.
    """
    if new is None or new.is_directory or new.is_delete_marker or not new.path.startswith(BUCKETS):
        return None
    if old is not None and (old.path, old.data) == (new.path, new.data):
        return None
    bucket, _, key = new.path.removeprefix(BUCKETS).partition("/")
    if not bucket or bucket.startswith(".") or not key or key.startswith(UPLOADS):
        return None
    version = new.version_id
    if version is not None:
        # `null` is the version of what was put before the bucket had any: it stands under its key like any other.
        key = key.removesuffix(f"{VERSIONS}/v_{version}")
    return Notification(bucket, key, new.etag, new.size, None if version == "null" else version)


def from_webhook(document: object) -> Notification | None:
    """Say which object the body of a webhook's request tells of; None if of none.

    Parameters
    ----------
    document
        The body, parsed: `{"event_type", "key", "message": {"old_entry", "new_entry", "new_parent_path", …}}`, in which
        bytes are Base64 and what is empty is left out. `key` is the path of the old entry where there is one.

    Raises
    ------
    UnknownNotificationError
        If it is of another shape.
    """
    try:
        body = _Webhook.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise UnknownNotificationError(f"not a notification of SeaweedFS: {where}: {first['msg']}") from None
    message = body.message
    old = message.old_entry.at(body.key) if message.old_entry else None
    new = message.new_entry.at(f"{message.new_parent_path}/{message.new_entry.name}") if message.new_entry else None
    return uploaded(old, new)


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _FileId(_Document):
    volume_id: int = 0
    file_key: int = 0
    cookie: int = 0


class _Chunk(_Document):
    file_id: str = ""
    fid: _FileId | None = None

    def name(self) -> object:
        return self.file_id if self.fid is None else (self.fid.volume_id, self.fid.file_key, self.fid.cookie)


class _Attributes(_Document):
    file_size: int = 0
    md5: Base64Bytes = b""


class _Entry(_Document):
    name: str
    is_directory: bool = False
    chunks: tuple[_Chunk, ...] = ()
    attributes: _Attributes = _Attributes()
    extended: dict[str, Base64Bytes] = Field(default_factory=dict)
    content: Base64Bytes = b""

    def at(self, path: str) -> FilerEntry:
        return FilerEntry.of(
            path,
            is_directory=self.is_directory,
            size=self.attributes.file_size or len(self.content),
            md5=self.attributes.md5,
            extended=self.extended,
            data=(self.content, *(chunk.name() for chunk in self.chunks)),
        )


class _Message(_Document):
    old_entry: _Entry | None = None
    new_entry: _Entry | None = None
    new_parent_path: str = ""


class _Webhook(_Document):
    key: str
    message: _Message
