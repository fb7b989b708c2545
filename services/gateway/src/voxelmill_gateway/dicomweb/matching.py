"""How a value that is asked for matches what a series has (PS3.4 C.2.2.2), as conditions on the catalog's columns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, or_

from voxelmill_gateway.problems import Problem
from voxelmill_shared.catalog.names import fold_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement

MOST_UIDS: Final = 1000
"""The longest list of UIDs in a question."""
_DATE: Final = re.compile(r"[0-9]{8}\Z")
_TIME: Final = re.compile(r"[0-9]{2}([0-9]{2}([0-9]{2}(\.[0-9]{1,6})?)?)?\Z")
_LAST_DATE, _LAST_TIME = "99999999", "235960.999999"


def matches(
    vr: str, column: ColumnElement[str], values: Sequence[str], name: str, *, sqlite: bool
) -> ColumnElement[bool] | None:
    """Return the condition that an attribute matches, or None if anything does.

    Parameters
    ----------
    vr
        The attribute's value representation, which says how it is matched; `PN` only where the catalog has folded it.
    column
        What the catalog has; for `PN` folded by `fold_name`.
    values
        What is asked for, one or several.
    name
        The attribute, for messages.
    sqlite
        Whether the database is SQLite: wildcards that tell upper case from lower are said otherwise there.

    Raises
    ------
    Problem
        400 if it cannot be asked for in this way.
    """
    if vr == "UI":
        uids = [uid.strip() for value in values for uid in re.split(r"[\\,]", value) if uid.strip()]
        if len(uids) > MOST_UIDS:
            raise Problem(400, "Too many UIDs", f"{name}: ask for {MOST_UIDS:,} at a time")
        return column.in_(uids) if uids and "*" not in uids else None
    conditions = [_one(vr, column, value, name, sqlite=sqlite) for value in values]
    asked = [condition for condition in conditions if condition is not None]
    return or_(*asked) if len(asked) == len(conditions) and asked else None


def _one(vr: str, column: ColumnElement[str], value: str, name: str, *, sqlite: bool) -> ColumnElement[bool] | None:
    value = value.strip()
    if value in {"", "*"}:
        return None
    if vr in {"DA", "TM"}:
        return _period(vr, column, value, name)
    if vr == "PN":
        value = fold_name(value)
        if "*" not in value and "?" not in value:  # of the groups of a name, whoever asks for one means the first
            return or_(column == value, column.startswith(f"{value}=", autoescape=True))
    if "*" in value or "?" in value:
        return _like(column, value, sqlite=sqlite)
    return column == value


def _period(vr: str, column: ColumnElement[str], value: str, name: str) -> ColumnElement[bool]:
    """Match a date or a time, or a range of them with an open end or without (PS3.4 C.2.2.2.5)."""
    first, dash, last = (part.strip() for part in value.partition("-"))
    pattern = _DATE if vr == "DA" else _TIME
    if not (first or last) or any(part and not pattern.match(part) for part in (first, last)):
        how = "YYYYMMDD" if vr == "DA" else "HHMMSS.FFFFFF"
        raise Problem(
            400, "Not a date or time", f"{name}: it is {how}, or two with - between them, one of which may miss"
        )
    if not dash:
        last = first
    # A time that names no second is its whole minute, and the last moment of a range belongs to it.
    until = last or (_LAST_DATE if vr == "DA" else _LAST_TIME)
    if vr == "TM":
        until += _LAST_TIME[len(until) :]
    return and_(column >= (first or "0"), column <= until)


def _like(column: ColumnElement[str], pattern: str, *, sqlite: bool) -> ColumnElement[bool]:
    """Match wildcards: `*` is any characters, `?` any one."""
    if sqlite:
        return column.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]"))
    escaped = re.sub(r"([%_\\])", r"\\\1", pattern)
    return column.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")
