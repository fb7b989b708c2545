"""`voxelmill pseudonym`: from a pseudonym back to its patient, or from a Patient ID to the pseudonym."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect

from voxelmill_cli.console import say
from voxelmill_cli.engine import check_addresses, read_settings
from voxelmill_cli.errors import EXIT_INPUT_FAILED, EXIT_USAGE, CommandError
from voxelmill_cli.reconcile import INGEST, places
from voxelmill_ingest.settings import IngestSettings
from voxelmill_ingest.tables import disclosures
from voxelmill_shared.account import whoami
from voxelmill_shared.database import open_database, reading

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console


async def disclose(data: Path, asked: str, project: str | None) -> dict[str, Any]:
    """Look into the mapping of the installation that the environment names, or of a folder of `voxelmill up`.

    Parameters
    ----------
    data
        The folder; what a `VOXELMILL_*_URL` names lies there instead.
    asked
        What is looked for, of either side.
    project
        Whose mapping it is; None: what the environment says.

    Raises
    ------
    CommandError
        If there is no such installation or nothing was found, or the key is not set.
    DeidentificationKeyError, ProjectUnknownError
        If the key is another one, or the project.
    """
    # Whether it is on now or not: the key is needed, and it is read where de-identification is on.
    values = {**places(data), "ingest_deidentify": "basic"} | ({"ingest_project": project} if project else {})
    settings = read_settings(IngestSettings, values)
    check_addresses(settings)
    if find_spec("cryptography") is None or settings.ingest_deidentify_key is None:
        raise CommandError("the mapping is encrypted, and cryptography is not installed; pip install cryptography")
    from voxelmill_ingest.deidentify.keys import ProjectKeys  # noqa: PLC0415 - an extra
    from voxelmill_ingest.deidentify.mapping import Mapping  # noqa: PLC0415 - likewise

    keys = ProjectKeys.derive(settings.ingest_deidentify_key.get_secret_value(), settings.ingest_project)
    engine = open_database(settings.database_url)
    try:
        async with reading(engine) as connection:
            if not await connection.run_sync(lambda plain: inspect(plain).has_table(disclosures.name)):
                raise CommandError(f"the database has no record of disclosures; {INGEST}", EXIT_USAGE)
        mapping = Mapping(engine, keys, lambda: datetime.now(UTC))
        found = await mapping.disclose(asked, whoami())
    finally:
        await engine.dispose()
    if not found:
        raise CommandError(
            f"project {keys.project!r}: no pseudonym and no original of that name; see that it is spelt as in the file",
            EXIT_INPUT_FAILED,
        )
    return {"project": keys.project, "found": [asdict(one) for one in found]}


def print_disclosed(console: Console, found: dict[str, Any]) -> None:
    """Print what `disclose` gave, for people."""
    for one in found["found"]:
        original = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in one["original"].items() if value)
        say(console, f"{one['pseudonym']}: {one['kind']}: {original}")
