"""Notifications from Amazon SQS: S3's own, or what came through SNS or EventBridge.

Receive (long polling), announce with confirmation, only then delete. While our broker is away what was received is
hidden from others again and again, for SQS counts every receipt and a redrive policy would bury sound messages. What is
not understood is left to that policy. Needs the rights `sqs:ReceiveMessage`, `sqs:DeleteMessage` and
`sqs:ChangeMessageVisibility`.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import structlog
from aiobotocore.config import AioConfig
from aiohttp import ClientError as ConnectionFailedError
from botocore.exceptions import BotoCoreError, ClientError

from voxelmill_ingest.triggers.normaliser import load
from voxelmill_ingest.triggers.notification import Notification, UnknownNotificationError
from voxelmill_ingest.triggers.reach import NOT_ANNOUNCED, Reach
from voxelmill_shared.metrics import NOTIFICATIONS
from voxelmill_shared.storage.s3_client import new_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxelmill_ingest.triggers.announcer import Announcer

log = structlog.get_logger("voxelmill")

SOURCE = "sqs"
WAIT_SECONDS = 20
"""How long SQS may hold a request while the queue is empty (its longest)."""
BATCH = 10
"""How many messages a request may bring or delete (SQS's most)."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two tries while SQS or our broker is away; they double."""
LAST_SECONDS = 5.0
"""How long the end of the process may take to settle what is in hand. SQS gives the rest out again."""
_MOST_REMEMBERED = 10_000
_AMAZON = re.compile(r"(?:sqs\.(?P<region>[a-z0-9-]+)|(?P<legacy>[a-z0-9-]+)\.queue)\.amazonaws\.com(?:\.cn)?")
"""Amazon's addresses of SQS (AWS General Reference, "Amazon SQS endpoints and quotas"), the legacy ones too."""
ERRORS = (ClientError, BotoCoreError, ConnectionFailedError, OSError, TimeoutError)

_Message: TypeAlias = dict[str, Any]


class SqsSource:
    """Announces what an SQS queue tells of.

    Credentials come from the environment in the ways that all AWS tools know. The server is the one that the queue's
    URL names, so that `AWS_ENDPOINT_URL` may lead to another store; `AWS_ENDPOINT_URL_SQS` overrides it.

    Parameters
    ----------
    announcer
        Where that goes.
    queue_url
        The queue, `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`.
    receivers
        How many requests for messages wait at a time.
    visibility_seconds
        How long a message is hidden from others while it is in hand; after a crash it comes again that much later.
    wait_seconds
        How long SQS may hold a request while the queue is empty.
    """

    def __init__(
        self,
        announcer: Announcer,
        queue_url: str,
        *,
        receivers: int = 4,
        visibility_seconds: int = 60,
        wait_seconds: int = WAIT_SECONDS,
    ) -> None:
        self._announcer = announcer
        self._url = queue_url
        self._receivers = receivers
        self._visibility = visibility_seconds
        self._wait = wait_seconds
        self._reach = Reach(f"SQS queue {urlsplit(queue_url).path.rpartition('/')[2]}")
        self._broker = Reach("broker of the events")
        self._told: dict[str, None] = {}
        """Ids of messages that were not understood and logged, oldest first."""

    async def check(self) -> None:
        """Return if SQS answered the last request.

        Raises
        ------
        SourceUnavailableError
            If it did not, or refused it.
        """
        await self._reach.check()

    async def run(self) -> None:
        """Take notifications until cancelled. SQS or a broker that is away is waited for."""
        client = open_client(self._url, connections=self._receivers + 1, read_seconds=self._wait + 10)
        async with client as sqs:
            tasks = [asyncio.create_task(self._receive(sqs)) for _ in range(self._receivers)]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self, sqs: Any) -> None:
        pause = FIRST_PAUSE
        wait = 0  # the first answer comes at once, for readiness
        while True:
            try:
                answer = await sqs.receive_message(
                    QueueUrl=self._url,
                    MaxNumberOfMessages=BATCH,
                    WaitTimeSeconds=wait,
                    VisibilityTimeout=self._visibility,
                )
                self._reach.found()
                pause, wait = FIRST_PAUSE, self._wait
                await self._settle_to_the_end(sqs, answer.get("Messages", []))
            except ERRORS as error:
                self._reach.lost(reason_of(error))
                await asyncio.sleep(pause)
                pause, wait = min(2 * pause, LONGEST_PAUSE), 0

    async def _settle_to_the_end(self, sqs: Any, messages: Sequence[_Message]) -> None:
        """Settle; the end of the process waits for it a little, so that no other one has to do it again."""
        task = asyncio.create_task(self._settle(sqs, messages))
        try:
            await asyncio.shield(task)
        finally:
            if not task.done():
                await asyncio.wait([task], timeout=LAST_SECONDS)
                task.cancel()

    async def _settle(self, sqs: Any, messages: Sequence[_Message]) -> None:
        """Announce what a batch tells of, then delete it, but for what is not understood."""
        told: list[Notification] = []
        understood: list[_Message] = []
        for message in messages:
            try:
                told += self._announcer.read(load(message["Body"]), SOURCE)
            except UnknownNotificationError as error:
                self._tell_once(message["MessageId"], str(error))
            else:
                understood.append(message)
        if understood and await self._announce(sqs, told, understood):
            await self._delete(sqs, understood)

    def _tell_once(self, message_id: str, reason: str) -> None:
        if message_id in self._told:
            return
        if len(self._told) == _MOST_REMEMBERED:
            del self._told[next(iter(self._told))]
        self._told[message_id] = None
        NOTIFICATIONS.labels(SOURCE, "undecodable").inc()
        log.error(
            "notification not understood, left to the queue's redrive policy",
            source=self._reach.name,
            message_id=message_id,
            reason=reason,
        )

    async def _announce(self, sqs: Any, told: Sequence[Notification], messages: Sequence[_Message]) -> bool:
        """Announce, however long our broker is away; return whether the messages are still in our hand."""
        pause = FIRST_PAUSE
        while True:
            try:
                await self._announcer.announce(told, SOURCE)
            except NOT_ANNOUNCED as error:
                self._broker.lost(str(error))
                if not await self._hide(sqs, messages):
                    return False
                await asyncio.sleep(min(pause, self._visibility / 2))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._broker.found()
                return True

    async def _hide(self, sqs: Any, messages: Sequence[_Message]) -> bool:
        """Keep messages from others for some more time; return whether SQS agreed (it does for 12 hours)."""
        answer = await sqs.change_message_visibility_batch(
            QueueUrl=self._url,
            Entries=[entry | {"VisibilityTimeout": self._visibility} for entry in _entries(messages)],
        )
        return not answer.get("Failed")

    async def _delete(self, sqs: Any, messages: Sequence[_Message]) -> None:
        answer = await sqs.delete_message_batch(QueueUrl=self._url, Entries=_entries(messages))
        failed = answer.get("Failed", [])
        if failed:
            codes = sorted({str(one.get("Code")) for one in failed})
            log.warning(
                "announced, not deleted: they come again", source=self._reach.name, count=len(failed), codes=codes
            )


def _entries(messages: Sequence[_Message]) -> list[dict[str, Any]]:
    return [{"Id": str(number), "ReceiptHandle": one["ReceiptHandle"]} for number, one in enumerate(messages)]


def open_client(queue_url: str, *, connections: int, read_seconds: float) -> Any:
    """Return a client of the queue's server, to be entered (`async with`)."""
    session = new_session()
    endpoint, region = _server_of(queue_url)
    if session.get_config_variable("region") is None and region is None:
        region = "us-east-1"  # it only has to be signed for some region: no server but Amazon's looks at it
    config = AioConfig(
        connect_timeout=5,
        read_timeout=read_seconds,
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": 2},
    )
    return session.create_client("sqs", config=config, endpoint_url=endpoint, region_name=region)


def _server_of(queue_url: str) -> tuple[str | None, str | None]:
    """Return endpoint and region as the queue's URL names them; None where botocore knows better."""
    parts = urlsplit(queue_url)
    amazon = _AMAZON.fullmatch(parts.hostname or "")
    endpoint = None if os.environ.get("AWS_ENDPOINT_URL_SQS") else f"{parts.scheme}://{parts.netloc}"
    return endpoint, (amazon["region"] or amazon["legacy"]) if amazon else None


def reason_of(error: BaseException) -> str:
    """Say in one line why SQS did not do what it was asked."""
    if isinstance(error, ClientError):
        answer = error.response.get("Error", {})
        return " ".join(f"{answer.get('Code', 'unknown')}: {answer.get('Message', '')}".split())
    return " ".join(str(error).split()) or type(error).__name__
