"""API keys: what programs sign in with. Only the digest of a key's secret is stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert, select, update

from voxelmill_gateway.access.callers import Caller, Role
from voxelmill_gateway.access.errors import NotBelievedError
from voxelmill_gateway.tables import API_KEYS, OUTBOX
from voxelmill_shared.database import reading, transaction
from voxelmill_shared.errors import VoxelmillError
from voxelmill_shared.events import AccessRecorded, Envelope
from voxelmill_shared.outbox import add
from voxelmill_shared.projects import is_project

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

PREFIX: Final = "vmk_"
"""What every key begins with, so that one that lies about is found by those who look for secrets."""
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"
_KEY: Final = re.compile(r"vmk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NOBODY: Final = hashlib.sha256(secrets.token_bytes()).hexdigest()
"""Compared with where there is no such key, so that the two take as long."""
_USED_EVERY: Final = timedelta(minutes=1)
"""How exact `last_used` is: each use would else be a write."""


class KeyDescriptionError(VoxelmillError, ValueError):
    """A key that cannot be made as it was asked for."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without its secret. Times in UTC; `projects` None: all."""

    key_id: str
    name: str
    role: Role
    projects: frozenset[str] | None
    created: datetime
    created_by: str
    expires: datetime | None = None
    revoked: datetime | None = None
    last_used: datetime | None = None

    @property
    def who(self) -> str:
        """What stands in the audit trail."""
        return f"{self.name}@key-{self.key_id}"


def _now() -> datetime:
    return datetime.now(UTC)


class ApiKeys:
    """The keys of an installation.

    Parameters
    ----------
    engine
        The database with the gateway's tables.
    source
        Who publishes what happens to keys, for the envelopes.
    notify
        Called when there is something to publish.
    clock
        Tells the time, in UTC.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        source: str,
        *,
        notify: Callable[[], None] = lambda: None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._engine = engine
        self._source = source
        self._notify = notify
        self._clock = clock

    async def create(
        self, name: str, role: Role, projects: frozenset[str] | None, *, by: str, expires: datetime | None = None
    ) -> tuple[ApiKey, str]:
        """Make a key; return it, and the text to hand over, which is shown this once and stored nowhere.

        Parameters
        ----------
        name
            What it is for; not unique.
        by
            Who makes it, for the audit trail.

        Raises
        ------
        KeyDescriptionError
            If the name, the projects or the expiry cannot be.
        DatabaseUnavailableError
            If the database does not answer.
        """
        now = self._clock()
        _check(name, projects, expires, now)
        key = ApiKey(secrets.token_hex(8), name, role, projects, now, by, expires)
        secret = secrets.token_urlsafe(32)
        row = {
            "key_id": key.key_id,
            "name": name,
            "secret_sha256": _digest(secret),
            "role": int(role),
            "projects": None if projects is None else sorted(projects),
            "created": now,
            "created_by": by,
            "expires": expires,
        }
        async with transaction(self._engine) as connection:
            await connection.execute(insert(API_KEYS).values(row))
            await self._tell(connection, by, "key-created", key, now)
        self._notify()
        return key, f"{PREFIX}{key.key_id}_{secret}"

    async def everything(self) -> list[ApiKey]:
        """Return every key, newest first, also those that expired or were revoked."""
        async with reading(self._engine) as connection:
            rows = (await connection.execute(select(API_KEYS).order_by(API_KEYS.c.created.desc()))).all()
        return [_key(row) for row in rows]

    async def revoke(self, key_id: str, *, by: str) -> ApiKey | None:
        """Let a key be refused from now on; return it, or None if there is none of this id.

        One that is revoked already stays as it is.
        """
        async with transaction(self._engine) as connection:
            row = (await connection.execute(select(API_KEYS).where(API_KEYS.c.key_id == key_id))).one_or_none()
            if row is None:
                return None
            key = _key(row)
            if key.revoked is None:
                key = replace(key, revoked=self._clock())
                await connection.execute(
                    update(API_KEYS).where(API_KEYS.c.key_id == key_id).values(revoked=key.revoked)
                )
                await self._tell(connection, by, "key-revoked", key, self._clock())
        self._notify()
        return key

    async def caller(self, text: str) -> tuple[Caller, datetime | None]:
        """Return whom a key stands for, and when it expires.

        Raises
        ------
        NotBelievedError
            If it is wrong, revoked or expired.
        DatabaseUnavailableError
            If the database does not answer.
        """
        match = _KEY.fullmatch(text)
        if match is None:
            raise NotBelievedError("key-malformed", "this is no API key: look whether it was copied whole")
        key_id, secret = match.groups()
        async with reading(self._engine) as connection:
            row = (await connection.execute(select(API_KEYS).where(API_KEYS.c.key_id == key_id))).one_or_none()
        right = hmac.compare_digest(_NOBODY if row is None else row.secret_sha256, _digest(secret))
        if row is None or not right:
            raise NotBelievedError("key-unknown", "there is no such API key: ask an admin for one")
        key = _key(row)
        now = self._clock()
        if key.revoked is not None:
            raise NotBelievedError("key-revoked", "the API key was revoked: ask an admin for another", guess=False)
        if key.expires is not None and key.expires <= now:
            raise NotBelievedError("key-expired", "the API key has expired: ask an admin for another", guess=False)
        if key.last_used is None or now - key.last_used >= _USED_EVERY:
            async with transaction(self._engine) as connection:
                await connection.execute(update(API_KEYS).where(API_KEYS.c.key_id == key_id).values(last_used=now))
        return Caller(key.who, key.role, key.projects), key.expires

    async def _tell(self, connection: AsyncConnection, by: str, action: str, key: ApiKey, when: datetime) -> None:
        rights = f"{key.role.label}, {'all projects' if key.projects is None else ' '.join(sorted(key.projects))}"
        event = AccessRecorded(who=by, action=action, detail=f"{key.who}: {rights}", period_start=when)
        await add(connection, OUTBOX, [Envelope.wrap(event, self._source)])


def _check(name: str, projects: frozenset[str] | None, expires: datetime | None, now: datetime) -> None:
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise KeyDescriptionError("a key's name is 1 to 64 letters, digits, spaces, . _ and -, a letter or digit first")
    if projects is not None:
        if not projects:
            raise KeyDescriptionError("a key without a project opens nothing: name one, or all of them")
        for project in projects:
            if not is_project(project):
                raise KeyDescriptionError(f"{project!r} can name no project: 1 to 63 of a-z, 0-9 and -")
    if expires is not None and expires <= now:
        raise KeyDescriptionError("the key would have expired already: name a later time")


def _digest(secret: str) -> str:
    """Of 256 random bits: nobody guesses them, so that nothing slower than SHA-256 is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        row.key_id,
        row.name,
        Role(row.role),
        None if row.projects is None else frozenset(row.projects),
        row.created,
        row.created_by,
        row.expires,
        row.revoked,
        row.last_used,
    )
