"""`voxelmill status`: what became of every series, read from the catalog."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from voxelmill_cli.console import cell, say
from voxelmill_cli.engine import sqlite_url
from voxelmill_cli.errors import CommandError
from voxelmill_cli.sources import STATE_FOLDER
from voxelmill_shared import catalog
from voxelmill_shared.catalog import ObjectStatus, StageOutcome
from voxelmill_shared.database import open_database, reading
from voxelmill_shared.privacy import DIGEST, with_keys

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voxelmill_shared.catalog import JobView, SeriesView

LISTED = 1000


def databases_of(data: Path) -> list[str]:
    """Find the databases: the environment's, or those in a folder of `voxelmill up` or of runs.

    Raises
    ------
    CommandError
        If there is none.
    """
    url = os.environ.get("VOXELMILL_DATABASE_URL")
    if url:
        return [url]
    paths = [data / "voxelmill.db", *sorted((data / STATE_FOLDER).glob("*/voxelmill.db"))]
    found = [sqlite_url(path.resolve()) for path in paths if path.exists()]
    if not found:
        raise CommandError(f"{data}: no catalog there; name the folder of `voxelmill up` or of a run with --data")
    return found


async def read_status(data: Path, subject: str | None) -> dict[str, Any]:
    """Read the status of one series or job, or of everything, as data.

    Raises
    ------
    CommandError
        If there is no catalog, or nothing of that name in it.
    """
    everything: dict[str, Any] = {"series": [], "objects": {}, "not_taken": []}
    for url in databases_of(data):
        engine = open_database(url)
        try:
            async with reading(engine) as connection:
                if not await catalog.exists(connection):
                    continue  # killed before index had made its tables
                if subject is None:
                    await _add_all(connection, everything)
                elif found := await _one(connection, subject):
                    shown: dict[str, Any] = await _reveal(connection, found)
                    return shown
        finally:
            await engine.dispose()
    if subject is not None:
        raise CommandError(f"{subject}: no series and no job of that name; `voxelmill status` lists them", 1)
    return everything


async def read_object(data: Path, digest: str) -> dict[str, Any]:
    """Find the object that log lines and audit records name by a digest, `inbox#3f1c…`.

    Raises
    ------
    CommandError
        If there is no catalog, or no object of that name in it.
    """
    for url in databases_of(data):
        engine = open_database(url)
        try:
            async with reading(engine) as connection:
                if not await catalog.exists(connection):
                    continue
                address = (await catalog.addresses(connection, [digest])).get(digest)
                if address and (found := await catalog.get_object(connection, address)):
                    return {
                        "digest": digest,
                        "object": found.address,
                        "status": found.status,
                        "reason": found.reason,
                        "detail": found.detail,
                        "series_instance_uid": found.series_instance_uid,
                        "sop_instance_uid": found.sop_instance_uid,
                        "seen": found.seen.isoformat(),
                    }
        finally:
            await engine.dispose()
    raise CommandError(f"{digest}: no object of that name in the catalog; write it as the log does, inbox#…", 1)


def print_object(console: Console, found: dict[str, Any]) -> None:
    """Print what `read_object` gave, for people."""
    why = f": {found['detail']} ({found['reason']})" if found["reason"] else ""
    say(console, f"{found['object']}: {found['status']}{why}")
    if found["series_instance_uid"]:
        say(console, f"  series {found['series_instance_uid']}, instance {found['sop_instance_uid']}")


async def _reveal(connection: AsyncConnection, found: Any) -> Any:
    """Put the addresses of objects in the place of their digests: who may read the catalog may see them."""
    digests = {match[1] for match in DIGEST.finditer(json.dumps(found, default=str))}
    if not digests:
        return found
    known = await catalog.addresses(connection, sorted(digests))

    def shown(value: Any) -> Any:
        if isinstance(value, str):
            return with_keys(value, known)
        if isinstance(value, list):
            return [shown(one) for one in value]
        return {name: shown(one) for name, one in value.items()} if isinstance(value, dict) else value

    return shown(found)


async def _add_all(connection: AsyncConnection, everything: dict[str, Any]) -> None:
    counts = await catalog.counts(connection)
    series = [_series(series) for series in await catalog.list_series(connection, limit=LISTED)]
    everything["series"] += await _reveal(connection, series)
    for status, number in counts.objects.items():
        everything["objects"][status.value] = everything["objects"].get(status.value, 0) + number
    not_taken = [
        {"object": found.address, "status": found.status, "reason": found.reason, "detail": found.detail}
        for status in (ObjectStatus.REJECTED, ObjectStatus.FAILED)
        for found in await catalog.objects(connection, status=status, limit=LISTED)
    ]
    everything["not_taken"] += await _reveal(connection, not_taken)


async def _one(connection: AsyncConnection, subject: str) -> dict[str, Any] | None:
    series = await catalog.get_series(connection, subject)
    jobs = await catalog.series_jobs(connection, subject) if series else []
    if series is None and (job := await catalog.find_job(connection, subject)) is not None:
        jobs = [job]
        series = await catalog.get_series(connection, job.keys.series_instance_uid)
    if series is None:
        return None
    return {
        "series": [_series(series)],
        "jobs": [
            {
                **_job(job),
                "artefacts": [
                    {"key": artefact.key, "size": artefact.size, "sha256": artefact.sha256}
                    for artefact in await catalog.artefacts(connection, job.keys)
                ],
            }
            for job in jobs
        ],
    }


def _series(series: SeriesView) -> dict[str, Any]:
    return {
        "series_instance_uid": series.series_instance_uid,
        "study_instance_uid": series.study_instance_uid,
        "modality": series.modality,
        "instances": series.instances,
        "revisions": series.revisions,
        "job": _job(series.job) if series.job else None,
    }


def _job(job: JobView) -> dict[str, Any]:
    return {
        "job": job.job_id,
        "revision": job.revision,
        "status": job.status,
        "superseded": job.superseded,
        "receipt": job.receipt_key,
        "stages": [
            {
                "stage": stage.stage,
                "outcome": stage.outcome,
                "reason": stage.reason,
                "seconds": stage.elapsed,
                "artefacts": stage.artefacts,
            }
            for stage in job.stages
        ],
    }


_STYLES = {StageOutcome.DONE: "green", StageOutcome.SKIPPED: "yellow", StageOutcome.FAILED: "red"}


def print_status(console: Console, found: dict[str, Any]) -> None:
    """Print what `read_status` gave, for people."""
    table = Table(show_edge=False)
    for heading in ("series", "modality", "instances", "revision", "job", "status", "stages"):
        table.add_column(heading, overflow="fold")
    for series in found["series"]:
        job = series["job"]
        stages = Text()
        for stage in job["stages"] if job else ():
            stages.append(f"{stage['stage']} {stage['outcome']} ", _STYLES.get(stage["outcome"], "dim"))
        table.add_row(
            series["series_instance_uid"],
            cell(series["modality"]),
            str(series["instances"]),
            f"{job['revision']} of {series['revisions']}" if job else "",
            job["job"] if job else "",
            job["status"] if job else "waiting for more instances",
            stages,
        )
    console.print(table)
    for job in found.get("jobs", ()):
        _print_job(console, job)
    for series in found["series"]:
        for stage in series["job"]["stages"] if series["job"] and "jobs" not in found else ():
            if stage["outcome"] == StageOutcome.FAILED:
                line = f"failed: {series['series_instance_uid']}: {stage['stage']}: {stage['reason']}"
                say(console, line)
    for entry in found.get("not_taken", ()):
        line = f"{entry['status']}: {entry['object']}: {entry['detail']} ({entry['reason']})"
        say(console, line)
    if "objects" in found:
        counts = ", ".join(f"{number} {status}" for status, number in found["objects"].items() if number)
        console.print(f"objects: {counts or 'none'}", highlight=False)


def _print_job(console: Console, job: dict[str, Any]) -> None:
    superseded = ", superseded" if job["superseded"] else ""
    console.print(f"job {job['job']}: revision {job['revision']}, {job['status']}{superseded}", highlight=False)
    for stage in job["stages"]:
        seconds = f" in {stage['seconds']:.1f} s" if stage["seconds"] is not None else ""
        reason = f": {stage['reason']}" if stage["reason"] else ""
        line = f"  {stage['stage']}: {stage['outcome']}{seconds}, {stage['artefacts']} artefacts{reason}"
        say(console, line)
    for artefact in job["artefacts"]:
        say(console, f"  {artefact['key']}  {artefact['size']} B")
