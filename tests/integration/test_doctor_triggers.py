"""`voxelmill doctor` on the sources of notifications: one line each, and the step that mends what is wrong."""

from __future__ import annotations

import socket
import urllib.request

import boto3
import pytest
from moto.server import ThreadedMotoServer

from e2e.command import voxelmill

ACCOUNT = "123456789012"  # moto's


@pytest.fixture
def closed():
    """Give an address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def amazon():
    """Give the address of a stand-in for AWS."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    try:
        yield url
    finally:
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
        server.stop()


def told(folder, **settings):
    """Run doctor in an empty folder; return its exit code and what it found of notifications, by name."""
    ended = voxelmill(
        "doctor", "--json", cwd=folder, **{f"VOXELMILL_{name}": value for name, value in settings.items()}
    )
    found = {one["name"]: one for one in ended.document if one["name"].startswith(("notifications", "settings"))}
    assert all("\n" not in one["detail"] + one["mend"] for one in found.values())
    return ended.code, found


def test_what_does_not_answer(tmp_path, closed, monkeypatch):
    """Each source by itself, with its reason and the variable that names it."""
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{closed}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }.items():
        monkeypatch.setenv(name, value)
    code, found = told(
        tmp_path,
        INBOX_URL="s3://inbox",
        SEAWEEDFS_FILER=closed,
        SQS_QUEUE_URL=f"http://{closed}/{ACCOUNT}/events",
        AMQP_NOTIFICATIONS_EXCHANGE="store",
        AMQP_NOTIFICATIONS_URL=f"amqp://guest:secret-word@{closed}/",
        NOTIFICATION_SNS_TOPIC=f"arn:aws:sns:eu-central-1:{ACCOUNT}:events",
    )
    assert code == 3
    assert not any(found[f"notifications-{name}"]["good"] for name in ("amqp", "sqs", "seaweedfs", "http"))
    assert found["notifications-seaweedfs"]["detail"].startswith(f"{closed}: UNAVAILABLE")
    assert found["notifications-seaweedfs"]["mend"] == "start it, or set VOXELMILL_SEAWEEDFS_FILER to where it is"
    assert closed in found["notifications-sqs"]["detail"]
    assert found["notifications-sqs"]["mend"] == "make the queue, or set VOXELMILL_SQS_QUEUE_URL to where it is"
    assert found["notifications-amqp"]["detail"].startswith(f"RabbitMQ at {closed}: ")
    assert "VOXELMILL_AMQP_NOTIFICATIONS_URL" in found["notifications-amqp"]["mend"]
    assert "VOXELMILL_NOTIFICATION_TOKEN" in found["notifications-http"]["mend"]
    assert "secret-word" not in str(found)


def test_a_queue_that_is_not_there(tmp_path, amazon, monkeypatch):
    """SQS answers, but has no such queue; one that it has is good, and nothing is taken from it."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_SQS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    sqs = boto3.client("sqs", endpoint_url=amazon)
    queue = sqs.create_queue(QueueName="events")["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody="kept")
    code, found = told(tmp_path, SQS_QUEUE_URL=f"{amazon}/{ACCOUNT}/missing")
    assert not found["notifications-sqs"]["good"]
    assert "NonExistentQueue" in found["notifications-sqs"]["detail"]
    assert code == 3
    code, found = told(tmp_path, SQS_QUEUE_URL=f"{amazon}/{ACCOUNT}/events")
    assert (code, found["notifications-sqs"]["detail"]) == (0, "answers")
    (message,) = sqs.receive_message(QueueUrl=queue, AttributeNames=["ApproximateReceiveCount"])["Messages"]
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    sqs.close()


@pytest.mark.rabbitmq
@pytest.mark.s3
def test_what_answers(tmp_path, bucket, seaweedfs, rabbitmq_url):
    """The filer, the broker and the token are good. What was only looked at still stands as it was."""
    code, found = told(
        tmp_path,
        INBOX_URL=f"s3://{bucket}",
        SEAWEEDFS_FILER=seaweedfs.filer,
        AMQP_NOTIFICATIONS_EXCHANGE="store",
        AMQP_NOTIFICATIONS_URL=rabbitmq_url,
        NOTIFICATION_TOKEN=16 * "x",
    )
    assert {name: one["good"] for name, one in found.items()} == {
        "settings": True,
        "notifications-http": True,
        "notifications-amqp": True,
        "notifications-seaweedfs": True,
    }, found
    assert code == 0


def test_settings_that_are_written_wrong(tmp_path):
    """Those of the triggers are read as ingest reads them, and nothing is asked."""
    code, found = told(tmp_path, SQS_QUEUE_URL="arn:aws:sqs:eu-central-1:1:q", NOTIFICATION_TOKEN=2 * "x")
    assert code == 3
    assert "VOXELMILL_" in found["settings"]["detail"]
    assert set(found) == {"settings"}


def test_an_ingest_that_is_told_of_nothing(tmp_path):
    """No source and no reconciler: a warning, for objects can still be announced by hand."""
    code, found = told(tmp_path, RECONCILE_SECONDS="0")
    assert code == 0
    assert (found["notifications"]["good"], found["notifications"]["needed"]) == (False, False)
