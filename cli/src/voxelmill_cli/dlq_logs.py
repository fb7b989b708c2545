"""The log lines of one trace, out of the files that the services' standard error was written to."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

from voxelmill_cli.errors import EXIT_USAGE, CommandError, explain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

KEPT = 200
"""How many lines of a trace are shown, the latest of them."""
STACK_LOGS = ".voxelmill/logs"
"""Where `make up` writes, under the folder that it was called in. `voxelmill up` writes to standard error alone."""


def log_files(given: Path | None, places: Sequence[Path]) -> list[Path]:
    """Give the log files: the one that was named, those of a folder that was named, or those of the usual places.

    Raises
    ------
    CommandError
        If what was named is not there.
    """
    if given is None:
        return [path for place in places for path in sorted(place.glob("*.log"))]
    if given.is_dir():
        return sorted(path for path in given.iterdir() if path.is_file())
    if given.is_file():
        return [given]
    raise CommandError(f"{given}: no such file or folder; name where the services' logs are", EXIT_USAGE)


def trace_lines(files: Sequence[Path], trace_id: str) -> list[dict[str, Any]]:
    """Find the lines of a trace, in the order of their times.

    Raises
    ------
    CommandError
        If a file cannot be read.
    """
    found: deque[dict[str, Any]] = deque(maxlen=KEPT)
    lines = [line for path in files for line in _of_file(path, trace_id)]
    found.extend(sorted(lines, key=lambda line: str(line.get("timestamp", ""))))
    return list(found)


def _of_file(path: Path, trace_id: str) -> Iterator[dict[str, Any]]:
    wanted = trace_id.encode()
    latest: deque[dict[str, Any]] = deque(maxlen=KEPT)
    try:
        with path.open("rb") as file:
            for raw in file:
                if wanted in raw and (line := _line(raw)) is not None and line.get("trace_id") == trace_id:
                    latest.append(line)
    except OSError as error:
        raise CommandError(explain(error, path)) from None
    yield from latest


def _line(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except ValueError:  # a server's own log, or the end of one that is being written
        return None
    return line if isinstance(line, dict) else None
