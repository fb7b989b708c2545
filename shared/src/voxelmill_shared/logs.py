"""Structured logs: one JSON object a line on standard error, with the trace and the series of the message in hand."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
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


_ENCODER = json.JSONEncoder(default=repr)
"""Made once: `json.dumps` makes one for every line, which takes as long as the line."""


def _render(_: WrappedLogger, __: str, line: EventDict) -> str:
    return _ENCODER.encode(line)


class _OfLibraries(logging.Handler):
    """Writes what libraries log as lines of ours: one JSON object each, `library` says whose it is."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
            return  # whoever ended it knows; the database's pool takes it for an error of the connection
        said = " ".join(record.getMessage().split())
        # Made for each line: it is written to where standard error is now, and under the level of now.
        log = structlog.get_logger("voxelmill").bind(library=record.name, reason=said)
        log.log(record.levelno, "library says", exc_info=record.exc_info)


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
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries log through the standard library: only what is wrong with them is of interest here.
    logging.captureWarnings(capture=True)
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[_OfLibraries()])
