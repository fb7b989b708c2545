"""Text of others, fit to be shown."""

from __future__ import annotations


def shown(value: str, most: int = 300) -> str:
    """Return text out of an object, fit to be shown and kept: what is no printable character is escaped.

    PostgreSQL keeps no NUL, a terminal obeys what it is sent, and a line that holds another is two. `most` is how many
    characters are left.
    """
    if value.isprintable():
        return value[:most]
    printable = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in value[:most])
    return "".join(printable)[:most]
