"""The HTTP application. For now it answers the three addresses that every service answers, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Response

from voxelmill_shared.health import readiness
from voxelmill_shared.metrics import exposition
from voxelmill_shared.version import __version__

if TYPE_CHECKING:
    from voxelmill_shared.health import Checks


def application(checks: Checks) -> FastAPI:
    """Build the application. `checks` are what `/readyz` asks."""
    app = FastAPI(title="Voxelmill", version=__version__, docs_url=None, redoc_url=None)

    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        """Say that the process lives."""
        return {"ok": True, "service": "gateway", "version": __version__}

    @app.get("/readyz")
    async def readyz(response: Response) -> dict[str, Any]:
        """Say whether every dependency answers, and if not, which one and why."""
        answers = await readiness(checks)
        ready = all(answer == "ok" for answer in answers.values())
        response.status_code = 200 if ready else 503
        return {"ready": ready, "checks": answers}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Give the metrics in Prometheus' text format."""
        body, content_type = exposition()
        return Response(body, headers={"Content-Type": content_type})

    return app
