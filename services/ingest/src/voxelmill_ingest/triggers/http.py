"""Notifications by HTTP: SeaweedFS's webhook, Ceph RGW, MinIO, Google Cloud Pub/Sub and Amazon SNS push to one address.

`POST /notifications` answers 204 when what the body tells of is announced and confirmed (or when it tells of nothing
new), 400 when it is not understood, 401 without the token, 408 when it does not come, 413 when it is too long, 503 when
the announcement was not confirmed: whoever repeats a push (all but SeaweedFS) loses nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from voxelmill_ingest.triggers.normaliser import load
from voxelmill_ingest.triggers.notification import UnknownNotificationError
from voxelmill_ingest.triggers.reach import NOT_ANNOUNCED, Reach, SourceUnavailableError
from voxelmill_shared.metrics import NOTIFICATIONS

if TYPE_CHECKING:
    from voxelmill_ingest.triggers.announcer import Announcer
    from voxelmill_ingest.triggers.sns import SnsConfirmer

log = structlog.get_logger("voxelmill")

SOURCE = "http"
PATH = "/notifications"
MOST_BYTES = 1 << 20
"""The longest body: no sender's message is longer than SQS's and SNS's 256 KiB, SeaweedFS's are by inlined content."""
BODY_SECONDS = 30.0
"""How long a body may take to come: a megabyte does so over the slowest of lines."""
RETRY_SECONDS = 5


class HttpSource:
    """Announces what is pushed to an address.

    Parameters
    ----------
    announcer
        Where that goes.
    token
        What a sender must know: as bearer, as password of HTTP Basic (all that Ceph can do), or as `?token=` (all that
        Pub/Sub and some older senders can do).
    confirmer
        What answers SNS's questions.
    """

    def __init__(self, announcer: Announcer, token: str, confirmer: SnsConfirmer) -> None:
        self._announcer = announcer
        self._token = _digest(token)
        self._confirmer = confirmer
        self._broker = Reach("broker of the events")

    def routes(self) -> list[web.RouteDef]:
        """Give the address."""
        return [web.post(PATH, self.take)]

    async def take(self, request: web.Request) -> web.Response:
        """Announce what one request tells of."""
        if not self._is_known(request):
            headers = {"WWW-Authenticate": 'Bearer realm="notifications", Basic realm="notifications"'}
            return _answer(401, "the token is missing or wrong", headers)
        try:
            await self._announce(await _body(request))
        except UnknownNotificationError as error:
            NOTIFICATIONS.labels(SOURCE, "undecodable").inc()
            log.error("notification not understood, the sender was told", source=SOURCE, reason=str(error))
            return _answer(400, str(error))
        except SourceUnavailableError as error:
            log.error("SNS subscription not confirmed, the sender was told to come again", reason=str(error))
            return _later()
        except NOT_ANNOUNCED as error:
            self._broker.lost(str(error))
            return _later()
        return web.Response(status=204)

    async def _announce(self, body: bytes) -> None:
        document = load(body)
        if isinstance(document, dict) and document.get("Type") in {
            "SubscriptionConfirmation",
            "UnsubscribeConfirmation",
        }:
            await self._confirmer.answer(document)
            return
        await self._announcer.announce(self._announcer.read(document, SOURCE), SOURCE)
        self._broker.found()

    def _is_known(self, request: web.Request) -> bool:
        offered = [request.query.get("token", ""), _presented(request.headers.get("Authorization", ""))]
        return any(hmac.compare_digest(_digest(one), self._token) for one in offered)


def _presented(authorization: str) -> str:
    """Return the secret that an `Authorization` header holds (RFC 6750, 2.1; RFC 7617, 2)."""
    scheme, _, rest = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return rest.strip()
        case "basic":
            try:
                return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                return ""
    return ""


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


async def _body(request: web.Request) -> bytes:
    """Read a request's body.

    Raises
    ------
    UnknownNotificationError
        If it is not encoded as its headers say.
    HTTPRequestEntityTooLarge
        If it is too long; no more of it is read then.
    HTTPRequestTimeout
        If it does not come in time, or the sender hangs up.
    """
    if (request.content_length or 0) > MOST_BYTES:
        raise _too_long()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.content.iter_chunked(1 << 16):
                body += piece
                if len(body) > MOST_BYTES:
                    raise _too_long()
    except web.RequestPayloadError:
        raise UnknownNotificationError("the body is not encoded as its headers say") from None
    except (TimeoutError, ConnectionResetError):
        raise web.HTTPRequestTimeout(text=f"the body did not come within {BODY_SECONDS:g} s\n") from None
    return bytes(body)


def _too_long() -> web.HTTPRequestEntityTooLarge:
    return web.HTTPRequestEntityTooLarge(MOST_BYTES, text=f"the body is longer than {MOST_BYTES} bytes\n")


def _later() -> web.Response:
    return _answer(503, "not announced, come again", {"Retry-After": str(RETRY_SECONDS)})


def _answer(status: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=f"{reason}\n", headers=headers)
