"""S3 event records: what AWS, MinIO, RustFS and Ceph say in `Records`, and how each of them spells a key.

Fields and versions: Amazon S3 User Guide, "Event message structure". A minor version adds fields, a major one may
change their meaning. AWS, MinIO and RustFS spell a key as in the query of a URL, Ceph as it is (seen with 16.2.15).
"""

from __future__ import annotations

import re
from typing import Any

from voxelmill_ingest.triggers import fields
from voxelmill_ingest.triggers.notification import Notification, UnknownNotificationError

UPLOADS = frozenset(f"ObjectCreated:{action}" for action in ("Put", "Post", "Copy", "CompleteMultipartUpload"))
"""Which events say that an object has new content. MinIO also says `ObjectCreated` of tags, retention and holds."""

_KEYS = {
    "aws:s3": fields.encoded_name,
    "minio:s3": fields.encoded_name,
    "rustfs:s3": fields.encoded_name,
    "ceph:s3": fields.name,
}
_WORD = re.compile(r"[A-Za-z0-9:._-]{1,40}")


def is_upload(event_name: object, where: str) -> bool:
    """Whether an event says that an object has new content.

    Raises
    ------
    UnknownNotificationError
        If the event has no name.
    """
    return fields.name(event_name, where).removeprefix("s3:") in UPLOADS


def read(record: object, where: str) -> Notification | None:
    """Read one record; None if it tells of no upload.

    Parameters
    ----------
    record
        The record, or RustFS's wrapper around it (`{"bucket_name", "object_name", "event_name", "data"}`).
    where
        How to name it in an error.

    Raises
    ------
    UnknownNotificationError
        If it is no record of a version and a source that are known.
    """
    found = fields.mapping(record, where)
    if "s3" not in found and "data" in found:
        found = fields.mapping(found["data"], f"{where}.data")
    source = found.get("eventSource")
    read_key = _KEYS.get(source) if isinstance(source, str) else None
    if read_key is None:
        raise UnknownNotificationError(f"{where}.eventSource {quoted(source)} is none of {', '.join(_KEYS)}")
    version = found.get("eventVersion")
    if not isinstance(version, str) or version.partition(".")[0] != "2":
        raise UnknownNotificationError(f"{where}.eventVersion {quoted(version)} is not 2.x")
    if not is_upload(found.get("eventName"), f"{where}.eventName"):
        return None
    s3 = fields.mapping(found.get("s3"), f"{where}.s3")
    bucket = fields.mapping(s3.get("bucket"), f"{where}.s3.bucket")
    stored: dict[str, Any] = fields.mapping(s3.get("object"), f"{where}.s3.object")
    return Notification(
        fields.name(bucket.get("name"), f"{where}.s3.bucket.name"),
        read_key(stored.get("key"), f"{where}.s3.object.key"),
        fields.etag(stored.get("eTag")),
        fields.size(stored.get("size")),
        fields.version_id(stored.get("versionId")),
    )


def quoted(value: object) -> str:
    """Quote a value that is a plain word. Anything else is only named by its type: it could be anybody's data."""
    if isinstance(value, str) and _WORD.fullmatch(value):
        return f"'{value}'"
    return f"({fields.json_type(value)})"
