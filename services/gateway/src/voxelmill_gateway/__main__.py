from __future__ import annotations

import asyncio
import sys

import structlog

from voxelmill_gateway.server import serve
from voxelmill_gateway.settings import GatewaySettings
from voxelmill_shared import logs
from voxelmill_shared.health import PortTakenError
from voxelmill_shared.main import EXIT_USAGE, read_settings, stop_on_signals
from voxelmill_shared.parts import open_parts

log = structlog.get_logger("voxelmill")


async def run(settings: GatewaySettings) -> None:
    """Serve until a signal comes."""
    stop = stop_on_signals()
    async with open_parts(settings) as parts:
        checks = {"broker": parts.transport.check, "results": parts.stores.results.check}
        async with serve(checks, settings.host, settings.port) as port:
            log.info("serving", service="gateway", host=settings.host, port=port)
            await stop.wait()
    log.info("stopped", service="gateway")


def main() -> None:
    """Be the process `voxelmill-gateway`."""
    settings = read_settings(GatewaySettings, "voxelmill-gateway")
    try:
        logs.configure(settings.log_level)
        asyncio.run(run(settings))
    except (ValueError, PortTakenError) as error:
        sys.stderr.write(f"voxelmill-gateway: {error}\n")
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
