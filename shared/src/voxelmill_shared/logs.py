"""Structured logs: one JSON object a line on standard error, with the trace and the series of the message in hand.

No line holds an object's key or what a file says: see `privacy`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import structlog

from voxelmill_shared.privacy import addresses_in, describe, format_error, object_digest, without_keys

if TYPE_CHECKING:
    from types import TracebackType

    from structlog.typing import EventDict, WrappedLogger

    from voxelmill_shared.events import Envelope

handling: ContextVar[tuple[str, Envelope] | None] = ContextVar("voxelmill_handling", default=None)
"""The service and the message that is being handled. One name, read only when a line is written."""


def _of_message(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Say of which message a line tells, if one is being handled."""
    now = handling.get()
    if now is None:
        return line
    service, envelope = now
    return {
        "service": service,
        "event_type": envelope.routing_key,
        "trace_id": envelope.trace_id,
        "subject": envelope.subject,
        "job": envelope.correlationid,
        **line,
    }


_OURS: Final = frozenset(
    {"event", "level", "timestamp", "service", "event_type", "event_id", "trace_id", "job", "who", "queue", "library"}
)
"""Fields that no object's key gets into: most lines have no other text, and looking costs time."""


def _nameless(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Put digests in the place of objects' keys, also in what libraries and the system say."""
    now = handling.get()
    addresses = addresses_in(now[1].data) if now else []
    for name, value in line.items():
        if name in _OURS or value is None or isinstance(value, bool | int | float):
            continue
        if name == "subject":
            line[name] = object_digest(value)
        elif isinstance(value, str):
            line[name] = without_keys(value, addresses)
        else:
            line[name] = json.loads(without_keys(_ENCODER.encode(value), addresses))
    return line


def _exceptions(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Write where an error came from, and not its text, which may quote a file."""
    found: Any = line.pop("exc_info", None)
    if found:
        error = found if isinstance(found, BaseException) else sys.exc_info()[1] if found is True else found[1]
        if error is not None:
            line["exception"] = format_error(error)
    return line


_ENCODER = json.JSONEncoder(default=repr)
"""Made once: `json.dumps` makes one for every line, which takes as long as the line."""


def _render(_: WrappedLogger, __: str, line: EventDict) -> str:
    return _ENCODER.encode(line)


_QUOTED: Final = frozenset(
    {
        *("aio_pika", "aiormq", "aiohttp", "aiosqlite", "alembic", "asyncpg", "concurrent", "sqlalchemy"),
        *("aiobotocore", "boto3", "botocore", "s3transfer", "urllib3", "grpc", "numba", "torch", "voxelmill"),
    }
)
"""Libraries that are never given what a file holds, so that their texts can be shown. All others warn with values."""


class _OfLibraries(logging.Handler):
    """Writes what libraries log as lines of ours: one JSON object each, `library` says whose it is.

    Of a library that reads files only the place is told.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
            return  # whoever ended it knows; the database's pool takes it for an error of the connection
        said = _said(record)
        # Made for each line: it is written to where standard error is now, and under the level of now.
        log = structlog.get_logger("voxelmill").bind(library=record.name, reason=said)
        log.log(record.levelno, "library says", exc_info=record.exc_info)


def _said(record: logging.LogRecord) -> str:
    library = record.name.partition(".")[0]
    if library == "asyncio":  # further lines show the task, with its error's text
        return record.getMessage().partition("\n")[0]
    if library in _QUOTED:
        return " ".join(record.getMessage().split())
    if record.name == "py.warnings":  # `path:line: Category: text`, then the line of the source
        place = re.match(r"(.+?:\d+: \w+): ", record.getMessage())
        return f"{place[1] if place else 'a warning'}; its text is left out: it may quote a file"
    return f"{record.filename}:{record.lineno} in {record.funcName}; its text is left out: it may quote a file"


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell of an error that ends the process, or one of its threads."""
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger("voxelmill").critical("ended by an error", exc_info=error.with_traceback(trace))


def _end_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        _end(ended.exc_type, ended.exc_value, ended.exc_traceback)


def _unraisable(found: Any) -> None:
    error = found.exc_value
    reason = describe(error) if error is not None else str(found.exc_type)
    structlog.get_logger("voxelmill").error("error where nobody could take it", reason=reason)


def tell_of_the_end() -> None:
    """Have errors that nobody catches told as lines of ours too: Python itself would print their texts."""
    sys.excepthook = _end
    threading.excepthook = _end_of_thread
    sys.unraisablehook = _unraisable


def configure(level: str = "INFO") -> None:
    """Set up logging for this process. Call it once, in `main`.

    Raises
    ------
    ValueError
        If `level` is no level of the standard library.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"log level {level!r}: use DEBUG, INFO, WARNING or ERROR")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _of_message,
            _exceptions,
            _nameless,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries log through the standard library: only what is wrong with them is of interest here.
    logging.captureWarnings(capture=True)
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[_OfLibraries()])
