"""`voxelmill up`: every service in one process, and a folder that is watched."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from voxelmill_cli.doctor import reach_broker, reach_database, reach_store
from voxelmill_cli.engine import check_addresses, only_one, open_engine, read_settings, state_settings
from voxelmill_cli.errors import EXIT_UNREACHABLE, CommandError
from voxelmill_cli.model import weights_folder
from voxelmill_cli.progress import Lines, Tracker
from voxelmill_gateway.gateway import open_gateway
from voxelmill_gateway.server import serve
from voxelmill_gateway.settings import GatewaySettings
from voxelmill_ingest.settings import IngestSettings
from voxelmill_shared.errors import StoreUnavailableError, VoxelmillError
from voxelmill_shared.health import PortTakenError
from voxelmill_shared.main import stop_on_signals
from voxelmill_shared.storage.connect import open_store
from voxelmill_shared.storage.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from rich.console import Console

    from voxelmill_shared.plan import Plan

WATCH_SECONDS = 2.0


def up_settings(data: Path, plan: Plan) -> dict[str, Any]:
    """Give the settings of `up`: everything under `data`, but what the environment names lies where it says."""
    (data / "inbox").mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"inbox_url": str(data / "inbox"), **state_settings(data)}
    named = {name for name in settings if f"VOXELMILL_{name.upper()}" in os.environ}
    return {
        **{name: value for name, value in settings.items() if name not in named},
        "model": plan.model,
        "task": plan.task,
        "resolution": plan.resolution,
        "weights": weights_folder().path,
        "organ": plan.organ,
        "quality": plan.quality,
        "reduction_percent": plan.reduction_percent,
        "max_error_mm": plan.max_error_mm,
        **({} if "VOXELMILL_RECONCILE_SECONDS" in os.environ else {"reconcile_seconds": WATCH_SECONDS}),
    }


async def serve_folder(folder: Path, plan: Plan, port: int, console: Console) -> None:
    """Run until SIGTERM or SIGINT, then drain. `folder` is absolute.

    Raises
    ------
    CommandError
        If the folder or the port cannot be used, a setting is wrong, or something does not answer.
    """
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    stop = stop_on_signals()
    tracker = Tracker(Lines(console))
    with only_one(folder):
        settings = up_settings(folder, plan)
        await _reach_all(settings)
        async with open_engine(settings, observers=[tracker]) as engine:
            try:
                async with (
                    open_gateway(engine.parts, read_settings(GatewaySettings, settings)) as gateway,
                    serve(gateway, "127.0.0.1", port) as taken,
                ):
                    say(f"put images into {settings.get('inbox_url', 'the inbox')}")
                    say(f"results appear in {settings.get('results_url', 'the result store')}")
                    say(f"look at them on http://127.0.0.1:{taken}; Ctrl-C ends")
                    await engine.until(stop)
            except PortTakenError as error:
                raise CommandError(f"{error} with --port") from None
        say("stopped; start it again and it goes on where it was")


async def _reach_all(settings: dict[str, Any]) -> None:
    """Look once whether everything answers: later, what does not is waited for, which at the start is no help."""
    read = read_settings(IngestSettings, settings)
    check_addresses(read)
    for name, check in (
        ("broker_url", reach_broker),
        ("inbox_url", _reach_inbox),
        ("work_url", reach_store),
        ("results_url", reach_store),
        ("database_url", reach_database),
    ):
        try:
            await check(getattr(read, name))
        except VoxelmillError as error:
            line = f"VOXELMILL_{name.upper()}: {error}; start it, or set the variable to where it is"
            raise CommandError(line, EXIT_UNREACHABLE) from None


async def _reach_inbox(url: str) -> None:
    """Look at the users' own folder without making it: a disk that is not mounted must not look like an empty one."""
    store = open_store(url)
    if isinstance(store, LocalStore) and not store.root.is_dir():
        raise StoreUnavailableError(f"{store.root}: there is no such folder")
    await reach_store(url)
