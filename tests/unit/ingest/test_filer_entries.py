"""Changes in the filer's tree: which of them bring an object, and how its key and content are spelled."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from voxelmill_ingest.triggers.filer_entries import from_webhook
from voxelmill_ingest.triggers.notification import Notification, UnknownNotificationError

MD5 = "398533d48111e9f664b1f64cb10c4b63"


def entry(name: str, chunk: int = 1, size: int = 1000, **more: Any) -> dict[str, Any]:
    """An entry as weed 4.48 writes it into a webhook's body."""
    extended = {name: base64.b64encode(value).decode() for name, value in more.pop("extended", {}).items()}
    return {
        "name": name,
        "chunks": [{"size": size, "fid": {"volume_id": 2, "file_key": chunk, "cookie": 1794417817}}],
        "attributes": {"file_size": size, "mtime": 1795247389, "md5": base64.b64encode(bytes.fromhex(MD5)).decode()},
        "extended": {"Seaweed-X-Amz-ETag": base64.b64encode(MD5.encode()).decode(), **extended},
        **more,
    }


def change(
    new: dict[str, Any] | None,
    old: dict[str, Any] | None = None,
    parent: str = "/buckets/inbox/p1",
    came_from: str | None = None,
) -> dict[str, Any]:
    """The body of a webhook's request."""
    old_path = f"{came_from or parent}/{old['name']}" if old else f"{parent}/{new['name']}"
    message = {"old_entry": old, "new_entry": new, "new_parent_path": parent if new else None}
    return {"event_type": "any", "key": old_path, "message": {name: value for name, value in message.items() if value}}


def test_a_put_is_an_upload_under_its_raw_key():
    """Bucket and key come out of the path as they are, nothing is decoded; the ETag is the gateway's."""
    told = from_webhook(change(entry("a b+%2Fé.dcm")))
    assert told == Notification("inbox", "p1/a b+%2Fé.dcm", MD5, 1000, None)


def test_an_object_put_again_is_an_upload():
    """Other chunks under the same path: other bytes, or the same ones put once more."""
    assert from_webhook(change(entry("a", chunk=3), old=entry("a", chunk=1))) is not None


@pytest.mark.parametrize(
    ("what", "document"),
    [
        ("folder", change(entry("p1", is_directory=True), parent="/buckets/inbox")),
        ("bucket", change(entry("inbox", is_directory=True), parent="/buckets")),
        ("deletion", change(None, old=entry("a"))),
        ("tags", change(entry("a", extended={"X-Amz-Tagging-a": b"b"}), old=entry("a"))),
        ("part", change(entry("0001_x.part"), parent="/buckets/inbox/.uploads/0b62")),
        ("the gateway's own", change(entry("inbox"), parent="/buckets/.system/owners/admin")),
        ("outside of buckets", change(entry("a"), parent="/etc/iam")),
        ("beside the buckets", change(entry("a"), parent="/buckets2/inbox")),
        ("file in no bucket", change(entry("a"), parent="/buckets")),
        (
            "delete marker",
            change(
                entry("v_6715", extended={"Seaweed-X-Amz-Delete-Marker": b"true", "Seaweed-X-Amz-Version-Id": b"6715"}),
                parent="/buckets/inbox/a.versions",
            ),
        ),
    ],
)
def test_what_is_no_upload_is_passed_over(what, document):
    """The filer tells of every change in its tree; most are none of ours."""
    assert from_webhook(document) is None, what


def test_a_key_with_uploads_further_down_is_the_users_own():
    """Only the bucket's own folder `.uploads` holds parts."""
    told = from_webhook(change(entry("x"), parent="/buckets/inbox/p1/.uploads"))
    assert told is not None
    assert told.key == "p1/.uploads/x"


def test_a_renamed_object_is_new_under_its_new_key():
    """A file moved into the inbox through a mount was never put there, and is an object of it all the same."""
    told = from_webhook(change(entry("b"), old=entry("a"), came_from="/buckets/inbox/tmp"))
    assert told is not None
    assert told.key == "p1/b"


def test_a_version_is_told_under_its_key():
    """A versioned bucket keeps each version in a folder; S3 knows the object by its key."""
    version = entry("v_6715e94f", extended={"Seaweed-X-Amz-Version-Id": b"6715e94f"})
    told = from_webhook(change(version, parent="/buckets/inbox/v/a.dcm.versions"))
    assert told == Notification("inbox", "v/a.dcm", MD5, 1000, "6715e94f")
    superseded = entry(
        "v_6715e94f", extended={"Seaweed-X-Amz-Version-Id": b"6715e94f", "Seaweed-X-Amz-Noncurrent-Since-Ns": b"1"}
    )
    assert from_webhook(change(superseded, old=version, parent="/buckets/inbox/v/a.dcm.versions")) is None


def test_a_multipart_upload_has_the_etag_of_its_parts():
    """The gateway's ETag with the number of parts, where the entry has no MD5."""
    whole = entry("multi", extended={"Seaweed-X-Amz-ETag": f"{MD5}-2".encode()})
    del whole["attributes"]["md5"]
    told = from_webhook(change(whole))
    assert told is not None
    assert told.etag == f"{MD5}-2"


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "text",
        {},
        {"key": "/a"},
        {"key": "/a", "message": {"new_entry": {}}},
        {"key": "/a", "message": {"new_entry": {"name": "a", "extended": [1]}}},
    ],
)
def test_another_shape_is_refused_with_the_reason_alone(document):
    """The body may hold anything: it is never quoted."""
    with pytest.raises(UnknownNotificationError, match="not a notification of SeaweedFS: "):
        from_webhook(document)
