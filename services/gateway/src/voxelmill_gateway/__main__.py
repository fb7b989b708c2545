from __future__ import annotations

import argparse
import asyncio
import sys

import structlog

from voxelmill_gateway.access.api_keys import KeyDescriptionError
from voxelmill_gateway.access.first_key import create_admin_key
from voxelmill_gateway.gateway import open_gateway
from voxelmill_gateway.server import serve
from voxelmill_gateway.settings import GatewaySettings
from voxelmill_shared import logs
from voxelmill_shared.errors import TransientError, UnfitDependencyError
from voxelmill_shared.health import PortTakenError
from voxelmill_shared.main import EXIT_UNREACHABLE, EXIT_USAGE, read_settings, spare_the_collector, stop_on_signals
from voxelmill_shared.parts import open_parts

log = structlog.get_logger("voxelmill")


async def run(settings: GatewaySettings) -> None:
    """Serve until a signal comes."""
    stop = stop_on_signals()
    async with (
        open_parts(settings) as parts,
        open_gateway(parts, settings) as gateway,
        serve(gateway, settings.host, settings.port) as port,
    ):
        log.info("serving", service="gateway", host=settings.host, port=port)
        spare_the_collector()
        await stop.wait()
    log.info("stopped", service="gateway")


def main() -> None:
    """Be the process `voxelmill-gateway`, or make the first API key with `voxelmill-gateway create-key NAME`.

    Exit code 0 after a signal, 2 for wrong settings, 3 for a dependency out of reach or unfit.
    """
    parser = argparse.ArgumentParser("voxelmill-gateway", description="Voxelmill's gateway: the HTTP door.")
    commands = parser.add_subparsers(dest="command", metavar="[create-key NAME]")
    first = commands.add_parser("create-key", help="print a new API key for an admin of all projects, and end")
    first.add_argument("name", help="what it is for; it stands in the audit trail")
    asked = parser.parse_args()
    settings = read_settings(GatewaySettings, "voxelmill-gateway")
    try:
        logs.configure(settings.log_level)
        if asked.command == "create-key":
            sys.stdout.write(f"{asyncio.run(create_admin_key(settings, asked.name))}\n")
        else:
            asyncio.run(run(settings))
    except (ValueError, PortTakenError, KeyDescriptionError) as error:
        sys.exit(_end(EXIT_USAGE, str(error)))
    except TransientError as error:
        sys.exit(_end(EXIT_UNREACHABLE, f"{error}; see that it runs and is reachable, then start again"))
    except UnfitDependencyError as error:
        sys.exit(_end(EXIT_UNREACHABLE, str(error)))


def _end(code: int, line: str) -> int:
    sys.stderr.write(f"voxelmill-gateway: {line}\n")
    return code


if __name__ == "__main__":
    main()
