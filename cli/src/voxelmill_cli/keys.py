"""What `voxelmill keys` does: open the installation's database, and give answers as data."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from voxelmill_cli.errors import EXIT_INPUT_FAILED, CommandError
from voxelmill_cli.status import databases_of
from voxelmill_gateway.access.api_keys import ApiKeys, KeyDescriptionError
from voxelmill_gateway.tables import MIGRATIONS, VERSION_TABLE
from voxelmill_shared.account import whoami
from voxelmill_shared.database import open_database
from voxelmill_shared.migrations import upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from voxelmill_gateway.access.api_keys import ApiKey
    from voxelmill_gateway.access.callers import Role

_SPAN = re.compile(r"(\d+)\s*([hd])")
_UNITS = {"h": "hours", "d": "days"}


@asynccontextmanager
async def _keys(data: Path) -> AsyncIterator[ApiKeys]:
    found = databases_of(data)
    if len(found) > 1:
        raise CommandError(
            f"{data}: {len(found)} databases there, one of each run; name the run's own folder with --data, or set"
            " VOXELMILL_DATABASE_URL"
        )
    await upgrade(found[0], package=MIGRATIONS, version_table=VERSION_TABLE)
    engine = open_database(found[0])
    try:
        # What is written down here is published by the gateway, when it runs.
        yield ApiKeys(engine, f"voxelmill/command/{socket.gethostname()}")
    finally:
        await engine.dispose()


async def create(
    data: Path, name: str, role: Role, projects: frozenset[str] | None, expires: datetime | None
) -> dict[str, Any]:
    """Make a key; its text is in what is returned, and nowhere else.

    Raises
    ------
    CommandError
        If there is no such installation, or no such key can be made.
    """
    who = await asyncio.to_thread(whoami)
    async with _keys(data) as keys:
        try:
            key, text = await keys.create(name, role, projects, by=who, expires=expires)
        except KeyDescriptionError as error:
            raise CommandError(str(error)) from None
    return {**as_document(key), "key": text}


async def everything(data: Path) -> list[dict[str, Any]]:
    """List the keys, newest first."""
    async with _keys(data) as keys:
        return [as_document(key) for key in await keys.everything()]


async def revoke(data: Path, key_id: str) -> dict[str, Any]:
    """Revoke a key.

    Raises
    ------
    CommandError
        If there is none of this id.
    """
    who = await asyncio.to_thread(whoami)
    async with _keys(data) as keys:
        key = await keys.revoke(key_id, by=who)
    if key is None:
        raise CommandError(f"{key_id}: no such key; `voxelmill keys list` names them", EXIT_INPUT_FAILED)
    return as_document(key)


def read_expiry(text: str) -> datetime:
    """Read `90d` (from now), or a date or time in ISO 8601, which is this machine's if it names no zone.

    Raises
    ------
    CommandError
        If it is neither.
    """
    try:
        if span := _SPAN.fullmatch(text.strip()):
            return datetime.now(UTC) + timedelta(**{_UNITS[span[2]]: int(span[1])})
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise CommandError(f"--expires {text}: write a span (12h, 90d) or a time (2027-01-31)") from None


def as_document(key: ApiKey) -> dict[str, Any]:
    """Describe a key in JSON."""
    return {
        "key_id": key.key_id,
        "name": key.name,
        "role": key.role.label,
        "projects": None if key.projects is None else sorted(key.projects),
        "created": _written(key.created),
        "created_by": key.created_by,
        "expires": _written(key.expires),
        "revoked": _written(key.revoked),
        "last_used": _written(key.last_used),
    }


def _written(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
