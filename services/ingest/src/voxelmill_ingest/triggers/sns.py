"""Confirming that SNS may push to us, for the one topic that the settings name.

SNS asks first, by a message with an address to fetch. That address is never fetched: a request is made of the topic's
own region and the token alone, and only for a topic that the operator named. Nothing that a sender writes can therefore
make this process call any other place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import aiohttp
import structlog

from voxelmill_ingest.triggers.notification import UnknownNotificationError
from voxelmill_ingest.triggers.reach import SourceUnavailableError

log = structlog.get_logger("voxelmill")

TOPIC = re.compile(
    r"arn:(?P<partition>aws|aws-cn|aws-us-gov):sns:(?P<region>[a-z0-9-]+):[0-9]{12}:[A-Za-z0-9_.-]{1,256}"
)
"""A topic's ARN (Amazon SNS API Reference, CreateTopic; a FIFO topic ends in `.fifo`)."""
_TOKEN = re.compile(r"[A-Za-z0-9]{1,1024}")
_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class SnsConfirmer:
    """Answers SNS's question whether this process wants a topic.

    Parameters
    ----------
    topic
        The ARN of the topic that may push; empty for none.
    server
        Where to confirm: `address_of` the topic.
    """

    topic: str
    server: str

    async def answer(self, message: dict[str, Any]) -> None:
        """Deal with a message that is no notification: `SubscriptionConfirmation`, `UnsubscribeConfirmation`.

        Raises
        ------
        UnknownNotificationError
            If it is for another topic, or of another shape.
        SourceUnavailableError
            If SNS could not be told; it asks again.
        """
        asked, token = message.get("TopicArn"), message.get("Token")
        if not isinstance(asked, str) or TOPIC.fullmatch(asked) is None:
            raise UnknownNotificationError("SNS: TopicArn is no topic's ARN")
        if message.get("Type") == "UnsubscribeConfirmation":
            log.warning("SNS pushes no more: somebody unsubscribed this endpoint", topic=asked)
            return
        if asked != self.topic:
            raise UnknownNotificationError(
                f"SNS: {asked} asks to push; if it may, set VOXELMILL_NOTIFICATION_SNS_TOPIC to it and subscribe again"
            )
        if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
            raise UnknownNotificationError("SNS: Token is missing, or not made of letters and digits")
        await self._confirm(token)
        log.info("SNS subscription confirmed", topic=asked)

    async def _confirm(self, token: str) -> None:
        query = {"Action": "ConfirmSubscription", "TopicArn": self.topic, "Token": token, "Version": "2010-03-31"}
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
                session.get(self.server, params=query, allow_redirects=False) as answer,
            ):
                if answer.status != 200:
                    raise SourceUnavailableError(f"SNS answered {answer.status} to the confirmation of {self.topic}")
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SourceUnavailableError(f"SNS could not be told that {self.topic} may push: {reason}") from error


def address_of(topic: str) -> str:
    """Return Amazon's address of SNS in a topic's region; empty for what is no topic.

    Source: AWS General Reference, "Amazon Simple Notification Service endpoints and quotas".
    """
    found = TOPIC.fullmatch(topic)
    if found is None:
        return ""
    return f"https://sns.{found['region']}.amazonaws.com{'.cn' if found['partition'] == 'aws-cn' else ''}/"
