"""What servers of buckets say, written after their documentation and after what was seen of them; keys as they spell them."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

ETAG = "0cc175b9c0f1b6a831c399e269772661"
"""The MD5 of `a`."""
ETAG_BASE64 = base64.b64encode(bytes.fromhex(ETAG)).decode()


def s3_record(source, key, *, event="ObjectCreated:Put", bucket="inbox", version="2.1", **stored):
    """One S3 event record; `key` as the source spells it."""
    return {
        "eventVersion": version,
        "eventSource": source,
        "eventTime": "2030-01-01T00:00:00.000Z",
        "eventName": event,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": key, "size": 7, "eTag": ETAG, "sequencer": "0A1B2C", **stored},
        },
    }


def aws(key, **how):
    """As AWS says it: `+` for a space, `/` left alone, everything else in bytes of `%`."""
    return {"Records": [s3_record("aws:s3", quote_plus(key, safe="/"), **how)]}


def minio(key, *, event="s3:ObjectCreated:Put", bucket="inbox"):
    """As MinIO says it: the slash is encoded too, and the event has a prefix."""
    record = s3_record("minio:s3", quote_plus(key), event=event, bucket=bucket, version="2.0")
    return {"EventName": event, "Key": f"{bucket}/{key}", "Records": [record]}


def rustfs(key):
    """As RustFS says it: each record in a wrapper."""
    record = s3_record("rustfs:s3", quote_plus(key), event="s3:ObjectCreated:Put")
    wrapper = {"object_name": quote_plus(key), "bucket_name": "inbox", "event_name": "s3:ObjectCreated:Put"}
    return {"EventName": "s3:ObjectCreated:Put", "Key": f"inbox/{key}", "Records": [{**wrapper, "data": record}]}


def ceph(key, **how):
    """As Ceph says it: the key as it is, an empty version for none."""
    record = s3_record("ceph:s3", key, version="2.2", **{"versionId": "", **how})
    return {"Records": [{**record, "eventId": "1.2.3", "opaqueData": "of the topic"}]}


def eventbridge(key, *, kind="Object Created", source="aws.s3"):
    """As EventBridge says it: the key as it is, two fields spelt otherwise."""
    stored = {"key": key, "size": 7, "etag": ETAG, "version-id": "v1", "sequencer": "0A1B2C"}
    detail = {"version": "0", "bucket": {"name": "inbox"}, "object": stored, "reason": "PutObject"}
    return {"version": "0", "id": "1", "detail-type": kind, "source": source, "region": "eu-west-1", "detail": detail}


def gcs(key, *, event="OBJECT_FINALIZE"):
    """As Pub/Sub is given it, when it is pulled: attributes, and the object's description in Base64."""
    described = {"kind": "storage#object", "name": key, "bucket": "inbox", "size": "7", "md5Hash": ETAG_BASE64}
    attributes = {"eventType": event, "bucketId": "inbox", "objectId": key, "objectGeneration": "1700"}
    return {
        "attributes": attributes,
        "data": base64.b64encode(json.dumps(described).encode()).decode(),
        "messageId": "1",
    }


def gcs_push(key, **how):
    """As Pub/Sub pushes it."""
    return {"message": gcs(key, **how), "subscription": "projects/p/subscriptions/s"}


def seaweedfs(key):
    """As SeaweedFS's webhook says it: a new entry in a folder under `/buckets`."""
    folder, _, name = f"/buckets/inbox/{key}".rpartition("/")
    extended = {"Seaweed-X-Amz-ETag": base64.b64encode(ETAG.encode()).decode()}
    chunk = {"size": 7, "e_tag": ETAG_BASE64, "fid": {"volume_id": 2, "file_key": 1, "cookie": 3}}
    attributes = {"file_size": 7, "mtime": 1, "file_mode": 0o660, "md5": ETAG_BASE64}
    entry = {"name": name, "chunks": [chunk], "attributes": attributes, "extended": extended}
    return {
        "event_type": "create",
        "key": f"{folder}/{name}",
        "message": {"new_entry": entry, "new_parent_path": folder},
    }


def sns(inner):
    """Put something into SNS's envelope."""
    return {
        "Type": "Notification",
        "MessageId": "1",
        "TopicArn": "arn:aws:sns:eu-west-1:123456789012:uploads",
        "Subject": "Amazon S3 Notification",
        "Message": json.dumps(inner),
        "Timestamp": "2030-01-01T00:00:00.000Z",
    }


def lambda_sqs(inner):
    """Put something into the event that Lambda makes of a message of SQS."""
    return {"Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": json.dumps(inner)}]}


def lambda_sns(inner):
    """Put something into the event that Lambda makes of a message of SNS."""
    return {"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": sns(inner)}]}


def cloudevents(inner):
    """Put a record into CloudEvents' structured mode."""
    return {"specversion": "1.0", "id": "1", "type": "com.amazonaws.s3.ObjectCreated:Put", "source": "s", "data": inner}


TEST_EVENT = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "inbox", "RequestId": "R", "HostId": "H"}

SPELLED = {
    "aws": aws,
    "minio": minio,
    "rustfs": rustfs,
    "ceph": ceph,
    "eventbridge": eventbridge,
    "gcs": gcs,
    "gcs-push": gcs_push,
    "seaweedfs": seaweedfs,
    "aws-percent": lambda key: {"Records": [s3_record("aws:s3", quote(key))]},
    "sns": lambda key: sns(aws(key)),
    "sns-eventbridge": lambda key: sns(eventbridge(key)),
    "lambda-sqs-sns": lambda key: lambda_sqs(sns(aws(key))),
    "lambda-sns": lambda key: lambda_sns(aws(key)),
    "cloudevents": lambda key: cloudevents(aws(key)["Records"][0]),
    "cloudevents-records": lambda key: cloudevents(ceph(key)),
    "minio-summary": lambda key: {"EventName": "s3:ObjectCreated:Put", "Key": f"inbox/{key}"},
}
"""Every way in which a key can come."""
