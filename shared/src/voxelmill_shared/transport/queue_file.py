"""The queues as rows of one SQLite file. Plain and synchronous: one connection, used by one thread.

Every method that reads or writes rows runs inside `transaction`, so what is done in one block is durable together or
not at all (WAL, `synchronous=FULL`: one fsync for each commit).
"""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from voxelmill_shared.errors import BrokerUnavailableError, DeliveryLostError, UnroutableError
from voxelmill_shared.transport.base import (
    HEADER_DEAD_AT,
    HEADER_ERROR_CLASS,
    HEADER_REASON,
    Message,
    QueueCount,
)
from voxelmill_shared.transport.headers import replay_headers
from voxelmill_shared.transport.owners import Owners
from voxelmill_shared.transport.topic import topic_matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from voxelmill_shared.transport.topology import QueueSpec

_VERSION = 1
_BUSY_SECONDS = 10.0
_READY, _WAITING, _IN_HAND = 0, 1, 2

# `losses` counts the consumers that died with the message in hand. Ids only grow, and a message keeps its id when it
# is released or comes back from a rung: the oldest is delivered first.
_SCHEMA = """
CREATE TABLE queue (name TEXT PRIMARY KEY) STRICT;
CREATE TABLE binding (
    queue TEXT NOT NULL REFERENCES queue (name), pattern TEXT NOT NULL, PRIMARY KEY (queue, pattern)
) STRICT;
CREATE TABLE owner (id TEXT PRIMARY KEY) STRICT;
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL REFERENCES queue (name),
    state INTEGER NOT NULL DEFAULT 0,
    due REAL,
    owner TEXT,
    redelivered INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    body BLOB NOT NULL,
    routing_key TEXT NOT NULL,
    message_id TEXT NOT NULL,
    headers TEXT NOT NULL,
    content_type TEXT NOT NULL
) STRICT;
CREATE INDEX message_by_state ON message (queue, state, id);
CREATE INDEX message_by_due ON message (due) WHERE state = 1;
CREATE INDEX message_by_owner ON message (owner) WHERE state = 2;
CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL REFERENCES queue (name),
    body BLOB NOT NULL,
    routing_key TEXT NOT NULL,
    message_id TEXT NOT NULL,
    headers TEXT NOT NULL,
    content_type TEXT NOT NULL
) STRICT;
CREATE INDEX dead_letter_by_queue ON dead_letter (queue, id);
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message that this file's owner has in hand."""

    id: int
    queue: str
    message: Message
    redelivered: bool


class QueueFile:
    """One open queue file.

    Parameters
    ----------
    path
        The file. It and its folder are made if missing; lock files lie in a folder beside it.
    delivery_limit
        After how many deaths of its consumers a message counts as their killer and goes to the dead letters.

    Raises
    ------
    sqlite3.Error, OSError
        If the file cannot be opened, now or in any method: it is locked, full, broken or out of reach.
    BrokerUnavailableError
        If the file was made by another version of Voxelmill.
    """

    def __init__(self, path: Path, delivery_limit: int) -> None:
        self._limit = delivery_limit
        self._bindings: list[tuple[str, str]] = []
        self._bindings_version = self._seen_version = -1
        self._owners = Owners(path.with_name(f"{path.name}.owners"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._owners.alone():
            self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)  # transactions are ours
            try:
                self._prepare(path)
                known = {row[0] for row in self._db.execute("SELECT id FROM owner")}
                self._owners.sweep(known)
                self._db.execute("INSERT INTO owner (id) VALUES (?)", (self._owners.enter(),))
            except BaseException:
                self._owners.leave()
                self._db.close()
                raise

    def _prepare(self, path: Path) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT")
        elif version != _VERSION:
            raise BrokerUnavailableError(f"{path}: made by another version of Voxelmill (layout {version})")

    def close(self) -> None:
        """Hand back what is in hand, say that we are gone, and close. Whatever fails, the others find out."""
        try:
            with self.transaction():
                self._db.execute(
                    "UPDATE message SET state = ?, owner = NULL, redelivered = 1 WHERE state = ? AND owner = ?",
                    (_READY, _IN_HAND, self._owners.id),
                )
                self._db.execute("DELETE FROM owner WHERE id = ?", (self._owners.id,))
        finally:
            self._owners.leave()
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what is done inside durable together, or nothing of it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._bindings_version = -1
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def changed(self) -> bool:
        """Whether another connection has written since the last call. Cheap; needs no transaction."""
        before, self._seen_version = self._seen_version, self._others_version()
        return before != self._seen_version

    def _others_version(self) -> int:
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        return int(version)

    def has_ready(self, queues: Sequence[str]) -> bool:
        """Whether a message waits for a consumer in one of the queues. Needs no transaction."""
        return any(
            self._db.execute("SELECT 1 FROM message WHERE queue = ? AND state = ? LIMIT 1", (queue, _READY)).fetchone()
            for queue in queues
        )

    def next_due(self) -> float | None:
        """When the next rung's wait is over, in seconds since the epoch. Needs no transaction."""
        (due,) = self._db.execute("SELECT min(due) FROM message WHERE state = ?", (_WAITING,)).fetchone()
        return None if due is None else float(due)

    def gone_owners(self) -> list[str]:
        """Owners that ended without handing back. Needs no transaction."""
        return [row[0] for row in self._db.execute("SELECT id FROM owner") if self._owners.is_gone(row[0])]

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Make sure that queues and their bindings exist."""
        for queue in queues:
            self._db.execute("INSERT OR IGNORE INTO queue (name) VALUES (?)", (queue.name,))
            self._db.executemany(
                "INSERT OR IGNORE INTO binding (queue, pattern) VALUES (?, ?)",
                [(queue.name, pattern) for pattern in queue.bindings],
            )
        self._bindings_version = -1

    def publish(self, messages: Sequence[Message]) -> None:
        """Put each message into every queue that wants it; all of them, or none.

        Raises
        ------
        UnroutableError
            If no queue wants one of them.
        """
        if self._bindings_version != (version := self._others_version()):
            self._bindings = self._db.execute("SELECT queue, pattern FROM binding").fetchall()
            self._bindings_version = version
        rows: list[tuple[str, bytes, str, str, str, str]] = []
        for message in messages:
            # dict.fromkeys: two bindings of one queue that both match are still one copy.
            wanted = dict.fromkeys(q for q, pattern in self._bindings if topic_matches(pattern, message.routing_key))
            if not wanted:
                raise UnroutableError(f"{message.routing_key}: no queue wants message {message.message_id}")
            columns = _columns(message)
            rows.extend((queue, *columns) for queue in wanted)
        self._db.executemany(
            "INSERT INTO message (queue, body, routing_key, message_id, headers, content_type) VALUES (?,?,?,?,?,?)",
            rows,
        )

    def promote(self) -> None:
        """Let messages whose wait on a rung is over be delivered again."""
        self._db.execute(
            "UPDATE message SET state = ?, due = NULL WHERE state = ? AND due <= ?", (_READY, _WAITING, time.time())
        )

    def reap(self) -> None:
        """Take back what owners had in hand that are gone."""
        gone = self.gone_owners()
        for owner in gone:
            self._db.execute(
                "UPDATE message SET state = ?, owner = NULL, redelivered = 1, losses = losses + 1"
                " WHERE state = ? AND owner = ?",
                (_READY, _IN_HAND, owner),
            )
            self._db.execute("DELETE FROM owner WHERE id = ?", (owner,))
            self._owners.forget(owner)
        if gone:
            self._bury_killers()

    def _bury_killers(self) -> None:
        killers = self._db.execute("SELECT id, headers FROM message WHERE losses > ?", (self._limit,)).fetchall()
        for number, headers in killers:
            epitaph = {
                HEADER_ERROR_CLASS: "delivery-limit",
                HEADER_REASON: f"{self._limit + 1} consumers died with this message in hand",
                HEADER_DEAD_AT: datetime.now(UTC).isoformat(timespec="milliseconds"),
            }
            self._bury(number, json.loads(headers) | epitaph)

    def claim(self, queue: str, limit: int) -> list[Claimed]:
        """Take up to `limit` messages of a queue in hand, oldest first."""
        rows = self._db.execute(
            "UPDATE message SET state = ?, owner = ? WHERE id IN"
            " (SELECT id FROM message WHERE queue = ? AND state = ? ORDER BY id LIMIT ?)"
            " RETURNING id, redelivered, body, routing_key, message_id, headers, content_type",
            (_IN_HAND, self._owners.id, queue, _READY, limit),
        ).fetchall()
        rows.sort()  # RETURNING promises no order; ids are unique, so nothing but them is compared
        return [Claimed(number, queue, _message(*columns), bool(again)) for number, again, *columns in rows]

    def acknowledge(self, number: int) -> None:
        """Forget a message in hand: the work is done."""
        self._settle(
            "DELETE FROM message WHERE id = ? AND state = ? AND owner = ?", (number, _IN_HAND, self._owners.id)
        )

    def release(self, number: int) -> None:
        """Put a message in hand back where it was."""
        self._settle(
            "UPDATE message SET state = ?, owner = NULL, redelivered = 1 WHERE id = ? AND state = ? AND owner = ?",
            (_READY, number, _IN_HAND, self._owners.id),
        )

    def retry(self, number: int, wait: float, headers: Mapping[str, str | int]) -> None:
        """Let a message in hand come back after `wait` seconds, with these headers."""
        self._settle(
            "UPDATE message SET state = ?, due = ?, headers = ?, owner = NULL, redelivered = 0, losses = 0"
            " WHERE id = ? AND state = ? AND owner = ?",
            (_WAITING, time.time() + wait, json.dumps(dict(headers)), number, _IN_HAND, self._owners.id),
        )

    def dead_letter(self, number: int, headers: Mapping[str, str | int]) -> None:
        """Move a message in hand to the dead letters of its queue, with these headers."""
        self._settle(
            "UPDATE message SET owner = NULL WHERE id = ? AND state = ? AND owner = ?",
            (number, _IN_HAND, self._owners.id),
        )
        self._bury(number, headers)

    def _settle(self, statement: str, parameters: tuple[Any, ...]) -> None:
        if self._db.execute(statement, parameters).rowcount != 1:
            raise DeliveryLostError("the message is no longer in our hand: it is settled, or was taken back")

    def _bury(self, number: int, headers: Mapping[str, str | int]) -> None:
        self._db.execute(
            "INSERT INTO dead_letter (queue, body, routing_key, message_id, headers, content_type)"
            " SELECT queue, body, routing_key, message_id, ?, content_type FROM message WHERE id = ?",
            (json.dumps(dict(headers)), number),
        )
        self._db.execute("DELETE FROM message WHERE id = ?", (number,))

    def counts(self) -> list[QueueCount]:
        """How full every queue is, in the order of their names."""
        rows = self._db.execute(
            "SELECT name,"
            " (SELECT count(*) FROM message WHERE queue = name AND state = 0),"
            " (SELECT count(*) FROM message WHERE queue = name AND state = 2),"
            " (SELECT count(*) FROM message WHERE queue = name AND state = 1),"
            " (SELECT count(*) FROM dead_letter WHERE queue = name)"
            " FROM queue ORDER BY name"
        )
        return [QueueCount(*row) for row in rows]

    def dead_letters(self, queue: str, after: int, limit: int) -> list[tuple[int, Message]]:
        """Up to `limit` dead letters of a queue that were buried after number `after`, oldest first."""
        rows = self._db.execute(
            "SELECT id, body, routing_key, message_id, headers, content_type FROM dead_letter"
            " WHERE queue = ? AND id > ? ORDER BY id LIMIT ?",
            (queue, after, limit),
        )
        return [(number, _message(*columns)) for number, *columns in rows]

    def which_are_dead(self, queue: str, numbers: Sequence[int]) -> list[int]:
        """Say which of these are dead letters of a queue, each once."""
        statement = "SELECT 1 FROM dead_letter WHERE queue = ? AND id = ?"
        return [number for number in dict.fromkeys(numbers) if self._db.execute(statement, (queue, number)).fetchone()]

    def drop(self, queue: str, numbers: Sequence[int]) -> None:
        """Delete dead letters."""
        self._db.executemany("DELETE FROM dead_letter WHERE queue = ? AND id = ?", [(queue, n) for n in numbers])

    def replay(self, queue: str, numbers: Sequence[int]) -> None:
        """Move dead letters back to their queue."""
        for number in numbers:
            row = self._db.execute(
                "DELETE FROM dead_letter WHERE queue = ? AND id = ?"
                " RETURNING body, routing_key, message_id, headers, content_type",
                (queue, number),
            ).fetchone()
            message = _message(*row)
            columns = _columns(replace(message, headers=replay_headers(message)))
            self._db.execute(
                "INSERT INTO message (queue, body, routing_key, message_id, headers, content_type)"
                " VALUES (?,?,?,?,?,?)",
                (queue, *columns),
            )


def _columns(message: Message) -> tuple[bytes, str, str, str, str]:
    headers = json.dumps(dict(message.headers))
    return (message.body, message.routing_key, message.message_id, headers, message.content_type)


def _message(body: bytes, routing_key: str, message_id: str, headers: str, content_type: str) -> Message:
    return Message(body, routing_key, message_id, json.loads(headers), content_type)
