"""Notifications from SQS. The server is moto's: a stand-in for AWS, with its S3, SNS and EventBridge in front of SQS."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import boto3
import pytest
from aiohttp import web
from moto.server import ThreadedMotoServer
from structlog.testing import capture_logs

from integration.trigger_kit import Cable, announcer, is_well, listening, running, until, until_answered
from unit.ingest.notification_bodies import aws
from voxelmill_ingest.triggers.reach import SourceUnavailableError
from voxelmill_ingest.triggers.sqs import SqsSource
from voxelmill_shared.transport.connect import open_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

KEY = "p1/a b+é%2B 肺.dcm"


class Amazon:
    """A stand-in's clients, and a queue of the test's own with a dead-letter queue behind it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = boto3.session.Session("test", "test", region_name="eu-central-1")
        self.sqs = self.client("sqs")
        self.dead = self.sqs.create_queue(QueueName="dead")["QueueUrl"]
        redrive = {"deadLetterTargetArn": self.arn(self.dead), "maxReceiveCount": "2"}
        self.queue = self.sqs.create_queue(QueueName="q", Attributes={"RedrivePolicy": json.dumps(redrive)})["QueueUrl"]

    def client(self, service: str) -> Any:
        """Make a client of one service."""
        return self._session.client(service, endpoint_url=self.url)

    def arn(self, queue: str) -> str:
        """Name a queue as other services do."""
        answer = self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
        return str(answer["Attributes"]["QueueArn"])

    def bucket(self, name: str, **notifications: Any) -> Any:
        """Make a bucket that tells of what is put into it; return the client that puts."""
        s3 = self.client("s3")
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration=notifications)
        return s3

    def send(self, *bodies: Any) -> None:
        """Put messages into the queue."""
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.queue, MessageBody=body if isinstance(body, str) else json.dumps(body))

    async def left(self, queue: str | None = None) -> int:
        """How many messages a queue holds, hidden ones included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = await asyncio.to_thread(
            self.sqs.get_queue_attributes, QueueUrl=queue or self.queue, AttributeNames=names
        )
        return sum(int(answer["Attributes"][name]) for name in names)

    async def emptied(self) -> None:
        """Wait until everything was deleted."""

        async def is_empty() -> bool:
            return await self.left() == 0

        await until_answered(is_empty, "messages were left")


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Amazon]:
    """Give a fresh stand-in. The store's own address is another one, as where the store is not Amazon's."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_SQS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    try:
        yield Amazon(url)
    finally:
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
        server.stop()


@asynccontextmanager
async def source(folder: Path, events: str, queue: str, **how: Any) -> AsyncIterator[SqsSource]:
    """Run a source that does not wait as long as it would for AWS."""
    transport = open_transport(events)
    found = SqsSource(announcer(folder, transport), queue, **{"wait_seconds": 1, **how})
    try:
        async with running(found.run):
            yield found
    finally:
        await transport.close()


def broker(tmp_path: Path) -> str:
    return f"embedded:{tmp_path}/broker.db"


class Gate:
    """What stands between a source and SQS: it sees every request, and can keep one kind of them back."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.seen: list[str] = []
        self.held: str = ""
        self.url = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Gate]:
        """Pass requests on for the time of a block."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._pass)
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._session = aiohttp.ClientSession()
        try:
            yield self
        finally:
            await self._session.close()
            await runner.cleanup()

    def queue(self, url: str) -> str:
        """Give a queue's address through the gate."""
        return self.url + urlsplit(url).path

    async def _pass(self, request: web.Request) -> web.Response:
        action = request.headers.get("X-Amz-Target", "").partition(".")[2]
        self.seen.append(action)
        if action == self.held:
            await asyncio.Event().wait()
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name not in {"Host", "Content-Length"}}
        async with self._session.post(self._target + request.path, data=body, headers=headers) as answer:
            kind = answer.headers.get("Content-Type", "")
            return web.Response(status=answer.status, body=await answer.read(), headers={"Content-Type": kind})


async def test_what_a_bucket_tells_directly_is_announced_and_deleted(amazon: Amazon, tmp_path: Path) -> None:
    """Single and multipart uploads; the test event and deletions are deleted without more."""
    events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
    s3 = amazon.bucket("inbox", QueueConfigurations=[{"QueueArn": amazon.arn(amazon.queue), "Events": events}])
    s3.put_object(Bucket="inbox", Key=KEY, Body=b"a")
    upload = s3.create_multipart_upload(Bucket="inbox", Key="large")["UploadId"]
    part = s3.upload_part(Bucket="inbox", Key="large", UploadId=upload, PartNumber=1, Body=b"a")
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    s3.complete_multipart_upload(Bucket="inbox", Key="large", UploadId=upload, MultipartUpload=parts)
    s3.delete_object(Bucket="inbox", Key="large")
    async with listening(broker(tmp_path)) as heard, source(tmp_path, broker(tmp_path), amazon.queue) as found:
        await until(lambda: {*heard.keys} == {KEY, "large"}, "not all was announced")
        await amazon.emptied()
        assert await is_well(found.check)
    assert len(set(heard.ids)) == 2  # the stand-in tells twice of a multipart upload: one fact all the same
    assert {event.object.size for event in heard.events} == {1}


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "wrapped"])
async def test_what_came_through_sns_is_announced(amazon: Amazon, tmp_path: Path, *, raw: bool) -> None:
    """In SNS's envelope or, with raw delivery, without it."""
    sns = amazon.client("sns")
    topic = sns.create_topic(Name="uploads")["TopicArn"]
    attributes = {"RawMessageDelivery": "true"} if raw else {}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=amazon.arn(amazon.queue), Attributes=attributes)
    s3 = amazon.bucket("inbox", TopicConfigurations=[{"TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}])
    s3.put_object(Bucket="inbox", Key=KEY, Body=b"a")
    async with listening(broker(tmp_path)) as heard, source(tmp_path, broker(tmp_path), amazon.queue):
        await until(lambda: heard.keys == [KEY], "it was not announced")
        await amazon.emptied()


async def test_what_came_through_eventbridge_is_announced(amazon: Amazon, tmp_path: Path) -> None:
    """A rule that sends all of S3's events to the queue."""
    events = amazon.client("events")
    events.put_rule(Name="uploads", EventPattern=json.dumps({"source": ["aws.s3"]}))
    events.put_targets(Rule="uploads", Targets=[{"Id": "1", "Arn": amazon.arn(amazon.queue)}])
    s3 = amazon.bucket("inbox", EventBridgeConfiguration={})
    s3.put_object(Bucket="inbox", Key=KEY, Body=b"a")
    async with listening(broker(tmp_path)) as heard, source(tmp_path, broker(tmp_path), amazon.queue):
        await until(lambda: heard.keys == [KEY], "it was not announced")
        await amazon.emptied()


async def test_many_messages_are_taken_by_all_receivers(amazon: Amazon, tmp_path: Path) -> None:
    """More than one batch: each message is announced and deleted; one that a slow machine keeps for long comes again."""
    keys = [f"p/{number}" for number in range(45)]
    amazon.send(*(aws(key) for key in keys))
    async with listening(broker(tmp_path)) as heard, source(tmp_path, broker(tmp_path), amazon.queue):
        await until(lambda: set(heard.keys) >= set(keys), "not all was announced")
        await amazon.emptied()
    assert set(heard.keys) == set(keys)
    assert len(set(heard.ids)) == len(keys)


async def test_an_end_between_announcing_and_deleting_repeats_and_loses_nothing(
    amazon: Amazon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was announced and not deleted comes again after its time, as the same event."""
    monkeypatch.setattr("voxelmill_ingest.triggers.sqs.LAST_SECONDS", 0.0)
    gate = Gate(amazon.url)
    async with listening(broker(tmp_path)) as heard, gate.open():
        gate.held = "DeleteMessageBatch"
        amazon.send(aws("k"))
        async with source(tmp_path, broker(tmp_path), gate.queue(amazon.queue), visibility_seconds=1):
            await until(lambda: "DeleteMessageBatch" in gate.seen, "it did not try to delete")
        assert heard.keys[:1] == ["k"]
        assert await amazon.left() == 1
        gate.held = ""
        before = len(heard.keys)
        async with source(tmp_path, broker(tmp_path), gate.queue(amazon.queue), visibility_seconds=1):
            await until(lambda: len(heard.keys) > before, "it was lost")
            await amazon.emptied()
    assert set(heard.keys) == {"k"}
    assert len(set(heard.ids)) == 1


@pytest.mark.rabbitmq
async def test_while_our_broker_is_away_messages_are_hidden_and_not_counted(
    amazon: Amazon, tmp_path: Path, rabbitmq_vhost_url: str
) -> None:
    """A redrive policy must not bury what is sound: it is received once, however long the outage."""
    gate, cable = Gate(amazon.url), Cable(rabbitmq_vhost_url)
    amazon.send(aws("k"))
    async with listening(rabbitmq_vhost_url) as heard, gate.open(), cable.laid():
        await cable.cut()
        queue = gate.queue(amazon.queue)
        async with source(tmp_path, cable.url, queue, visibility_seconds=5, receivers=1):
            hidden = "ChangeMessageVisibilityBatch"
            await until(lambda: gate.seen.count(hidden) >= 2, "it did not keep the message")
            assert gate.seen.count("ReceiveMessage") == 1
            await cable.mend()
            await until(lambda: heard.keys == ["k"], "it was not announced")
            await amazon.emptied()
    assert await amazon.left(amazon.dead) == 0


async def test_what_is_not_understood_is_left_to_the_redrive_policy(amazon: Amazon, tmp_path: Path) -> None:
    """It is logged once, goes where the queue's owner wants it, as it came, and holds nothing up."""
    amazon.send("not JSON", aws("k"))
    with capture_logs() as logs:
        async with (
            listening(broker(tmp_path)) as heard,
            source(tmp_path, broker(tmp_path), amazon.queue, visibility_seconds=1),
        ):
            await until(lambda: heard.keys == ["k"], "the good one was not announced")

            async def is_dead() -> bool:
                return await amazon.left(amazon.dead) == 1

            await until_answered(is_dead, "it was not dead-lettered")
    (told,) = [line for line in logs if "not understood" in line["event"]]
    assert told["reason"] == "the body is no JSON: Expecting value (character 0)"
    assert told["message_id"]
    (dead,) = amazon.sqs.receive_message(QueueUrl=amazon.dead)["Messages"]
    assert dead["Body"] == "not JSON"


async def test_a_queue_that_is_not_there_is_said_once_and_waited_for(amazon: Amazon, tmp_path: Path) -> None:
    """Readiness says what AWS says; when the queue is made, it goes on."""
    missing = amazon.queue.replace("/q", "/later")
    with capture_logs() as logs:
        async with listening(broker(tmp_path)) as heard, source(tmp_path, broker(tmp_path), missing) as found:
            with pytest.raises(SourceUnavailableError, match="later: has not answered yet"):
                await found.check()
            await until(lambda: found._reach.away, "it did not notice")
            with pytest.raises(SourceUnavailableError, match=r"SQS queue later: .*NonExistentQueue: "):
                await found.check()
            amazon.sqs.create_queue(QueueName="later")
            await until_answered(lambda: is_well(found.check), "it did not come back")
            amazon.sqs.send_message(QueueUrl=missing, MessageBody=json.dumps(aws("k")))
            await until(lambda: heard.keys == ["k"], "it was not announced")
    assert [line["event"] for line in logs] == ["notifications wait", "notifications go on"]


async def test_a_server_that_is_away_is_one_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens there: no traceback, and the source goes on trying."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    async with source(tmp_path, broker(tmp_path), "http://127.0.0.1:1/123456789012/q") as found:
        await until(lambda: found._reach.away, "it did not notice")
        with pytest.raises(SourceUnavailableError, match="SQS queue q: Could not connect"):
            await found.check()
