"""Faults of what the services stand on: a store that fails or is slow, a full disk, a clock that jumps."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from faults.faults import BaseFault
from faults.proxy import Mode

if TYPE_CHECKING:
    from faults.harness import Run
    from faults.installation import Installation

WORKERS = ("ingest", "thumbnail", "segment", "mesh")
PIECE = bytes(1 << 16)
SLOW_SECONDS = 10.0


@dataclass(frozen=True)
class StoreFails(BaseFault):
    """Every request to the store is answered with 503, or every connection to it is reset."""

    def apply(self, run: Run) -> None:
        """Break the store for a while."""
        _break(run, run.random.choice([Mode.RESET, Mode.UNAVAILABLE]), run.outage)


@dataclass(frozen=True)
class StoreSlow(BaseFault):
    """The store gives and takes 1 KB/s on each connection."""

    def apply(self, run: Run) -> None:
        """Make the store slow for a while."""
        _break(run, Mode.SLOW, min(SLOW_SECONDS, run.outage))


def _break(run: Run, mode: Mode, seconds: float) -> None:
    run.installation.proxy.become(mode)
    try:
        run.pass_time(seconds)
    finally:
        run.installation.proxy.become(Mode.OPEN)


@dataclass(frozen=True)
class DiskFull(BaseFault):
    """No byte fits into the work folders any more.

    Where this account may mount, each service has a small file system of its own for its work folder, and it is filled.
    Else no file of the services can grow (RLIMIT_FSIZE), which they see as another error of the same kind.
    """

    def apply(self, run: Run) -> None:
        """Fill the disks, and free them after a while."""
        if run.installation.mounts:
            files = [_fill(run.installation, name) for name in WORKERS]
            run.pass_time(min(5.0, run.outage))
            for file in files:
                file.unlink(missing_ok=True)
        else:
            _let_files_grow(run.installation, 0)
            run.pass_time(min(5.0, run.outage))
            _let_files_grow(run.installation, resource.RLIM_INFINITY)


def _fill(installation: Installation, name: str) -> Path:
    """Fill the file system that only this service sees; return what fills it."""
    kept = installation.processes[name]
    assert kept.disk is not None
    path = Path(f"/proc/{kept.pid}/root{kept.disk.folder}/full")
    try:
        with path.open("wb", buffering=0) as file:
            while file.write(PIECE) == len(PIECE):
                pass
    except OSError:  # full
        pass
    return path


def _let_files_grow(installation: Installation, most: int) -> None:
    for name in WORKERS:
        kept = installation.processes[name]
        for pid in (kept.pid, *kept.children()):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


@dataclass(frozen=True)
class ClockJumps(BaseFault):
    """The clock of every service jumps an hour, forwards or backwards.

    The clock of this machine is everybody's and stays as it is. What a jump changes for the services is how far the
    times that are stored lie from now: so every stored time that is compared with another one (the ledger's timers,
    leases and sightings, the times of the catalog's events) is moved by an hour the other way. Times that only tell of
    something stay. Waits within a process go by the monotonic clock, which no jump moves.
    """

    def apply(self, run: Run) -> None:
        """Wait until the timer of a series is set, then move every stored time."""
        run.wait_until(lambda: _timers(run), "the timer of a series is set")
        run.pass_time(run.random.uniform(0.0, 0.3))
        shift = run.random.choice(["+1 hour", "-1 hour"])
        columns = run.installation.rows(
            "SELECT table_name AS table, column_name AS column FROM information_schema.columns"
            " WHERE table_schema = 'public' AND data_type LIKE 'timestamp%%'"
            " AND (table_name IN ('ingest_objects', 'ingest_series', 'ingest_uploads', 'ingest_duties')"
            " OR table_name LIKE 'catalog\\_%%' AND column_name IN ('event_time', 'validated_at'))"
        )
        tables: dict[str, list[str]] = {}
        for row in columns:
            tables.setdefault(row["table"], []).append(row["column"])
        run.notes.append(f"moved by {shift}")
        for table, names in sorted(tables.items()):
            moved = ", ".join(f'"{name}" = "{name}" + interval \'{shift}\'' for name in names)
            run.installation.rows(f"UPDATE {table} SET {moved}")  # noqa: S608 - names out of the database's own schema


def _timers(run: Run) -> bool:
    """Whether a series of this run waits for its timer."""
    uids = [one.uid for one in run.work.series]
    query = "SELECT 1 FROM ingest_series WHERE due_at IS NOT NULL AND series_instance_uid = ANY(%s)"
    return bool(run.installation.rows(query, uids))


OUTAGES = (
    StoreFails("store-fails", "S3 answers 503 or resets connections"),
    StoreSlow("store-slow", "S3 slow (1 KB/s)"),
    DiskFull("disk-full", "disk full in the work folders"),
    ClockJumps("clock-jump", "clock jump of an hour", at_once=True),
)
