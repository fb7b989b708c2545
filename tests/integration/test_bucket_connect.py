"""`voxelmill bucket connect` on the stores that run here, and on stand-ins for those that do not.

Ceph has its own tests (`tests/ceph`). moto's server stands in for AWS, and a few lines for MinIO and RustFS: they
answer as those do for what is asked of them here, and are no proof of more.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import threading
import uuid
from http.server import ThreadingHTTPServer
from typing import Any

import aio_pika
import boto3
import pytest
from moto.server import ThreadedMotoServer

from e2e.command import VOXELMILL, voxelmill
from integration.bucket_kit import StandIn, run, settings_of, states, trust
from voxelmill_cli.bucket.target import ExchangeType, StoreKind
from voxelmill_cli.errors import EXIT_INPUT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE, CommandError
from voxelmill_ingest.triggers.normaliser import parse

ACCOUNT = "123456789012"  # moto's


class Aws:
    """Clients of the stand-in for AWS."""

    def __init__(self) -> None:
        self.s3, self.sqs = (boto3.client(name, region_name="eu-central-1") for name in ("s3", "sqs"))
        self.bucket = f"test.{uuid.uuid4().hex[:12]}"
        self.s3.create_bucket(
            Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )  # fmt: skip

    def attributes(self, name: str) -> dict[str, Any]:
        url = self.sqs.get_queue_url(QueueName=name)["QueueUrl"]
        found: dict[str, Any] = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        return found

    def notifications(self) -> dict[str, Any]:
        found: dict[str, Any] = self.s3.get_bucket_notification_configuration(Bucket=self.bucket)
        return {name: value for name, value in found.items() if name != "ResponseMetadata"}

    def told(self, url: str) -> list[str]:
        """Give the keys that ingest would read out of a queue."""
        answers = [self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10) for _ in range(2)]
        bodies = [message["Body"] for answer in answers for message in answer.get("Messages", ())]
        return [notification.key for body in bodies for notification in parse(body)]


@pytest.fixture(scope="module")
def moto_endpoint():
    """Give the address of a stand-in for AWS."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(moto_endpoint, monkeypatch):
    """Give a bucket there."""
    trust(moto_endpoint, monkeypatch)
    found = Aws()
    yield found
    found.s3.close()
    found.sqs.close()


def test_aws_gets_a_queue_that_only_this_bucket_may_send_to(aws, monkeypatch):
    """An object put under the prefix is told of in the queue that ingest is given."""
    done = run(f"s3://{aws.bucket}/in box", StoreKind.AWS)
    assert states(done) == ["CREATE", "CREATE", "CREATE"]
    assert done.progress.done == [1, 2, 3]
    settings = settings_of(done, monkeypatch)
    name = f"voxelmill-{aws.bucket.replace('.', '-')}"
    attributes = aws.attributes(name)
    assert settings.sqs_queue_url.endswith(f"/{name}")
    assert attributes["MessageRetentionPeriod"] == "1209600"
    (statement,) = json.loads(attributes["Policy"])["Statement"]
    assert statement["Resource"] == attributes["QueueArn"] == f"arn:aws:sqs:eu-central-1:{ACCOUNT}:{name}"
    assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": ACCOUNT}
    (configuration,) = aws.notifications()["QueueConfigurations"]
    assert configuration["Filter"]["Key"]["FilterRules"] == [{"Name": "prefix", "Value": "in+box/"}]
    assert settings.inbox_url == f"s3://{aws.bucket}/in box"


def test_aws_tells_of_what_is_put(aws):
    """The stand-in delivers: the chain of bucket, configuration and queue holds."""
    done = run(f"s3://{aws.bucket}/inbox", StoreKind.AWS)
    aws.s3.put_object(Bucket=aws.bucket, Key="inbox/a b+é.dcm", Body=b"x")
    aws.s3.put_object(Bucket=aws.bucket, Key="elsewhere/a.dcm", Body=b"x")
    assert aws.told(done.plan.variables()["VOXELMILL_SQS_QUEUE_URL"]) == ["inbox/a b+é.dcm"]


def test_a_second_run_changes_nothing_and_asks_nothing(aws):
    """All steps stand, and the variables are the same."""
    options = {"cors_origins": ("https://a.example",), "dead_letter_queue": "dead"}
    first = run(f"s3://{aws.bucket}", StoreKind.AWS, **options)
    before = (aws.notifications(), aws.attributes(f"voxelmill-{aws.bucket.replace('.', '-')}"))
    second = run(f"s3://{aws.bucket}", StoreKind.AWS, **options)
    assert set(states(second)) == {"STANDS"}
    assert not second.plan.changes
    assert second.progress.done == []
    assert second.plan.variables() == first.plan.variables()
    assert (aws.notifications(), aws.attributes(f"voxelmill-{aws.bucket.replace('.', '-')}")) == before


def test_what_others_set_up_is_kept(aws):
    """A queue with a policy, a notification elsewhere, CORS and lifecycle rules; a change says what it changes."""
    url = aws.sqs.create_queue(QueueName="mine")["QueueUrl"]
    theirs = {"Sid": "Theirs", "Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [theirs]})
    aws.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy, "VisibilityTimeout": "77"})
    arn = aws.attributes("mine")["QueueArn"]
    other = {"Id": "theirs", "QueueArn": arn, "Events": ["s3:ObjectRemoved:*"]}
    aws.s3.put_bucket_notification_configuration(
        Bucket=aws.bucket, NotificationConfiguration={"QueueConfigurations": [other]}
    )
    cors = {"ID": "theirs", "AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}
    aws.s3.put_bucket_cors(Bucket=aws.bucket, CORSConfiguration={"CORSRules": [cors]})
    rule = {"ID": "theirs", "Filter": {"Prefix": "old/"}, "Status": "Enabled", "Expiration": {"Days": 9}}
    aws.s3.put_bucket_lifecycle_configuration(Bucket=aws.bucket, LifecycleConfiguration={"Rules": [rule]})

    options = {"queue": "mine", "dead_letter_queue": "mine-dead", "cors_origins": ("https://a.example",)}
    done = run(f"s3://{aws.bucket}/inbox", StoreKind.AWS, **options)
    assert states(done) == ["CHANGE", "CHANGE", "CREATE", "CHANGE", "CHANGE"]
    details = [step.detail for step in done.plan.steps]
    assert all("kept" in detail for detail in (*details[:2], *details[3:])), details
    attributes = aws.attributes("mine")
    assert theirs in json.loads(attributes["Policy"])["Statement"]
    assert attributes["VisibilityTimeout"] == "77"
    assert json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"].endswith(":mine-dead")
    assert other in aws.notifications()["QueueConfigurations"]
    assert cors in aws.s3.get_bucket_cors(Bucket=aws.bucket)["CORSRules"]
    assert rule in aws.s3.get_bucket_lifecycle_configuration(Bucket=aws.bucket)["Rules"]
    assert set(states(run(f"s3://{aws.bucket}/inbox", StoreKind.AWS, **options))) == {"STANDS"}


def test_a_notification_that_aws_would_not_have_beside_ours_is_named(aws):
    """Nothing is done, and the line says which one stands in the way."""
    other = {"Id": "theirs", "QueueArn": f"arn:aws:sqs:eu-central-1:{ACCOUNT}:x", "Events": ["s3:ObjectCreated:Put"]}
    aws.s3.put_bucket_notification_configuration(
        Bucket=aws.bucket, NotificationConfiguration={"QueueConfigurations": [other]}
    )
    with pytest.raises(
        CommandError, match=r"notification 'theirs' of all objects already goes to arn:aws:sqs"
    ) as caught:
        run(f"s3://{aws.bucket}/inbox", StoreKind.AWS)
    assert caught.value.exit_code == EXIT_INPUT_FAILED
    assert aws.notifications() == {"QueueConfigurations": [other]}


def test_a_dry_run_does_nothing(aws):
    """Nothing stands afterwards; the address of a queue that does not stand is not made up."""
    planned = run(f"s3://{aws.bucket}", StoreKind.AWS, agree=False)
    assert planned.progress is None
    assert states(planned) == ["CREATE", "CREATE", "CREATE"]
    assert aws.notifications() == {}
    assert "VOXELMILL_SQS_QUEUE_URL" not in planned.plan.variables()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"queue": "a.fifo"}, "no FIFO"),
        ({"topic": "t"}, "--topic has no meaning for Amazon S3"),
        ({"push_url": "amqp://h"}, "--push-endpoint has no meaning"),
    ],
)
def test_options_that_do_not_fit_are_refused(aws, options, said):
    """Before anything is done."""
    with pytest.raises(CommandError, match=said) as caught:
        run(f"s3://{aws.bucket}", StoreKind.AWS, **options)
    assert caught.value.exit_code == EXIT_USAGE


def test_a_server_that_does_not_say_what_it_is_must_be_named(aws):
    """The line says what it calls itself, and what to give."""
    with pytest.raises(CommandError, match=r"calls itself 'Werkzeug/.*give --kind aws\|ceph"):
        run(f"s3://{aws.bucket}")


def test_a_bucket_that_is_not_there_and_a_server_that_is_not(aws, monkeypatch):
    """Both are out of reach, exit code 3."""
    with pytest.raises(CommandError, match="no such bucket") as caught:
        run("s3://no-such-bucket-here", StoreKind.AWS)
    assert caught.value.exit_code == EXIT_UNREACHABLE
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(CommandError, match=r"127\.0\.0\.1:1") as caught:
        run(f"s3://{aws.bucket}", StoreKind.AWS)
    assert caught.value.exit_code == EXIT_UNREACHABLE


def test_the_command_asks_and_does_nothing_without_an_answer(aws):
    """Without a terminal it wants --yes (exit code 2, one line); --dry-run and --yes need none."""
    arguments = ("bucket", "connect", f"s3://{aws.bucket}/a b", "--kind", "aws")
    asked = voxelmill(*arguments)
    assert asked.code == EXIT_USAGE
    assert asked.err == f"voxelmill: s3://{aws.bucket}/a b: nothing was done; add --yes to do it, or --dry-run\n"
    assert "1. lifecycle rule" in asked.out
    assert aws.notifications() == {}
    document = voxelmill(*arguments, "--dry-run", "--json").document
    assert not document["carried_out"]
    done = voxelmill(*arguments, "--yes")
    assert done.code == 0
    assert f"VOXELMILL_INBOX_URL='s3://{aws.bucket}/a b'" in done.out
    assert "VOXELMILL_SQS_QUEUE_URL=http" in done.out
    again = voxelmill(*arguments)
    assert again.code == 0
    assert "nothing is to be done here" in again.out


@pytest.mark.parametrize(("answer", "stands"), [(b"n\n", False), (b"y\n", True)])
def test_the_command_does_on_a_terminal_what_it_is_told(aws, answer, stands):
    """No leaves everything as it is, and is no failure."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*VOXELMILL, "bucket", "connect", f"s3://{aws.bucket}", "--kind", "aws"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    os.write(ours, answer)
    said, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, said
    assert (b"nothing was done" in said) is not stands
    assert bool(aws.notifications()) is stands


@pytest.mark.s3
def test_seaweedfs_is_told_by_itself_and_both_ways_are_shown(bucket, s3_environment, monkeypatch):
    """It has CORS and lifecycle rules; it is never asked for notifications, which it would misunderstand."""
    client = s3_environment.client()
    done = run(f"s3://{bucket}/inbox", cors_origins=("https://a.example",), abort_multipart_days=2)
    assert done.plan.kind is StoreKind.SEAWEEDFS
    assert states(done) == ["CREATE", "CREATE", "BY_HAND"]
    notes = "\n".join(done.plan.notes)
    assert "VOXELMILL_SEAWEEDFS_FILER=HOST:PORT" in notes
    assert "[notification.webhook]" in notes
    assert settings_of(done, monkeypatch).inbox_url == f"s3://{bucket}/inbox"
    rules = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert [rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] for rule in rules] == [2]
    assert client.get_bucket_cors(Bucket=bucket)["CORSRules"][0]["AllowedOrigins"] == ["https://a.example"]
    again = run(f"s3://{bucket}/inbox", cors_origins=("https://a.example",), abort_multipart_days=2)
    assert states(again) == ["STANDS", "STANDS", "BY_HAND"]
    client.close()


@pytest.fixture
def minio(monkeypatch):
    """Give a stand-in for MinIO, which learns a target by being given its `known`."""
    handler = type("Handler", (StandIn,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    trust(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def declare(url: str, name: str, kind: str, *, passive: bool = False) -> None:
    async def go() -> None:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.declare_exchange(name, kind, durable=True, passive=passive)

    asyncio.run(go())


@pytest.mark.rabbitmq
def test_minio_without_the_target_is_one_clear_line_and_what_to_set(minio, rabbitmq_vhost_url, monkeypatch):
    """The server's variables are shown; with them it is a second run that finishes. What it has not is said, no more."""
    options = {"broker_url": rabbitmq_vhost_url, "cors_origins": ("https://a.example",)}
    with pytest.raises(CommandError) as caught:
        run("s3://bucket/in box", **options)
    assert caught.value.exit_code == EXIT_INPUT_FAILED
    assert "MinIO has no target arn:minio:sqs::VOXELMILL:amqp" in str(caught.value)
    assert "done before it: 3; not begun: none; run it again" in str(caught.value)
    declare(rabbitmq_vhost_url, "bucket.notifications", "topic", passive=True)

    minio.known = "arn:minio:sqs::VOXELMILL:amqp"
    done = run("s3://bucket/in box", **options)
    assert states(done) == ["CREATE", "LACKING", "STANDS", "BY_HAND", "CREATE"]
    assert done.progress.warnings == [
        "lifecycle rule for multipart uploads that nobody completes: this store has none (it answered NotImplemented)"
    ]
    notes = "\n".join(done.plan.notes)
    assert "MINIO_NOTIFY_AMQP_EXCHANGE_VOXELMILL=bucket.notifications" in notes
    assert "***" in notes
    assert b"<Value>in box/</Value>" in minio.configuration
    assert settings_of(done, monkeypatch).amqp_notifications_exchange == "bucket.notifications"
    assert states(run("s3://bucket/in box", **options))[2:] == ["STANDS", "STANDS"]


@pytest.mark.rabbitmq
def test_a_direct_exchange_tells_ingest_its_routing_key(minio, rabbitmq_vhost_url, monkeypatch):
    """Ingest takes no pattern there."""
    minio.known = "arn:rustfs:sqs:eu-central-1:voxelmill:amqp"
    options = {"broker_url": rabbitmq_vhost_url, "exchange": "direct-one", "exchange_type": ExchangeType.DIRECT}
    done = run("s3://bucket", StoreKind.RUSTFS, **options)
    settings = settings_of(done, monkeypatch)
    assert settings.amqp_notifications_routing_key == "voxelmill"
    assert any("RUSTFS_NOTIFY_AMQP_ROUTING_KEY_VOXELMILL=voxelmill" in note for note in done.plan.notes)


@pytest.mark.rabbitmq
def test_an_exchange_of_another_type_is_not_touched(minio, rabbitmq_vhost_url):
    """Before anything is done; the line says what to give."""
    del minio
    declare(rabbitmq_vhost_url, "bucket.notifications", "fanout")
    with pytest.raises(CommandError, match="no durable topic exchange; give its --exchange-type") as caught:
        run("s3://bucket", broker_url=rabbitmq_vhost_url)
    assert caught.value.exit_code == EXIT_INPUT_FAILED
    done = run("s3://bucket", broker_url=rabbitmq_vhost_url, exchange_type=ExchangeType.FANOUT, agree=False)
    assert "STANDS" in states(done)


def test_a_broker_that_is_away_or_not_given(minio):
    """Exit code 3 for the one, 2 for the other."""
    del minio
    with pytest.raises(CommandError, match="no broker answers") as caught:
        run("s3://bucket", broker_url="amqp://127.0.0.1:1")
    assert caught.value.exit_code == EXIT_UNREACHABLE
    with pytest.raises(CommandError, match="give --broker") as caught:
        run("s3://bucket", broker_url="embedded:x.db")
    assert caught.value.exit_code == EXIT_USAGE


def test_stores_without_notifications_say_so_and_poll(minio, monkeypatch):
    """Spaces is listed; Google's is set up with Google's tool, and not asked anything, not even by its credentials."""
    del minio
    spaces = run("s3://bucket", StoreKind.SPACES)
    assert states(spaces) == ["CREATE", "LACKING"]
    assert settings_of(spaces, monkeypatch).reconcile_seconds == 60
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://storage.googleapis.com")
    google = run("s3://bucket/inbox")
    assert google.plan.kind is StoreKind.GCS
    assert states(google) == ["BY_HAND", "BY_HAND"]
    assert not google.plan.changes
    assert any("--object-prefix=inbox/" in note for note in google.plan.notes)
