"""The three addresses that every service answers: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from voxelmill_shared.errors import VoxelmillError
from voxelmill_shared.metrics import exposition
from voxelmill_shared.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

    Check = Callable[[], Coroutine[Any, Any, None]]
    Checks = Mapping[str, Check]


CLOSE_SECONDS = 5.0
"""How long the end of the process waits for answers that are under way; then their connections are cut."""
ANSWER_SECONDS = 3.0
"""How long a check may take: a dependency that is stopped says nothing, and whoever asks us does not wait for ever."""


class PortTakenError(VoxelmillError):
    """The address cannot be listened on."""


class _OfUnsoundRequests(logging.Filter):
    """Leaves out what is no HTTP, for its sender is told: the library would quote it, with tokens and all."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, (HttpProcessingError, web.RequestPayloadError))


_requests = logging.getLogger("voxelmill.http")
_requests.addFilter(_OfUnsoundRequests())


async def readiness(checks: Checks) -> dict[str, str]:
    """Ask all checks at the same time; return `ok` or the reason by name, within `ANSWER_SECONDS`."""

    async def answer(check: Check) -> str:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await check()
        except TimeoutError:
            return f"no answer within {ANSWER_SECONDS:g} s"
        except VoxelmillError as error:
            return str(error)
        return "ok"

    return dict(zip(checks, await asyncio.gather(*map(answer, checks.values())), strict=True))


def joined(checks: Checks, before: Checks) -> Checks:
    """Join two sets of checks: where both have one of a name, that of `before` is asked first."""

    def both(first: Check, then: Check) -> Check:
        async def check() -> None:
            await first()
            await then()

        return check

    return {
        **before,
        **{name: both(before[name], check) if name in before else check for name, check in checks.items()},
    }


def application(service: str, checks: Checks, routes: Sequence[web.RouteDef] = ()) -> web.Application:
    """Build the application of the three addresses, and of the service's own."""

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"ok": True, "service": service, "version": __version__})

    async def readyz(_: web.Request) -> web.Response:
        answers = await readiness(checks)
        ready = all(answer == "ok" for answer in answers.values())
        return web.json_response({"ready": ready, "checks": answers}, status=200 if ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        body, content_type = exposition()
        return web.Response(body=body, headers={"Content-Type": content_type})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics), *routes])
    return app


@asynccontextmanager
async def serve(
    service: str, checks: Checks, host: str, port: int, routes: Sequence[web.RouteDef] = ()
) -> AsyncIterator[int]:
    """Serve the three addresses and the service's own while the context is open; yield the port (for a `port` of 0).

    Raises
    ------
    PortTakenError
        If the address cannot be listened on.
    """
    app = application(service, checks, routes)
    runner = web.AppRunner(app, access_log=None, logger=_requests, shutdown_timeout=CLOSE_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            reason = error.strerror or error
            raise PortTakenError(
                f"cannot listen on {host}:{port}: {reason}; stop what listens there or choose another port"
            ) from None
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
