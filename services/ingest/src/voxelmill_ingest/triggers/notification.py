"""What a notification says, whoever sent it."""

from __future__ import annotations

from dataclasses import dataclass

from voxelmill_shared.errors import VoxelmillError


class UnknownNotificationError(VoxelmillError):
    """A body of no shape that is known here: it names the reason, never the body."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One object that was uploaded. All of it is a hint; only `bucket` and `key` are always there.

    `bucket` is the server's name for it, `key` is whole and raw (never URL-encoded), `etag` is without quotes,
    `size` is in bytes.
    """

    bucket: str
    key: str
    etag: str = ""
    size: int = 0
    version_id: str | None = None
