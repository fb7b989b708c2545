"""Reading the fields of a notification. What names the object must be right; the rest is a hint and may be missing."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_plus

from voxelmill_ingest.triggers.notification import Notification, UnknownNotificationError
from voxelmill_shared.storage.keys import is_text

_LONGEST_HINT = 1024
"""S3's version IDs have at most 1,024 bytes (Amazon S3 User Guide, "Version IDs"); no ETag comes near."""
_LARGEST_SIZE = 2**63 - 1


def mapping(value: object, where: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises
    ------
    UnknownNotificationError
        If it is something else.
    """
    if not isinstance(value, dict):
        raise UnknownNotificationError(f"{where} is {json_type(value)}, not an object")
    return value


def name(value: object, where: str) -> str:
    """Return a bucket's name or a key that is spelt as it is.

    Raises
    ------
    UnknownNotificationError
        If it is no text, or none that an event can hold.
    """
    if not isinstance(value, str):
        raise UnknownNotificationError(f"{where} is {json_type(value)}, not text")
    if not value:
        raise UnknownNotificationError(f"{where} is empty")
    if not is_text(value):
        raise UnknownNotificationError(f"{where} is not Unicode text")
    return value


def encoded_name(value: object, where: str) -> str:
    """Return a key that is spelt as in the query of a URL: `+` for a space, `%` for everything else.

    Raises
    ------
    UnknownNotificationError
        As `name`, and if what is decoded is not UTF-8.
    """
    try:
        return name(unquote_plus(name(value, where), errors="strict"), where)
    except UnicodeDecodeError:
        raise UnknownNotificationError(f"{where} is not UTF-8 once its URL encoding is undone") from None


def etag(value: object) -> str:
    """Return an ETag without its quotes, or an empty text."""
    text = value.strip('"') if isinstance(value, str) else ""
    return text if _is_hint(text) else ""


def size(value: object) -> int:
    """Return a number of bytes, which may be written as text; 0 if it is none."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_SIZE:
        return value
    return 0


def version_id(value: object) -> str | None:
    """Return a version ID; None for `null`, the version of what has none (Ceph says so with an empty text)."""
    return value if isinstance(value, str) and value not in {"", "null"} and _is_hint(value) else None


def checked(told: Notification) -> Notification:
    """Return a notification that was read elsewhere, held to the same rules.

    Raises
    ------
    UnknownNotificationError
        As `name`.
    """
    return Notification(
        name(told.bucket, "the bucket"),
        name(told.key, "the key"),
        etag(told.etag),
        size(told.size),
        version_id(told.version_id),
    )


def json_type(value: object) -> str:
    """Name the type of a JSON value, never the value."""
    match value:
        case None:
            return "missing"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
    return "an object"


def _is_hint(text: str) -> bool:
    return len(text) <= _LONGEST_HINT and text.isascii() and text.isprintable()
