"""Showing what a run has left: the gateway alone, over the run's own broker, catalog and results."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from voxelmill_cli.engine import check_addresses, only_one, read_settings, state_settings
from voxelmill_gateway.gateway import open_gateway
from voxelmill_gateway.server import serve
from voxelmill_gateway.settings import GatewaySettings
from voxelmill_shared.health import PortTakenError
from voxelmill_shared.main import stop_on_signals
from voxelmill_shared.parts import open_parts

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

HOST = "127.0.0.1"
PORT = 8000


async def serve_results(state: Path, source: Path, console: Console) -> None:
    """Serve until SIGTERM or SIGINT, on port 8000, or on a free one where that is taken.

    Parameters
    ----------
    state
        The folder in which a run keeps its broker, catalog and results.
    source
        The folder that the run read.
    console
        Where the address is told.
    """
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    stop = stop_on_signals()
    settings = read_settings(GatewaySettings, {**state_settings(state), "inbox_url": str(source)})
    check_addresses(settings)
    with only_one(state):
        async with open_parts(settings) as parts, open_gateway(parts, settings) as gateway:
            for port in (PORT, 0):
                try:
                    async with serve(gateway, HOST, port) as taken:
                        say(f"look at it on http://{HOST}:{taken}; Ctrl-C ends")
                        await stop.wait()
                    break
                except PortTakenError:
                    if not port:
                        raise
