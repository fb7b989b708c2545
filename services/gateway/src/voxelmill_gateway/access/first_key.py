"""The first API key of an installation, where nobody may ask for one over HTTP yet."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from voxelmill_gateway.access.api_keys import ApiKeys
from voxelmill_gateway.access.callers import Role
from voxelmill_gateway.tables import MIGRATIONS, VERSION_TABLE
from voxelmill_shared.account import whoami
from voxelmill_shared.database import open_database
from voxelmill_shared.migrations import upgrade

if TYPE_CHECKING:
    from voxelmill_shared.settings import SharedSettings


async def create_admin_key(settings: SharedSettings, name: str) -> str:
    """Make a key for an admin of all projects and return its text, which is stored nowhere.

    Raises
    ------
    KeyDescriptionError
        If a key cannot be called so.
    DatabaseUnavailableError
        If the database does not answer.
    """
    await upgrade(settings.database_url, package=MIGRATIONS, version_table=VERSION_TABLE)
    engine = open_database(settings.database_url, settings.database_limits())
    try:
        # The record of it waits in the outbox until the gateway runs.
        keys = ApiKeys(engine, f"voxelmill/gateway/{socket.gethostname()}")
        _, text = await keys.create(name, Role.ADMIN, None, by=await asyncio.to_thread(whoami), expires=None)
    finally:
        await engine.dispose()
    return text
