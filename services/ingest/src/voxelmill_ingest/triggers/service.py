"""Ingest as a process of its own: the service, and the sources that its settings name."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from voxelmill_ingest.service import build
from voxelmill_ingest.triggers.announcer import Announcer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aiohttp import web

    from voxelmill_ingest.triggers.settings import IngestProcessSettings
    from voxelmill_shared.parts import Parts
    from voxelmill_shared.service import Service


def build_process(parts: Parts, settings: IngestProcessSettings) -> Service:
    """Wire ingest with its triggers."""
    service = build(parts, settings)
    producer = f"voxelmill/ingest/{socket.gethostname()}/{os.getpid()}"
    announcer = Announcer(parts.stores.inbox, parts.transport, producer)
    sources, routes = _sources(parts, settings, announcer)
    return replace(service, background=(*service.background, *sources), routes=(*service.routes, *routes))


def _sources(
    parts: Parts, settings: IngestProcessSettings, announcer: Announcer
) -> tuple[list[Callable[[], Coroutine[Any, Any, None]]], list[web.RouteDef]]:
    """Give what runs in the background, and the addresses that are pushed to."""
    del parts, settings, announcer
    return [], []
