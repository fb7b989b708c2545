"""What a service is made of: queues with handlers, work in the background, and what to check before it is ready."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from voxelmill_shared.outcome import Outcome

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta

    from aiohttp import web

    from voxelmill_shared.events import Event, Stage
    from voxelmill_shared.transport.topology import QueueSpec

Handler = Callable[[Any], Coroutine[Any, Any, Outcome]]
"""Takes one typed event, gives an outcome."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One queue, the handler of each event type in it, and how many messages may be in hand at a time."""

    queue: QueueSpec
    handlers: Mapping[type[Event], Handler]
    prefetch: int = 1


@dataclass(frozen=True, slots=True)
class Service:
    """One service, wired.

    `background` functions run until cancelled (outbox relay, the timers of series). `resources` are entered before
    the first message is taken and left after the last one is settled (children, migrations). `checks` are what
    `/readyz` asks, by name; each raises with a reason. `routes` are served beside those of every service where the
    service is a process of its own. `grace` is the longest that a drain waits for work in hand, where the service has
    less time than its settings give it: none at all on a machine that is about to be taken away.
    """

    name: str
    stage: Stage
    subscriptions: tuple[Subscription, ...] = ()
    background: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = ()
    resources: tuple[AbstractAsyncContextManager[Any], ...] = ()
    checks: Mapping[str, Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=dict)
    routes: tuple[web.RouteDef, ...] = ()
    grace: timedelta | None = None
