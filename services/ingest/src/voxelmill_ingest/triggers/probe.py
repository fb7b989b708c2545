"""Whether the sources of notifications that the settings name can be reached. Nothing is taken from them or changed."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from voxelmill_ingest.triggers.reach import SourceUnavailableError
from voxelmill_shared.transport.connect import open_transport

if TYPE_CHECKING:
    from voxelmill_ingest.triggers.settings import IngestProcessSettings

ANSWER_SECONDS = 10.0


async def reach_amqp(settings: IngestProcessSettings) -> None:
    """Return if the broker that the store publishes to answers.

    Its exchange may be missing: ingest declares it when it starts, and says then if it is of another type.

    Raises
    ------
    BrokerUnavailableError
        If it does not; with the reason.
    """
    url = settings.amqp_notifications_url
    transport = open_transport(url.get_secret_value() if url else settings.broker_url)
    try:
        await transport.check()
    finally:
        await transport.close()


async def reach_sqs(settings: IngestProcessSettings) -> None:
    """Return if SQS knows the queue, or does not tell those who may only receive (no `sqs:GetQueueAttributes`).

    Raises
    ------
    SourceUnavailableError
        If it does not answer, or has no such queue; with the reason.
    """
    from voxelmill_ingest.triggers.sqs import ERRORS, open_client, reason_of  # noqa: PLC0415 - AWS's library is heavy

    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            open_client(settings.sqs_queue_url, connections=1, read_seconds=ANSWER_SECONDS) as sqs,
        ):
            await sqs.get_queue_attributes(QueueUrl=settings.sqs_queue_url, AttributeNames=["QueueArn"])
    except ERRORS as error:
        reason = reason_of(error)
        if not reason.startswith("AccessDenied"):
            raise SourceUnavailableError(f"{settings.sqs_queue_url}: {reason}") from error


async def reach_filer(settings: IngestProcessSettings) -> None:
    """Return if the filer lets itself be subscribed to.

    Raises
    ------
    SourceUnavailableError
        If it does not; with the reason.
    """
    from voxelmill_ingest.triggers.filer import credentials_of  # noqa: PLC0415 - gRPC takes 15 MB
    from voxelmill_ingest.triggers.filer_stream import FilerStream  # noqa: PLC0415 - as before

    address = settings.seaweedfs_filer
    stream = FilerStream(address, "/buckets/", credentials_of(settings))
    try:
        async with asyncio.timeout(ANSWER_SECONDS), aclosing(stream.changes(time.time_ns())) as changes:
            await anext(changes)
    except TimeoutError:
        raise SourceUnavailableError(f"{address}: no answer within {ANSWER_SECONDS:.0f} s") from None
    except SourceUnavailableError as error:
        raise SourceUnavailableError(f"{address}: {error}") from None
