"""`voxelmill reconcile`: list the inbox once, now, and announce what the ledger does not know."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect

from voxelmill_cli.console import say
from voxelmill_cli.engine import check_addresses, read_settings, state_settings
from voxelmill_cli.errors import EXIT_INPUT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE, CommandError
from voxelmill_ingest.reconciler import Reconciler
from voxelmill_ingest.settings import IngestSettings
from voxelmill_ingest.tables import objects
from voxelmill_shared.database import open_database, reading
from voxelmill_shared.errors import UnroutableError
from voxelmill_shared.storage.connect import open_store
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.transport.connect import open_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rich.console import Console

    from voxelmill_ingest.reconciler import Listing

INGEST = "start ingest (voxelmill-ingest, or `voxelmill up`) once"


async def reconcile(data: Path, *, dry_run: bool) -> dict[str, Any]:
    """Make one pass over the inbox of the installation that the environment names, or of a folder of `voxelmill up`.

    Parameters
    ----------
    data
        The folder; what a `VOXELMILL_*_URL` names lies there instead.
    dry_run
        Only look: nothing is announced.

    Raises
    ------
    CommandError
        If there is no such installation, its inbox is not there, or ingest has never run on it.
    """
    settings = read_settings(IngestSettings, places(data))
    check_addresses(settings)
    async with _reconciler(settings) as reconciler:
        await reconciler.inbox.check()
        await reconciler.transport.check()
        try:
            found = await reconciler.once(announce=not dry_run)
        except UnroutableError as error:
            raise CommandError(f"{error}; {INGEST}", EXIT_UNREACHABLE) from None
    return {"inbox": settings.inbox_url, "dry_run": dry_run, **asdict(found), "exit_code": _exit_code(found)}


def places(data: Path) -> dict[str, Any]:
    """Give the settings that put an installation under `data`, but for what the environment names."""
    found: dict[str, Any] = {"inbox_url": str(data / "inbox"), **state_settings(data)}
    found = {name: place for name, place in found.items() if f"VOXELMILL_{name.upper()}" not in os.environ}
    if "database_url" in found and not (data / "voxelmill.db").exists():
        raise CommandError(
            f"{data}: no installation there; name the folder of `voxelmill up` with --data, or set VOXELMILL_*_URL"
        )
    return found


@asynccontextmanager
async def _reconciler(settings: IngestSettings) -> AsyncIterator[Reconciler]:
    engine = open_database(settings.database_url)
    inbox = open_store(settings.inbox_url, bucket="inbox")
    transport = open_transport(settings.broker_url)
    try:
        if isinstance(inbox, LocalStore) and not inbox.root.is_dir():
            raise CommandError(f"{inbox.root}: there is no such folder; mount it, or name the inbox", EXIT_UNREACHABLE)
        async with reading(engine) as connection:
            if not await connection.run_sync(lambda plain: inspect(plain).has_table(objects.name)):
                raise CommandError(f"the database has no ledger; {INGEST}", EXIT_USAGE)
        yield Reconciler(
            engine,
            inbox,
            transport,
            f"voxelmill/reconcile/{os.getpid()}",
            timedelta(0),
            grace=settings.reconcile_grace(),
            found_by="command",
            left_over=timedelta(0),
        )
    finally:
        await transport.close()
        await inbox.close()
        await engine.dispose()


def _exit_code(found: Listing) -> int:
    return EXIT_INPUT_FAILED if found.unnamed else 0


def print_pass(console: Console, found: dict[str, Any]) -> None:
    """Print what `reconcile` gave, for people."""
    verb = "would be announced" if found["dry_run"] else "announced"
    counts = f"{found['listed']} objects listed, {found['known']} already known, {found['announced']} {verb}"
    say(console, f"{found['inbox']}: {counts}")
    if found["young"]:
        say(console, f"{found['young']} are too young and were left alone; run it again in a moment")
    if found["unnamed"]:
        say(console, f"{found['unnamed']} have names that are not UTF-8 and cannot be announced; rename them")
