"""The HTTP application: every router, the errors, and the three addresses that every service answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Response

from voxelmill_gateway import openapi, page, problems, volume
from voxelmill_gateway.access.callers import InstallationOperator
from voxelmill_gateway.access.headers import BucketOrigins, SecurityHeaders
from voxelmill_gateway.access.middleware import cross_origin, middleware
from voxelmill_gateway.dicomweb import frames, qido, rendered, stow, wado
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.rest import (
    archive,
    audit,
    dead_letters,
    events,
    files,
    jobs,
    keys,
    process,
    prototype,
    series,
    session,
    uploads,
)
from voxelmill_shared.health import readiness
from voxelmill_shared.metrics import exposition
from voxelmill_shared.version import __version__

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from voxelmill_gateway.gateway import Gateway

ROUTERS: tuple[APIRouter, ...] = (
    session.router,
    keys.router,
    stow.router,
    qido.router,
    wado.router,
    frames.router,
    rendered.router,
    volume.router,
    jobs.router,
    series.router,
    files.router,
    archive.router,
    events.router,
    dead_letters.router,
    audit.router,
    uploads.router,
    process.router,
    prototype.router,
    page.router,
)
"""Every router but that of health. A part of the interface is there when its router is here."""

health = APIRouter(tags=["health"])


@health.get("/healthz", operation_id="healthz", summary="Whether the process lives")
async def healthz() -> dict[str, Any]:
    """Say that the process lives."""
    return {"ok": True, "service": "gateway", "version": __version__}


@health.get("/readyz", operation_id="readyz", summary="Whether every dependency answers")
async def readyz(gate: Gate, response: Response) -> dict[str, Any]:
    """Say whether every dependency answers, and if not, which one and why."""
    answers = await readiness(gate.checks)
    ready = all(answer == "ok" for answer in answers.values())
    response.status_code = 200 if ready else 503
    return {"ready": ready, "checks": answers}


@health.get(
    "/metrics",
    operation_id="metrics",
    summary="The metrics in Prometheus' text format",
    response_class=Response,
    responses={200: {"description": "the metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(_: InstallationOperator) -> Response:
    """Give the metrics."""
    body, content_type = exposition()
    return Response(body, headers={"Content-Type": content_type})


class _Application(FastAPI):
    """FastAPI, with the headers also on its answer to a defect, which its own outermost middleware gives."""

    def build_middleware_stack(self) -> ASGIApp:
        gateway: Gateway = self.state.gateway
        buckets = BucketOrigins(gateway.stores, gateway.settings)
        return SecurityHeaders(cross_origin(super().build_middleware_stack(), gateway.settings), buckets)


def application(gateway: Gateway) -> FastAPI:
    """Build the application over an open gateway."""
    app = _Application(
        title="Voxelmill",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=middleware(gateway),
    )
    app.state.gateway = gateway
    problems.install(app)
    openapi.install(app)
    for router in (health, *ROUTERS):
        app.include_router(router)
    return app
