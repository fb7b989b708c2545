"""What the AMQP client library logs by itself, and which of it is told by the transport already.

A connection that ends is one event and one line: the transport's, which names queue and reason. What the library says
beside it is left out. All else of it is heard: a broker that holds publishers up, or an error that nobody foresaw.
"""

from __future__ import annotations

import logging

_TOLD = {
    "aiormq.connection": (
        "error when creating transport",
        "Cancelling cause reader exited abnormally",
        "Unexpected connection close from remote",
        "Server connection %r was stuck",
        "Got frame for closed channel",
    ),
    "aiormq.connection.marshall": ("It looks like you are going to send a frame",),
    "aiormq.channel": (
        "Closing channel %r",
        "Consumer %r cancelled by the broker",
        "Delivery tag %r confirmed %r was ignored",
    ),
}
"""How the lines begin that tell of the end of a connection, channel or subscription, or of an answer that came too
late: each of these raises an error as well, or calls back. By the loggers' names, after aiormq 7."""


class _NotTold(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_TOLD[record.name])


_NOT_TOLD = _NotTold()


def leave_out_what_is_told() -> None:
    """Keep the library from logging what the transport raises or logs. Asking for it again changes nothing."""
    for name in _TOLD:
        logging.getLogger(name).addFilter(_NOT_TOLD)
