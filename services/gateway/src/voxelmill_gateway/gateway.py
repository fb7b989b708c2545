"""What the gateway is made of, and everything that a route may use."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from voxelmill_gateway.access.api_keys import ApiKeys
from voxelmill_gateway.access.gatekeeper import Gatekeeper
from voxelmill_gateway.dicomweb.headers import Headers
from voxelmill_gateway.feed import Feed
from voxelmill_gateway.rest.segments import StatisticsReader
from voxelmill_gateway.tables import MIGRATIONS, OUTBOX, VERSION_TABLE
from voxelmill_gateway.trail import Trail
from voxelmill_gateway.uploads.sweeping import Sweep
from voxelmill_gateway.volume_cache import VolumeCache
from voxelmill_shared.child import ChildPool
from voxelmill_shared.database import check, open_database
from voxelmill_shared.migrations import upgrade
from voxelmill_shared.outbox import OutboxRelay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_gateway.settings import GatewaySettings
    from voxelmill_shared.child import Limits
    from voxelmill_shared.health import Checks
    from voxelmill_shared.parts import Parts, Scratch
    from voxelmill_shared.storage.stores import Stores
    from voxelmill_shared.transport.base import Transport

WORK = "voxelmill_gateway.work:run"
"""What the children run."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """Everything that a route may use.

    `engine` is the database of the catalog and of the gateway's own tables. Whoever has added to the outbox calls
    `relay.notify`. `source` is who publishes, for the envelopes. `stopping` is set when the process is about to end: an
    answer that would go on for ever ends then. `children` decode (`work.run`); `headers` and `volumes` are what they
    have read before.
    """

    settings: GatewaySettings
    stores: Stores
    transport: Transport
    engine: AsyncEngine
    relay: OutboxRelay
    scratch: Scratch
    limits: Limits
    children: ChildPool
    headers: Headers
    volumes: VolumeCache
    checks: Checks
    source: str
    trail: Trail
    keys: ApiKeys
    gatekeeper: Gatekeeper
    feed: Feed
    statistics: StatisticsReader
    stopping: asyncio.Event


def gateway_of(request: Request) -> Gateway:
    """Return the gateway that serves a request."""
    gateway: Gateway = request.app.state.gateway
    return gateway


Gate = Annotated[Gateway, Depends(gateway_of)]
"""A route's way to the gateway."""


@asynccontextmanager
async def open_gateway(parts: Parts, settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """Bring the gateway's tables up to date, start what works in its background, and end it with the context.

    Raises
    ------
    DatabaseUnavailableError
        If the database does not answer.
    MigrationError
        If a newer version of Voxelmill has made the tables.
    """
    engine = open_database(parts.database_url, parts.database_limits)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.dispose)
        await upgrade(parts.database_url, package=MIGRATIONS, version_table=VERSION_TABLE)
        relay = OutboxRelay(engine, OUTBOX, parts.transport)
        source = f"voxelmill/gateway/{socket.gethostname()}/{os.getpid()}"
        trail = Trail(engine, relay, source)
        keys = ApiKeys(engine, source, notify=relay.notify)
        stopping = asyncio.Event()
        feed = Feed(engine, stopping, seconds=settings.gateway_events_seconds)
        stack.push_async_callback(feed.close)
        children = await stack.enter_async_context(
            ChildPool(WORK, parts.limits, settings.gateway_children, warm=parts.children_at_start)
        )
        volumes = await stack.enter_async_context(
            VolumeCache(parts.stores, children, parts.scratch, settings.gateway_volumes_mib << 20)
        )
        gateway = Gateway(
            settings=settings,
            stores=parts.stores,
            transport=parts.transport,
            engine=engine,
            relay=relay,
            scratch=parts.scratch,
            limits=parts.limits,
            children=children,
            headers=Headers(parts.stores, children, parts.scratch, settings.gateway_headers_mib << 20),
            volumes=volumes,
            checks={
                "broker": parts.transport.check,
                "database": partial(check, engine),
                "inbox": parts.stores.inbox.check,
                "work": parts.stores.work.check,
                "results": parts.stores.results.check,
            },
            source=source,
            trail=trail,
            keys=keys,
            gatekeeper=Gatekeeper(settings, keys, trail),
            feed=feed,
            statistics=StatisticsReader(parts.stores.results),
            stopping=stopping,
        )
        for background in (relay.run, Sweep(gateway).run):
            task = asyncio.create_task(background())
            stack.push_async_callback(_end, task)
        yield gateway


async def _end(task: asyncio.Task[None]) -> None:
    """End what works in the background; what it died of before is raised."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return
