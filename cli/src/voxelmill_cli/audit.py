"""`voxelmill audit`: hold the audit trail to its chain, and write it as FHIR."""

from __future__ import annotations

import json
import os
import secrets
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from voxelmill_cli.console import say
from voxelmill_cli.errors import EXIT_INPUT_FAILED, CommandError
from voxelmill_cli.status import databases_of
from voxelmill_shared import catalog
from voxelmill_shared.catalog.fhir import audit_event
from voxelmill_shared.catalog.verification import UNREADABLE, Head, Verification, has_chain, verify_trail
from voxelmill_shared.database import open_database, reading

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from rich.console import Console
    from sqlalchemy.ext.asyncio import AsyncEngine

PAGE = 2000
"""Records in memory at a time while they are written."""


@asynccontextmanager
async def _trail(data: Path) -> AsyncIterator[tuple[str, AsyncEngine]]:
    """Open the one trail that is there, and name it.

    Raises
    ------
    CommandError
        If there is none or more than one, or it is no chain yet.
    """
    found = databases_of(data)
    if len(found) > 1:
        raise CommandError(
            f"{data}: {len(found)} trails there, one of each run; name the run's own folder with --data, "
            "or set VOXELMILL_DATABASE_URL"
        )
    engine = open_database(found[0])
    name = engine.url.render_as_string(hide_password=True)
    try:
        async with reading(engine) as connection:
            if not await has_chain(connection):
                raise CommandError(f"{name}: no audit trail there yet; start index (or `voxelmill up`) once")
        yield name, engine
    finally:
        await engine.dispose()


def read_time(text: str) -> datetime:
    """Read a date or a time of ISO 8601; without a zone it is UTC.

    Raises
    ------
    CommandError
        If it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        line = f"{text or 'nothing'}: no time; write it as 2026-01-31 or 2026-01-31T12:00+01:00"
        raise CommandError(line) from None


async def verify(data: Path, noted: Head | None, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Hold the trail to its chain; see `catalog.verification.verify_trail`."""
    async with _trail(data) as (name, engine):
        found = await verify_trail(engine, noted, progress)
    return _as_document(name, found)


def _as_document(name: str, found: Verification) -> dict[str, Any]:
    return {
        "trail": name,
        "records": found.records,
        "sound": not found.faulty,
        "head": str(found.head),
        "faulty": found.faulty,
        "faults": [
            asdict(fault) | {"recorded": fault.recorded.isoformat() if fault.recorded else None}
            for fault in found.faults
        ],
        "exit_code": EXIT_INPUT_FAILED if found.faulty else 0,
    }


def print_verification(console: Console, found: dict[str, Any]) -> None:
    """Print what `verify` gave, for people."""
    for fault in found["faults"]:
        say(console, fault["line"])
    if (more := found["faulty"] - len(found["faults"])) > 0:
        say(console, f"… and {more} more")
    said = (
        "sound"
        if found["sound"]
        else f"broken in {found['faulty']} places; keep the database as it is and see who could write to it"
    )
    say(console, f"{found['trail']}: {found['records']} records, {said}")
    say(console, f"head {found['head']}  (write it down elsewhere; --since-head checks against it)")


async def export(
    data: Path,
    output: Path | None,
    *,
    since: datetime | None,
    until: datetime | None,
    series: str | None,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write the records as FHIR R4 AuditEvents, one JSON document a line.

    Parameters
    ----------
    data
        The folder of the installation, where the environment names no database.
    output
        The file, which appears when it is whole; None: standard output.
    since, until
        Only what was recorded then or later, and only what was recorded before.
    series
        Only records about this Series Instance UID.
    progress
        Called with the records written, and 0.

    Raises
    ------
    CommandError
        If there is no such trail, or it holds what no record can.
    OSError
        If the file cannot be written.
    """
    written = 0
    async with _trail(data) as (name, engine):
        with _written(output) as file:
            after = 0
            while True:
                try:
                    async with reading(engine) as connection:
                        page = await catalog.audit(
                            connection, uid=series, since=since, until=until, after=after, limit=PAGE
                        )
                    lines = [json.dumps(audit_event(record), separators=(",", ":")) + "\n" for record in page]
                except UNREADABLE:
                    line = f"{name}: a record after number {after} cannot be read; `voxelmill audit verify` names it"
                    raise CommandError(line, EXIT_INPUT_FAILED) from None
                file.writelines(lines)
                written += len(page)
                progress(written, 0)
                if len(page) < PAGE:
                    break
                after = page[-1].number
    return {"trail": name, "records": written, "output": str(output) if output else "-", "exit_code": 0}


@contextmanager
def _written(output: Path | None) -> Iterator[TextIO]:
    """Give a file that takes its name when it is whole and durable; standard output, a device or a pipe as it is."""
    if output is None:
        yield sys.stdout
        return
    try:
        if output.exists() and not (output.is_file() or output.is_dir()):  # else root would put a file in its place
            with output.open("w", encoding="utf-8") as file:
                yield file
            return
        partial = output.with_name(f".{output.name}.{secrets.token_hex(4)}.part")
        try:
            with partial.open("x", encoding="utf-8") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(output)
        except BaseException:
            with suppress(FileNotFoundError):
                partial.unlink()
            raise
    except OSError as error:
        error.filename, error.filename2 = str(output), None  # the system names the partial file, or none
        raise
