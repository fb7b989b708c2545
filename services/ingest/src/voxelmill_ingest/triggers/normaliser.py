"""From what a bucket's server says to `Notification`: one place that knows every shape, whichever way it came.

| shape | told by | key |
|---|---|---|
| S3 event records of AWS, MinIO, RustFS, Ceph | `Records` | see `records` |
| MinIO's summary, where its records are missing | `EventName`, `Key` | as it is, behind the bucket |
| Amazon EventBridge | `detail-type` | as it is |
| Google Cloud Pub/Sub | `attributes` | as it is |
| SeaweedFS's webhook | `event_type`, `message` | see `filer_entries` |

They may stand in an envelope: SNS (`Type: Notification`), a Lambda event of SQS or SNS, CloudEvents, a push of Pub/Sub.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NoReturn

from voxelmill_ingest.triggers import fields, filer_entries, records
from voxelmill_ingest.triggers.notification import Notification, UnknownNotificationError

MOST_ENVELOPES = 4
"""A Lambda event of SQS, in it SNS, in it EventBridge, is the deepest that anybody sends."""


def parse(body: bytes | str) -> list[Notification]:
    """Return the uploads that a body tells of; none if it is sound and tells of something else.

    Raises
    ------
    UnknownNotificationError
        If the body, or a part of it, is of no shape that is known here.
    """
    return normalise(load(body))


def load(body: bytes | str) -> object:
    """Read JSON that a stranger wrote.

    Raises
    ------
    UnknownNotificationError
        If it is none.
    """
    try:
        return json.loads(body, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise UnknownNotificationError("the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise UnknownNotificationError(f"the body is no JSON: {error.msg} (character {error.pos})") from None
    except RecursionError:
        raise UnknownNotificationError("the body is nested too deeply") from None
    except ValueError:  # Python bounds the digits of a whole number
        raise UnknownNotificationError("the body has a number of too many digits") from None


def _no_number(_: str) -> NoReturn:
    raise UnknownNotificationError("the body has NaN or Infinity, which is no JSON")


def normalise(document: object) -> list[Notification]:
    """Return the uploads that a document tells of.

    Parameters
    ----------
    document
        What the body is as JSON.

    Raises
    ------
    UnknownNotificationError
        As `parse`.
    """
    return _normalise(document, MOST_ENVELOPES)


def _normalise(document: object, envelopes: int) -> list[Notification]:
    found = fields.mapping(document, "the body")
    inner = _unwrapped(found)
    if inner is not None:
        if not envelopes:
            raise UnknownNotificationError(f"more than {MOST_ENVELOPES} envelopes around one another")
        return [told for one in inner for told in _normalise(one, envelopes - 1)]
    if "Records" in found:
        told = [records.read(record, f"Records[{number}]") for number, record in enumerate(_records(found))]
        return [notification for notification in told if notification is not None]
    one = _single(found)
    return [] if one is None else [fields.checked(one)]


def _single(found: dict[str, Any]) -> Notification | None:
    """Read a document that tells of one object."""
    if found.get("Event") == "s3:TestEvent":  # what AWS says first of all
        return None
    if "detail-type" in found:
        return _eventbridge(found)
    if "attributes" in found:
        return _pubsub(found)
    if "event_type" in found:
        return filer_entries.from_webhook(found)
    if "eventSource" in found:
        return records.read(found, "the record")
    if "EventName" in found:
        return _minio_summary(found)
    raise UnknownNotificationError("the body is no notification of a shape that is known here")


def _unwrapped(found: dict[str, Any]) -> list[object] | None:
    """Return what an envelope holds; None if this is none."""
    if "TopicArn" in found:
        if found.get("Type") != "Notification":
            raise UnknownNotificationError(f"SNS message of the type {records.quoted(found.get('Type'))}")
        return [_text_as_json(found.get("Message"), "Message")]
    if "specversion" in found:
        return [found.get("data")]
    if "subscription" in found:
        return [found.get("message")]
    if "Records" in found:
        inner = [_lambda_body(record) for record in _records(found)]
        if any(one is not None for one in inner):
            return inner
    return None


def _lambda_body(record: object) -> object:
    """Return what a record of a Lambda event of SQS or SNS holds; None if this is none."""
    if isinstance(record, dict):
        if record.get("eventSource") == "aws:sqs":
            return _text_as_json(record.get("body"), "Records[].body")
        if record.get("EventSource") == "aws:sns":
            return fields.mapping(record.get("Sns"), "Records[].Sns")
    return None


def _records(found: dict[str, Any]) -> list[object]:
    listed = found["Records"]
    if not isinstance(listed, list):
        raise UnknownNotificationError(f"Records is {fields.json_type(listed)}, not a list")
    return listed


def _text_as_json(text: object, where: str) -> object:
    if not isinstance(text, str):
        raise UnknownNotificationError(f"{where} is {fields.json_type(text)}, not text")
    try:
        return load(text)
    except UnknownNotificationError as error:
        raise UnknownNotificationError(f"{where}: {error}") from None


def _eventbridge(found: dict[str, Any]) -> Notification | None:
    """Read an event of EventBridge (Amazon S3 User Guide, "EventBridge event message structure")."""
    source, kind = found.get("source"), found["detail-type"]
    if source != "aws.s3":
        raise UnknownNotificationError(f"EventBridge's source {records.quoted(source)} is not 'aws.s3'")
    if kind == "AWS API Call via CloudTrail":
        raise UnknownNotificationError("an event of CloudTrail: switch the bucket's own EventBridge events on instead")
    if fields.name(kind, "detail-type") != "Object Created":
        return None
    detail = fields.mapping(found.get("detail"), "detail")
    bucket = fields.mapping(detail.get("bucket"), "detail.bucket")
    stored = fields.mapping(detail.get("object"), "detail.object")
    return Notification(
        fields.name(bucket.get("name"), "detail.bucket.name"),
        fields.name(stored.get("key"), "detail.object.key"),
        fields.etag(stored.get("etag")),
        fields.size(stored.get("size")),
        fields.version_id(stored.get("version-id")),
    )


def _pubsub(found: dict[str, Any]) -> Notification | None:
    """Read a message of Google Cloud Pub/Sub (Cloud Storage documentation, "Pub/Sub notifications for Cloud Storage").

    All that matters stands in the attributes. `data` describes the object, if the notification is configured so.
    """
    attributes = fields.mapping(found["attributes"], "attributes")
    if fields.name(attributes.get("eventType"), "attributes.eventType") != "OBJECT_FINALIZE":
        return None
    described = _described(found.get("data"))
    return Notification(
        fields.name(attributes.get("bucketId"), "attributes.bucketId"),
        fields.name(attributes.get("objectId"), "attributes.objectId"),
        _hex(described.get("md5Hash")),
        fields.size(described.get("size")),
        fields.version_id(attributes.get("objectGeneration")),
    )


def _described(data: object) -> dict[str, Any]:
    """Return the description of an object; nothing if there is none, for it only gives hints."""
    try:
        described = load(_decoded(data))
    except UnknownNotificationError:
        return {}
    return described if isinstance(described, dict) else {}


def _hex(value: object) -> str:
    """Write a digest as S3 writes it."""
    return _decoded(value).hex()


def _decoded(value: object) -> bytes:
    if not isinstance(value, str):
        return b""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):  # no Base64, or not even ASCII
        return b""


def _minio_summary(found: dict[str, Any]) -> Notification | None:
    if not records.is_upload(found["EventName"], "EventName"):
        return None
    bucket, _, key = fields.name(found.get("Key"), "Key").partition("/")
    return Notification(bucket, key)
