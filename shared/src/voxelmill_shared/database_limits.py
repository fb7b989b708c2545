"""What a process may ask of its database. Apart from `database`, which is heavy, for services that have none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DatabaseLimits:
    """The bounds of one engine.

    Attributes
    ----------
    connections
        The most connections to PostgreSQL that a process has at a time; there are no others beyond. PostgreSQL's
        `max_connections` (100 by default, three of them its administrator's) bounds all processes together.
    wait_seconds
        How long work waits for one of them; then the database counts as unavailable, and the message waits.
    connect_seconds
        How long a new connection to PostgreSQL may take.
    statement_seconds
        How long a statement may take; on SQLite, how long a writer waits for the one before it.
    """

    connections: int = 5
    wait_seconds: float = 10.0
    connect_seconds: float = 10.0
    statement_seconds: float = 60.0


DEFAULT_LIMITS = DatabaseLimits()
