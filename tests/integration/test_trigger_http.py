"""Notifications that are pushed by HTTP, to the address of a running ingest."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from integration.trigger_kit import Cable, announcer, listening, until
from unit.ingest.notification_bodies import (
    TEST_EVENT,
    aws,
    ceph,
    cloudevents,
    eventbridge,
    gcs_push,
    minio,
    seaweedfs,
    sns,
)
from voxelmill_ingest.triggers import http
from voxelmill_ingest.triggers.http import MOST_BYTES, PATH, HttpSource
from voxelmill_ingest.triggers.sns import SnsConfirmer
from voxelmill_shared.health import serve
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.uploads import upload_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

TOKEN = "a-token-of-some-length"  # noqa: S105 - of this test alone
TOPIC = "arn:aws:sns:eu-west-1:123456789012:uploads"


class Sender:
    """Whoever pushes."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def push(self, body: Any, *, query: str = "", **headers: str) -> tuple[int, str]:
        """Push, by default with the token as bearer; return status and text."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        if not headers and not query:
            headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self._session.post(self.url + query, data=io.BytesIO(raw), headers=headers) as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def address(folder: Path, broker: str, sns_server: str = "") -> AsyncIterator[Sender]:
    """Serve the address as ingest does."""
    transport = open_transport(broker)
    source = HttpSource(announcer(folder, transport), TOKEN, SnsConfirmer(TOPIC if sns_server else "", sns_server))
    try:
        async with (
            serve("ingest", {}, "127.0.0.1", 0, source.routes()) as port,
            aiohttp.ClientSession() as session,
        ):
            yield Sender(f"http://127.0.0.1:{port}{PATH}", session)
    finally:
        await transport.close()


async def raw(sender: Sender, request: bytes) -> bytes:
    """Send what no HTTP client would; return the beginning of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(sender.url).port)
    try:
        writer.write(request)
        return await reader.readline()
    finally:
        writer.close()


def broker(tmp_path: Path) -> str:
    return f"embedded:{tmp_path}/broker.db"


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"voxelmill:{password}".encode()).decode()


async def test_every_pushing_source_is_announced_before_it_is_answered(tmp_path: Path) -> None:
    """SeaweedFS, Ceph (plain and CloudEvents), MinIO, Pub/Sub, SNS and EventBridge."""
    bodies = {
        "seaweedfs": seaweedfs("a b+é.dcm"),
        "ceph": ceph("%2B"),
        "cloudevents": cloudevents(ceph("ce")),
        "minio": minio("m/é"),
        "gcs": gcs_push("g/+"),
        "sns": sns(aws("s/ +")),
        "eventbridge": eventbridge("e/%"),
    }
    async with listening(broker(tmp_path)) as heard, address(tmp_path, broker(tmp_path)) as sender:
        for body in bodies.values():
            assert await sender.push(body) == (204, "")
        await until(lambda: len(heard.keys) == len(bodies), "not all was announced")
    assert heard.keys == ["a b+é.dcm", "%2B", "ce", "m/é", "g/+", "s/ +", "e/%"]


async def test_ceph_may_say_in_headers_that_it_is_a_cloudevent(tmp_path: Path) -> None:
    """In the binary mode the body is as ever."""
    headers = {"ce-specversion": "1.0", "ce-type": "com.amazonaws.ObjectCreated:Put", "ce-id": "1"}
    async with listening(broker(tmp_path)) as heard, address(tmp_path, broker(tmp_path)) as sender:
        assert (await sender.push(ceph("k"), **headers, Authorization=basic(TOKEN)))[0] == 204
        await until(lambda: heard.keys == ["k"], "it was not announced")


async def test_what_is_no_upload_is_taken_and_not_announced(tmp_path: Path) -> None:
    """Tests, deletions, other buckets, and what the gateway tells of itself: the sender need not come again."""
    async with listening(broker(tmp_path)) as heard, address(tmp_path, broker(tmp_path)) as sender:
        for body in (
            TEST_EVENT,
            aws("k", event="ObjectRemoved:Delete"),
            aws("k", bucket="other"),
            seaweedfs(".uploads/1/2"),
            aws(upload_key("default", "0" * 32, 0, ".dcm")),
        ):
            assert await sender.push(body) == (204, "")
        assert await sender.push(aws("last")) == (204, "")
        await until(lambda: heard.keys, "the last one was not announced")
    assert heard.keys == ["last"]


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {"Authorization": f"Bearer {TOKEN}"}),
        ("", {"Authorization": f"bearer  {TOKEN}"}),
        ("", {"Authorization": basic(TOKEN)}),
        (f"?token={TOKEN}", {}),
        (f"?token={TOKEN}", {"Authorization": "Bearer of-the-load-balancer"}),
    ],
)
async def test_the_token_may_come_in_three_ways(tmp_path: Path, query: str, headers: dict[str, str]) -> None:
    """As bearer, as password, in the address."""
    async with listening(broker(tmp_path)), address(tmp_path, broker(tmp_path)) as sender:
        assert (await sender.push(aws("k"), query=query, **headers))[0] == 204


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?", {"X-Nothing": "x"}),
        ("?token=", {}),
        ("?token=wrong", {}),
        (f"?token={TOKEN}x", {}),
        ("?", {"Authorization": ""}),
        ("?", {"Authorization": "Bearer"}),
        ("?", {"Authorization": "Bearer wrong"}),
        ("?", {"Authorization": f"Digest {TOKEN}"}),
        ("?", {"Authorization": TOKEN}),
        ("?", {"Authorization": basic("wrong")}),
        ("?", {"Authorization": f"Basic {TOKEN}"}),
        ("?", {"Authorization": "Basic /w=="}),
        ("?", {"Authorization": "Basic é"}),
    ],
)
async def test_without_the_token_nothing_is_read(tmp_path: Path, query: str, headers: dict[str, str]) -> None:
    """401, and neither the body nor the reason tells anything."""
    async with address(tmp_path, broker(tmp_path)) as sender:
        assert await sender.push(b"not even JSON", query=query, **headers) == (401, "the token is missing or wrong\n")


async def test_what_is_not_understood_is_refused_with_the_reason(tmp_path: Path) -> None:
    """The sender and the log are told why, never what."""
    with capture_logs() as logs:
        async with address(tmp_path, broker(tmp_path)) as sender:
            status, reason = await sender.push(b'{"PatientName": "Doe^Jane"}', query=f"?token={TOKEN}")
    assert (status, reason) == (400, "the body is no notification of a shape that is known here\n")
    assert [line["reason"] for line in logs] == [reason.strip()]
    assert TOKEN not in str(logs)
    assert "Doe" not in str(logs)


async def test_a_body_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """At once, if it says how long it is."""
    async with address(tmp_path, broker(tmp_path)) as sender:
        assert await sender.push(b" " * (MOST_BYTES + 1)) == (413, f"the body is longer than {MOST_BYTES} bytes\n")


async def test_a_body_that_does_not_say_how_long_it_is_is_refused_at_the_bound(tmp_path: Path) -> None:
    """No more of it is kept than the bound."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(MOST_BYTES // 1024 + 1):
            yield b" " * 1024

    async with address(tmp_path, broker(tmp_path)) as sender:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with sender._session.post(sender.url, data=pieces(), headers=headers) as answer:
            assert answer.status == 413


async def test_the_longest_body_is_read(tmp_path: Path) -> None:
    """The bound is meant as it is said."""
    body = json.dumps(aws("k")).encode()
    async with listening(broker(tmp_path)), address(tmp_path, broker(tmp_path)) as sender:
        assert (await sender.push(body + b" " * (MOST_BYTES - len(body))))[0] == 204


@pytest.mark.parametrize(
    "request_of",
    [
        lambda token: f"POST {PATH}?token={token}&x={'y' * 9000} HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda token: f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\x00\r\n\r\n",
        lambda token: f"POST {PATH}?token={token} HTTP/9.9\r\nHost: x\r\n\r\n",
    ],
    ids=["a line that is too long", "a header with a control character", "an unknown version"],
)
async def test_no_broken_request_brings_the_token_into_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, request_of: Callable[[str], str]
) -> None:
    """Whoever sent it is told 400. The HTTP library would quote what it could not read."""
    async with address(tmp_path, broker(tmp_path)) as sender:
        assert b" 400 " in await raw(sender, request_of(TOKEN).encode())
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("Content-Encoding: gzip\r\nContent-Length: 7", b"no gzip"),
        ("Transfer-Encoding: chunked", b"zz\r\nab\r\n"),
        ("Content-Encoding: gzip\r\nContent-Length: 5", gzip.compress(b"{}")[:5]),
    ],
    ids=["no gzip", "no chunks", "half a gzip"],
)
async def test_a_body_that_cannot_be_read_is_the_senders_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, header: str, body: bytes
) -> None:
    """400, and no traceback in the log."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{header}\r\n\r\n"
    async with address(tmp_path, broker(tmp_path)) as sender:
        assert b" 400 " in await raw(sender, head.encode() + body)
    assert caplog.records == []


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """408, or senders that fall silent would take every connection."""
    monkeypatch.setattr(http, "BODY_SECONDS", 0.1)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 50\r\n\r\n"
    async with address(tmp_path, broker(tmp_path)) as sender:
        assert b" 408 " in await raw(sender, head.encode() + b"{")


async def test_a_sender_that_hangs_up_leaves_no_trace(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the middle of its body, that is: it comes again, or the reconciler finds the object."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 50\r\n\r\n"
    async with listening(broker(tmp_path)) as heard, address(tmp_path, broker(tmp_path)) as sender:
        _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(sender.url).port)
        writer.write(head.encode() + b"{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await sender.push(aws("next")))[0] == 204
        await until(lambda: heard.keys == ["next"], "the next one was not announced")
    assert caplog.records == []


@pytest.mark.rabbitmq
async def test_what_could_not_be_announced_is_not_taken(tmp_path: Path, rabbitmq_vhost_url: str) -> None:
    """503 while the broker is away, so that a sender that repeats loses nothing; then 204."""
    cable = Cable(rabbitmq_vhost_url)
    async with listening(rabbitmq_vhost_url) as heard, cable.laid(), address(tmp_path, cable.url) as sender:
        await cable.cut()
        async with sender._session.post(
            sender.url, json=aws("k"), headers={"Authorization": f"Bearer {TOKEN}"}
        ) as answer:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
        await cable.mend()
        assert (await sender.push(aws("k")))[0] == 204
        await until(lambda: heard.keys == ["k"], "it was not announced")


@asynccontextmanager
async def sns_server(status: int) -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """Serve what SNS answers to a confirmation; give its address and what it was asked."""
    asked: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        return web.Response(status=status, headers={"Location": "http://127.0.0.1:1/elsewhere"})

    application = web.Application()
    application.router.add_get("/", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/", asked
    finally:
        await runner.cleanup()


def question(**changed: str) -> dict[str, str]:
    """What SNS asks first. Its address leads to where nobody may be sent."""
    return {
        "Type": "SubscriptionConfirmation",
        "MessageId": "1",
        "Token": "2336412f37fb687f5d51e6e2425f004a",
        "TopicArn": TOPIC,
        "SubscribeURL": "http://127.0.0.1:1/metadata",
        **changed,
    }


async def test_a_topic_of_the_settings_is_confirmed_with_its_own_server(tmp_path: Path) -> None:
    """With the topic of the settings and the token alone: the message's address is not looked at."""
    async with sns_server(200) as (url, asked), address(tmp_path, broker(tmp_path), url) as sender:
        assert (await sender.push(question()))[0] == 204
    wanted = {"Action": "ConfirmSubscription", "TopicArn": TOPIC, "Token": question()["Token"], "Version": "2010-03-31"}
    assert asked == [wanted]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"TopicArn": TOPIC + "2"}, "asks to push; if it may, set VOXELMILL_NOTIFICATION_SNS_TOPIC to it"),
        ({"TopicArn": "http://127.0.0.1:1/"}, "TopicArn is no topic's ARN"),
        ({"Token": "x&Action=Publish"}, "Token is missing, or not made of letters and digits"),
        ({"Token": ""}, "Token is missing"),
    ],
)
async def test_any_other_question_is_refused_and_nobody_is_called(
    tmp_path: Path, changed: dict[str, str], reason: str
) -> None:
    """The reason says what to set, if it is wanted."""
    async with sns_server(200) as (url, asked), address(tmp_path, broker(tmp_path), url) as sender:
        status, said = await sender.push(question(**changed))
    assert status == 400
    assert reason in said
    assert asked == []


@pytest.mark.parametrize("status", [403, 302, 500])
async def test_a_confirmation_that_failed_is_asked_for_again(tmp_path: Path, status: int) -> None:
    """503, as SNS repeats its question; a redirect is not followed."""
    async with sns_server(status) as (url, asked), address(tmp_path, broker(tmp_path), url) as sender:
        assert (await sender.push(question()))[0] == 503
    assert len(asked) == 1


async def test_without_a_topic_in_the_settings_none_is_confirmed(tmp_path: Path) -> None:
    """SNS is off until its topic is named; that somebody unsubscribed is only noted."""
    async with address(tmp_path, broker(tmp_path)) as sender:
        assert (await sender.push(question()))[0] == 400
        assert (await sender.push(question(Type="UnsubscribeConfirmation")))[0] == 204
