"""Ingest as a process of its own: the service, and the sources that its settings name."""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from voxelmill_ingest.backpressure import Backpressure
from voxelmill_ingest.service import build
from voxelmill_ingest.triggers.amqp import AmqpSource
from voxelmill_ingest.triggers.announcer import Announcer
from voxelmill_ingest.triggers.http import HttpSource
from voxelmill_ingest.triggers.sns import SnsConfirmer, address_of
from voxelmill_ingest.triggers.sqs import SqsSource
from voxelmill_shared.database import open_database
from voxelmill_shared.metrics import NOTIFICATION_SOURCES, NOTIFICATIONS
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import NOTIFICATIONS as NOTIFICATIONS_QUEUE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from aiohttp import web
    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_ingest.triggers.settings import IngestProcessSettings
    from voxelmill_shared.parts import Parts
    from voxelmill_shared.service import Service
    from voxelmill_shared.transport.base import Transport

    Background = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class _Sources:
    """What the sources add to the service: see `Service`."""

    background: list[Background] = field(default_factory=list)
    checks: dict[str, Background] = field(default_factory=dict)
    resources: list[AbstractAsyncContextManager[None]] = field(default_factory=list)
    routes: list[web.RouteDef] = field(default_factory=list)


def build_process(parts: Parts, settings: IngestProcessSettings) -> Service:
    """Wire ingest with its triggers."""
    engine = open_database(parts.database_url, parts.database_limits)
    pressure = Backpressure(parts.transport, settings.ingest_queue_limit)
    service = build(parts, settings, engine=engine, pressure=pressure)
    producer = f"voxelmill/ingest/{socket.gethostname()}/{os.getpid()}"
    announcer = Announcer(parts.stores.inbox, parts.transport, producer, pressure)
    sources = _sources(parts, settings, announcer, engine)
    for name in settings.sources():
        NOTIFICATION_SOURCES.labels(name).set(1)
        NOTIFICATIONS.labels(name, "undecodable")  # from 0 on, or the first one is no increase to Prometheus
    return replace(
        service,
        background=(*service.background, *sources.background),
        checks={**service.checks, **sources.checks},
        resources=(*service.resources, *sources.resources),
        routes=(*service.routes, *sources.routes),
    )


def _sources(parts: Parts, settings: IngestProcessSettings, announcer: Announcer, engine: AsyncEngine) -> _Sources:
    sources = _Sources()
    if settings.amqp_notifications_exchange:
        _add_amqp(sources, parts, settings, announcer)
    if settings.sqs_queue_url:
        sqs = SqsSource(
            announcer,
            settings.sqs_queue_url,
            receivers=settings.sqs_receivers,
            visibility_seconds=settings.sqs_visibility_seconds,
        )
        sources.background.append(sqs.run)
        sources.checks["notifications-sqs"] = sqs.check
    if settings.notification_token is not None:
        confirmer = SnsConfirmer(settings.notification_sns_topic, address_of(settings.notification_sns_topic))
        token = settings.notification_token.get_secret_value()
        sources.routes += HttpSource(announcer, token, confirmer).routes()
    if settings.seaweedfs_filer:
        from voxelmill_ingest.triggers.filer import build_bridge  # noqa: PLC0415 - gRPC takes 20 MB

        bridge = build_bridge(settings, announcer, engine)
        sources.background.append(bridge.run)
        sources.checks["notifications-seaweedfs"] = bridge.check
    return sources


def _add_amqp(sources: _Sources, parts: Parts, settings: IngestProcessSettings, announcer: Announcer) -> None:
    transport = parts.transport
    if settings.amqp_notifications_url is not None:
        transport = open_transport(settings.amqp_notifications_url.get_secret_value())
        sources.resources.append(_closing(transport))
    queue = replace(NOTIFICATIONS_QUEUE, ladder=settings.waits(), foreign=(settings.notifications_exchange(),))
    amqp = AmqpSource(announcer, transport, queue)
    sources.background.append(amqp.run)
    sources.checks["notifications-amqp"] = amqp.check


@asynccontextmanager
async def _closing(transport: Transport) -> AsyncIterator[None]:
    """Close a transport with the service."""
    try:
        yield
    finally:
        await transport.close()
